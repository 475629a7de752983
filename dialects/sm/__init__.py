"""`sm`, the SM task graph: one op per task *grid*, boxes that say what each task touches, events that order them.

A decision of the planner is an attribute: tile shape (in ``params``), placement, event maps, arena offsets.
Single tasks exist only after expansion to arrays (`expansion.py`).
"""

from xdsl.ir import Dialect

from .attributes import (
    AccessAttr,
    BoxAttr,
    BufferType,
    CyclicAttr,
    EventType,
    LayoutAttr,
    SharedMemoryAttr,
    SpaceAttr,
    StreamAttr,
)
from .ops import BufferOp, EventOp, GraphOp, GridOp

Sm = Dialect(
    "sm",
    [GraphOp, BufferOp, EventOp, GridOp],
    [BufferType, EventType, AccessAttr, BoxAttr, CyclicAttr, LayoutAttr, SharedMemoryAttr, SpaceAttr, StreamAttr],
)

__all__ = [
    "BoxAttr",
    "BufferOp",
    "BufferType",
    "CyclicAttr",
    "EventOp",
    "EventType",
    "GraphOp",
    "GridOp",
    "LayoutAttr",
    "SharedMemoryAttr",
    "Sm",
    "SpaceAttr",
    "StreamAttr",
]
