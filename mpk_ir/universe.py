"""What mpk-ir adds to xDSL: dialects, passes and targets, all by name until asked for.

Every `xdsl-opt` in the environment imports this module through the `xdsl.universe` entry point, so it imports neither
torch nor cuda, nor the modules of the things it names.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from typing import TypeVar

from xdsl.context import Context
from xdsl.universe import XDSL_UNIVERSE, Universe

from .core.errors import UsageError
from .core.lazy import loader
from .dialects import ALL_DIALECTS
from .passes import PASSES

ALL_TARGETS = {"cuda": "mpk_ir.codegen.target:CudaTarget"}
"""Target name, as after `-t` -> `module:class` of its xDSL `Target`."""

MPK_UNIVERSE = Universe(
    all_dialects={name: loader(reference) for name, reference in ALL_DIALECTS.items()},
    all_passes={name: loader(reference) for name, reference in PASSES.items()},
    all_targets={name: loader(reference) for name, reference in ALL_TARGETS.items()},
)

Factory = TypeVar("Factory")


@cache
def multiverse() -> Universe:
    """Everything known here: xDSL's dialects, passes and targets, ours, and those of installed extensions.

    Unlike `Universe.get_multiverse`, it needs no installed metadata to know our own names, and an extension that
    cannot be imported costs a warning instead of the tool. Raises UsageError if two packages claim one name.
    """
    merged = Universe()
    owners: dict[tuple[str, str], str] = {}
    for package, universe in _universes():
        _claim("dialect", package, universe.all_dialects, owners, merged.all_dialects)
        _claim("pass", package, universe.all_passes, owners, merged.all_passes)
        _claim("target", package, universe.all_targets, owners, merged.all_targets)
    return merged


def new_context(*, allow_unregistered: bool = False) -> Context:
    """A context in which every dialect of `multiverse` is registered, none loaded."""
    ctx = Context(allow_unregistered=allow_unregistered)
    for name, factory in multiverse().all_dialects.items():
        ctx.register_dialect(name, factory)
    return ctx


def _universes() -> Iterator[tuple[str, Universe]]:
    yield "xdsl", XDSL_UNIVERSE
    yield "mpk_ir", MPK_UNIVERSE
    for plugin in sorted(entry_points(group="xdsl.universe"), key=lambda plugin: plugin.name):
        if plugin.name in ("xdsl", "mpk_ir"):
            continue
        try:
            universe = plugin.load()
        except Exception as error:
            warnings.warn(f"extension '{plugin.name}' left out: {plugin.value}: {error}", stacklevel=2)
            continue
        if not isinstance(universe, Universe):
            raise UsageError(f"extension '{plugin.name}': {plugin.value} is {universe!r}, expected an xDSL Universe")
        yield plugin.name, universe


def _claim(
    kind: str,
    package: str,
    entries: dict[str, Factory],
    owners: dict[tuple[str, str], str],
    into: dict[str, Factory],
) -> None:
    for name, factory in entries.items():
        owner = owners.setdefault((kind, name), package)
        if owner != package:
            raise UsageError(
                f"{kind} '{name}' is defined by both '{owner}' and '{package}'",
                advice="uninstall or rename one of them",
            )
        into[name] = factory
