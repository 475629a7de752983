"""`sm-overlap-comm`: a collective begins with the first tile of its producer and ends with the last of its readers."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr

from ...core.errors import PlanError
from ...core.ranks import STRATEGIES
from ...dialects.sm import GraphOp
from ...dialects.sm.attributes import ALL_RANKS, MULTICAST
from ...tasks.push import Push
from ..base import MpkPass
from .exchange import Exchange, TwoShot

FORMS = {"push": "one-shot", "two-shot": "two-shot", "multicast": "multicast"}
"""What reasons call a strategy; of equal costs the first is taken."""
STATISTICS = {"push": "pushed", "two-shot": "two_shot", "multicast": "multicast"}
"""What counts its exchanges."""


@dataclass(frozen=True)
class OverlapComm(MpkPass):
    """Let the tasks that compute a value write it to other ranks tile by tile, and readers poll for what they need.

    Before, as `tile` makes it: the tasks of @sum.push wait for all of @down and write its result to all ranks:
    ```mlir
    sm.grid @down "linear" ... (..., %partial) boxes [..., #sm.box<write, (d0) -> (0, d0 * 32), [8, 32]>]
    sm.grid @sum.push "push" ... (%partial, %slots)
      boxes [#sm.box<read, (d0) -> (0, 0), [8, 4096]>, #sm.box<write, (d0)[s0] -> (s0 * 8, d0 * 64), [8, 64] to all>]
    sm.grid @sum "rank_sum" ... (%slots, %y)        // %y counted: who reads it waits for all of it
    ```
    After ``strategy=push``, one-shot: @sum.push is gone, a task of @sum begins when its columns are there from all
    ranks, and a reader of %y when what it reads is there, while the weights of the next tasks stream:
    ```mlir
    sm.grid @down "linear" ... (..., %slots) boxes [..., #sm.box<write, (d0)[s0] -> (s0 * 8, d0 * 32), [8, 32] to all>]
    sm.grid @sum "rank_sum" ... (%slots, %y)
    ```
    After ``strategy=two-shot``, a reduce-scatter and an all-gather: each rank sums the columns that are its piece, here
    of 1024, and writes the sum to all, so that a link carries 2 / N of what one-shot sends:
    ```mlir
    sm.grid @down "linear" ... (..., %slots)
      boxes [..., #sm.box<write, (d0)[s0] -> (s0 * 8, d0 * 32 mod 1024), [8, 32] to (d0) -> (d0 * 32 floordiv 1024)>]
    sm.grid @sum "rank_sum" ... (%slots, %y)
      boxes [..., #sm.box<write, (d0)[s0] -> (0, d0 * 64 + s0 * 1024), [8, 64] to all>]
    ```
    After ``strategy=multicast``, as one-shot, but each tile is stored once, and the switch between the GPUs gives it to
    all. It does not add: the sum is made in the order of ranks, by each rank, as in the others:
    ```mlir
    sm.grid @down "linear" ... (..., %slots) boxes [..., #sm.box<write, ..., [8, 32] to multicast>]
    ```
    ``strategy=off`` leaves it as it is, to see what overlap is worth. ``auto`` takes what the figures of the target's
    links say is faster, and the grid's `reason` says why; multicast only with ``multicast``, as not all GPUs have it.
    The sums are the same in all, in the same order.

    Statistics: ``pushed``, values that their producer sends to all; ``two_shot``; ``multicast``; ``waiting``, those
    that wait for a push.
    """

    name = "sm-overlap-comm"
    strategy: str = "auto"
    multicast: bool = False

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.strategy not in STRATEGIES:
            raise PlanError(
                f"sm-overlap-comm: strategy: found '{self.strategy}', expected one of {', '.join(STRATEGIES)}"
            )
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            for push in [grid for grid in graph.grids if grid.kind.data == Push.name]:
                self._overlap(Exchange.of(graph, push))

    def _overlap(self, exchange: Exchange) -> None:
        problem = "strategy=off" if self.strategy == "off" else exchange.problem
        if problem is not None:
            exchange.push.reason = StringAttr(f"waits for all of its operand: {problem}")
            self.count("waiting")
            return
        two_shot, problem = TwoShot.of(exchange)
        costs_us = exchange.costs_us
        possible = {"push"}
        if two_shot is not None:
            possible.add("two-shot")
        if not exchange.scatters and (self.multicast or self.strategy == "multicast"):
            possible.add("multicast")
        chosen, why = self._choose(possible, costs_us, problem)
        reason = f"{why}: {', '.join(f'{costs_us[one]:.1f} us {FORMS[one]}' for one in FORMS if one in possible)}"
        if chosen == "two-shot":
            assert two_shot is not None
            two_shot.apply(reason)
        else:
            exchange.push_tiles(MULTICAST if chosen == "multicast" else ALL_RANKS, reason)
        self.count(STATISTICS[chosen])

    def _choose(self, possible: set[str], costs_us: dict[str, float], problem: str) -> tuple[str, str]:
        """A strategy of ``possible``, and why; ``problem``: why two-shot is none of them, if it is not."""
        if self.strategy == "auto":
            chosen = min((one for one in FORMS if one in possible), key=costs_us.__getitem__)
            return chosen, FORMS[chosen] if not problem else f"{FORMS[chosen]}, {problem}"
        if self.strategy in possible:
            return self.strategy, f"{self.strategy} asked for"
        return "push", f"{FORMS['push']}, {problem}"
