"""Names that stand for objects in modules not imported yet: `"mpk_ir.passes.sm.schedule:Schedule"`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def load(reference: str) -> Any:
    """The object that ``reference`` (`module:attribute`) names; imports its module."""
    module, attribute = reference.split(":")
    return getattr(import_module(module), attribute)


def loader(reference: str) -> Callable[[], Any]:
    """A function of no arguments that gives ``load(reference)`` when it is called."""

    def load_now() -> Any:
        return load(reference)

    return load_now
