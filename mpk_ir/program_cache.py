"""Planned and proved steps on disk: a model that was compiled before starts without the compiler."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
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

_SUFFIX = ".program"
_SOURCES = (".py", ".cuh")
_LINKED = ("dialects", "passes", "codegen", "runtime")
"""Subpackages that lie beside the package in a checkout."""
_PLANNERS = ("xdsl", "numpy")
"""Packages of others that have a part in what a plan looks like."""


@dataclass(frozen=True)
class ProgramCache:
    """The program of a step follows from config, target, capacity, ranks, and all of mpk-ir's own source: a changed
    file makes other entries. Where extensions are installed or a target has figures of its own, nothing is kept."""

    disk: DiskCache = field(default_factory=DiskCache)

    def step(self, config: ModelConfig, target: Target, options: StepOptions, parallel: Parallel = ALONE) -> Program:
        """The program of each rank of ``parallel``, ``target`` the part of the machine that one has: one that was
        planned and proved before, else planned, proved and kept now. Raises what `compile_step` raises."""
        if target != target_of(target.name) or _is_extended():
            return _compiled(config, target, options, parallel)
        name = digest_of([code_digest(), repr((config, target, options, parallel))]) + _SUFFIX
        kept = self.disk.read(name)
        if kept is not None:
            return _unpacked(kept)
        program = _compiled(config, target, options, parallel)
        self.disk.write(name, _packed(program))
        return program


def _compiled(config: ModelConfig, target: Target, options: StepOptions, parallel: Parallel) -> Program:
    from .compiler import compile_step

    return compile_step(config, target, options, parallel=parallel).program


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
