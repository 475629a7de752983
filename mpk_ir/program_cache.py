"""Planned and proved steps on disk, and what tuning found: a model compiled before starts without the compiler."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from io import BytesIO
from os import walk
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

from .codegen.program import Program
from .core.ranks import ALONE, Parallel
from .core.target import Target, target_of
from .runtime.disk_cache import DiskCache, digest_of
from .tasks import BUILTIN_KINDS, EXTENSION_GROUP, registered_kinds

if TYPE_CHECKING:
    from .frontend import ModelConfig, StepOptions

_SUFFIX, _TUNED_SUFFIX = ".program", ".tuned"
_SOURCES = (".py", ".cuh")
_LINKED = ("dialects", "passes", "codegen", "runtime")
"""Subpackages that lie beside the package in a checkout."""
_PLANNERS = ("xdsl", "numpy")
"""Packages of others that have a part in what a plan looks like."""


@dataclass(frozen=True)
class Trial:
    """A plan that was timed: the edits of the pipeline that make it, and its step as predicted and as measured."""

    edits: tuple[str, ...]
    predicted_us: float
    measured_us: float


@dataclass(frozen=True)
class Tuned:
    """What `mpk tune` found on a device: the edits to plan by from now on, and all that it timed."""

    device: str
    edits: tuple[str, ...]
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class ProgramCache:
    """The program of a step follows from config, target, capacity, ranks, what was found by tuning, and all of mpk-ir's
    own source: a changed file makes other entries. Where extensions are installed or a target has figures of its own,
    nothing is kept."""

    disk: DiskCache = field(default_factory=DiskCache)

    def step(self, config: ModelConfig, target: Target, options: StepOptions, parallel: Parallel = ALONE) -> Program:
        """The program of each rank of ``parallel``, ``target`` the part of the machine that one has: one that was
        planned and proved before, else planned, proved and kept now. Raises what `compile_module` raises."""
        tuned = self.tuned(config, target, options, parallel)
        edits = tuned.edits if tuned else ()
        if not _keeps(target):
            return _compiled(config, target, options, parallel, edits)
        name = digest_of([code_digest(), repr((config, target, options, parallel, edits))]) + _SUFFIX
        kept = self.disk.read(name)
        if kept is not None:
            return _unpacked(kept)
        program = _compiled(config, target, options, parallel, edits)
        self.disk.write(name, _packed(program))
        return program

    def tuned(
        self, config: ModelConfig, target: Target, options: StepOptions, parallel: Parallel = ALONE
    ) -> Tuned | None:
        """What tuning found for steps of as many requests and rows, of any length."""
        kept = self.disk.read(_tuned_name(config, target, options, parallel)) if _keeps(target) else None
        if kept is None:
            return None
        facts = json.loads(kept)
        trials = tuple(Trial(tuple(t["edits"]), t["predicted_us"], t["measured_us"]) for t in facts["trials"])
        return Tuned(facts["device"], tuple(facts["edits"]), trials)

    def keep_tuned(
        self, tuned: Tuned, config: ModelConfig, target: Target, options: StepOptions, parallel: Parallel = ALONE
    ) -> None:
        """Plan such steps by ``tuned`` from now on."""
        if _keeps(target):
            name = _tuned_name(config, target, options, parallel)
            self.disk.write(name, json.dumps(asdict(tuned)).encode())


def _tuned_name(config: ModelConfig, target: Target, options: StepOptions, parallel: Parallel) -> str:
    facts = repr((config, target, options.batch, options.rows, parallel))
    return digest_of([code_digest(), facts]) + _TUNED_SUFFIX


def _keeps(target: Target) -> bool:
    return target == target_of(target.name) and not _is_extended()


def _compiled(
    config: ModelConfig, target: Target, options: StepOptions, parallel: Parallel, edits: tuple[str, ...]
) -> Program:
    from .compiler import step_module
    from .edits import compile_edited

    return compile_edited(step_module(config, options), target, edits, parallel).program


@cache
def code_digest() -> str:
    """Of the source of mpk-ir, and the versions of Python and of the packages that plans depend on."""
    parts: list[str | bytes] = [sys.version, *(version(name) for name in _PLANNERS)]
    for name, path in sorted(_source_files()):
        parts += [name, path.read_bytes()]
    return digest_of(parts)


def _source_files() -> Iterator[tuple[str, Path]]:
    """Each file once, by a name that does not depend on where the package lies."""
    package = __name__.partition(".")[0]
    for subpackage in ("", *_LINKED):
        spec = find_spec(f"{package}.{subpackage}".rstrip("."))
        assert spec is not None, "a package of ours"
        assert spec.origin is not None, "it has an __init__.py"
        root = Path(spec.origin).parent
        for folder, folders, files in walk(root):
            if not subpackage:
                folders[:] = [one for one in folders if one not in _LINKED]
            for file in files:
                if file.endswith(_SOURCES):
                    path = Path(folder, file)
                    yield f"{subpackage}/{path.relative_to(root)}", path


def _is_extended() -> bool:
    """Whether code that is not mpk-ir's can have a part in a plan."""
    return bool(entry_points(group=EXTENSION_GROUP)) or registered_kinds() != BUILTIN_KINDS


def _packed(program: Program) -> bytes:
    file = BytesIO()
    with ZipFile(file, "w") as archive:
        for name, data in program.files().items():
            archive.writestr(name, data)
    return file.getvalue()


def _unpacked(body: bytes) -> Program:
    with ZipFile(BytesIO(body)) as archive:
        return Program.of_files({name: archive.read(name) for name in archive.namelist()})
