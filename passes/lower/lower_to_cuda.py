"""`lower-to-cuda`: from a planned task graph to the one translation unit that runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from ...core.errors import PlanError
from ...core.memory import RUNTIME_SHARED_BYTES, shared_bytes, step_counter_offset
from ...core.target import Target, target_of
from ...dialects.cuda import BodyOp, ConstantOp, IncludeOp, KernelOp, SourceOp
from ...dialects.sm import GraphOp, GridOp, SharedMemoryAttr
from ...dialects.sm.expansion import placement
from ...tasks.base import TaskKind
from ..base import MpkPass

KERNEL_THREADS = 384
"""Eight consumer warps, a loader, a fetcher of task records, and two warps that are there because registers are dealt
to four at a time (codegen/cuda/mpk/runtime/context.cuh)."""


@dataclass(frozen=True)
class LowerToCuda(MpkPass):
    """Collect the distinct task bodies of a graph, and set the launch.

    Before: `sm.graph @step target "h200" {...}` with events, placements and its shared memory split. After, beside it
    (the tables are still expanded from the graph):
    ```mlir
    cuda.source @step.cuda from @step target "h200" {
      cuda.include "mpk/tasks/linear.cuh"
      cuda.constant @kRingStages 8 : i64
      cuda.body 0 : i64 "mpk::Linear<...>" in "mpk/tasks/linear.cuh" arguments [1.0e-06 : f64] streams true
      cuda.kernel @mpk_step blocks 132 threads 384 shared_bytes 219136
    }
    ```
    ``bulk_loads=false`` copies weights by ordinary loads and stores, slower, for tools that do not follow
    the copy engine. ``profile`` records when each task begins, is ready, has computed and signalled.
    ``early_weights=false`` takes no weights into registers while a task waits for its x.
    ``jitter_ns`` lets warps sleep up to so long before tasks, signals and loads, as if by chance; 0 builds nothing of
    that in. Statistics: ``signatures``, distinct bodies; ``shared_bytes`` of a block.
    """

    name = "lower-to-cuda"
    bulk_loads: bool = True
    early_weights: bool = True
    profile: bool = False
    jitter_ns: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for graph in [g for g in op.body.block.ops if isinstance(g, GraphOp)]:
            op.body.block.insert_op_after(self._lower(graph), graph)

    def _lower(self, graph: GraphOp) -> SourceOp:
        target = target_of(graph.target.data)
        bodies = distinct_bodies(graph)
        self.count("signatures", len(bodies))
        split = _shared_memory(graph)
        stages, stage_bytes, scratch = split.stages.data, split.stage_bytes.data, split.scratch_bytes.data
        constants = {
            "kRingStages": stages,
            "kStagesInFlight": split.in_flight.data,
            "kMostStagesInFlight": split.most_in_flight.data,
            "kStageBytes": stage_bytes,
            "kScratchBytes": scratch,
            "kBlockThreads": KERNEL_THREADS,
            "kRuntimeSharedBytes": RUNTIME_SHARED_BYTES,
            "kPolledBytes": graph.polled_bytes.value.data if graph.polled_bytes is not None else 0,
            "kStepEvent": step_event(graph),
            "kStepArrivals": graph.rank_count * num_busy_sms(graph, target),
            "kRanks": graph.rank_count,
            "kRankBlocks": target.num_sms,
            "kMulticasts": int(any(box.multicasts for grid in graph.grids for box in grid.boxes)),
            "kStepCounterOffset": step_counter_offset(graph.arena_bytes.value.data if graph.arena_bytes else 0),
            "kNumTasks": sum(grid.num_tasks for grid in graph.grids),
            "kBulkLoads": int(self.bulk_loads),
            "kEarlyWeights": int(self.early_weights),
            "kProfile": int(self.profile),
            "kJitterNs": self.jitter_ns,
        }
        shared = shared_bytes(stages, stage_bytes, scratch)
        self.count("shared_bytes", shared)
        headers = sorted({f"mpk/tasks/{kind.name}.cuh" for kind, _, _ in bodies})
        return SourceOp(
            f"{graph.sym_name.data}.cuda",
            graph.sym_name.data,
            target.name,
            [
                *(IncludeOp(header) for header in headers),
                *(ConstantOp(name, value) for name, value in constants.items()),
                *(body_op(number, *body) for number, body in enumerate(bodies)),
                KernelOp(f"mpk_{graph.sym_name.data}", target.num_sms, KERNEL_THREADS, shared),
            ],
        )


Body = tuple[TaskKind[Any], str, tuple[float, ...]]


def body_of(grid: GridOp) -> Body:
    """Kind, C++ type and arguments: grids that share all three share a case of the dispatch."""
    kind, params = grid.task_kind, grid.task_params
    return kind, kind.signature(params), kind.body_arguments(params)


def distinct_bodies(graph: GraphOp) -> list[Body]:
    """In order of first use."""
    return list(dict.fromkeys(body_of(grid) for grid in graph.grids))


def body_op(number: int, kind: TaskKind[Any], type_name: str, arguments: tuple[float, ...]) -> BodyOp:
    """The case of the dispatch for one body."""
    return BodyOp(number, type_name, f"mpk/tasks/{kind.name}.cuh", arguments, streams=kind.streams)


def num_busy_sms(graph: GraphOp, target: Target) -> int:
    """SMs with at least one task: each arrives once at the end of a step."""
    return len(np.unique(np.concatenate([placement(grid, target.num_sms) for grid in graph.grids])))


def step_event(graph: GraphOp) -> int:
    """The first element number of the event that ends a step; elements are numbered in order of events."""
    number = 0
    for event in graph.events:
        if event.step is not None:
            return number
        number += event.size
    raise PlanError("lower-to-cuda: the graph has no step event", advice="run sm-synthesize-events before")


def _shared_memory(graph: GraphOp) -> SharedMemoryAttr:
    split = graph.shared_memory
    if split is None:
        raise PlanError(
            "lower-to-cuda: the graph does not say how blocks split shared memory", advice="run sm-pipeline before"
        )
    return split
