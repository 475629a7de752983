"""`sm-verify`: is the plan free of deadlock and races?"""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from ...dialects.sm import GraphOp
from ...proof import check
from ..analysis.plan_arrays import plan_of
from ..base import MpkPass


@dataclass(frozen=True)
class Verify(MpkPass):
    """Check a plan, task by task; the IR is left as it is.

    The rules are those of `mpk_ir.proof.check`: bounds, counting, polled, dealing, deadlock, race, memory model,
    coverage, memory, ring, step.
    `mpk verify` proves them again on the tables of a saved program.

    Raises Rejection (a VerificationError) that names the rule, the tasks with grid, index, SM and queue position, and
    the box or event; for a deadlock the cycle. Before and after: the same IR. Statistics: ``tasks``,
    ``waits``, ``signals``, as many as were checked.
    """

    name = "sm-verify"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            plan = plan_of(graph)
            check(plan)
            self.count("tasks", plan.num_tasks)
            self.count("waits", len(plan.waits))
            self.count("signals", len(plan.signals))
