"""Is a plan free of deadlock and races? One checker over arrays; `passes/sm/verify.py` reads them from the IR,
`codegen/verify.py` from the tables of a program."""

from .check import check
from .plan import Bounds, BoundsTable, Plan, PlanBuffer, PlanGrid, Region
from .rejection import Place, Rejection, TaskRef
from .ring import PlanRing

__all__ = [
    "Bounds",
    "BoundsTable",
    "Place",
    "Plan",
    "PlanBuffer",
    "PlanGrid",
    "PlanRing",
    "Region",
    "Rejection",
    "TaskRef",
    "check",
]
