"""Where an op came from, as text for messages."""

from __future__ import annotations

from xdsl.dialects.builtin import ArrayAttr, CallSiteLoc, FileLineColLoc, FusedLoc, NameLoc
from xdsl.ir import Attribute, Operation


def location_of(op: Operation) -> str | None:
    """`file:line:col` of ``op`` or of the nearest op around it that has a location; None if none has."""
    here: Operation | None = op
    while here is not None:
        if (place := describe(here.location)) is not None:
            return place
        here = here.parent_op()
    return None


def describe(location: Attribute) -> str | None:
    """``location`` as `file:line:col`, or a name where that is all there is; None if it is unknown."""
    match location:
        case FileLineColLoc():
            return f"{location.filename.data}:{location.line.data}:{location.column.data}"
        case NameLoc():
            return describe(location.location) or location.desc.data
        case CallSiteLoc():
            return describe(location.callee)
        case FusedLoc(locations=ArrayAttr() as parts):
            return next((place for part in parts if (place := describe(part))), None)
        case _:
            return None
