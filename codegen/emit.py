"""From a lowered module to a `Program`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from xdsl.dialects.builtin import ModuleOp

from ..core.errors import PlanError
from ..core.target import target_of
from ..dialects.cuda import SourceOp
from ..dialects.sm import GraphOp
from ..dialects.sm.params import value_from_attr
from ..tasks import task_kind
from . import abi
from .cuda_printer import print_config, print_source
from .plan import expand
from .program import Launch, Program

RUNTIME_HEADERS = (
    "atoms.cuh",
    "types.cuh",
    "math.cuh",
    "strided.cuh",
    "best.cuh",
    "table.cuh",
    "panels.cuh",
    "matrix.cuh",
    "blocks.cuh",
    "epilogue.cuh",
    "runtime/fetch.cuh",
    "runtime/polling.cuh",
    "runtime/context.cuh",
    "runtime/loader.cuh",
    "runtime/jitter.cuh",
    "runtime/kernel.cuh",
)


def emit(module: ModuleOp) -> Program:
    """The program of the one lowered graph in ``module``. Raises PlanError if there is not exactly one."""
    sources = [op for op in module.body.block.ops if isinstance(op, SourceOp)]
    if len(sources) != 1:
        raise PlanError(f"expected one cuda.source, found {len(sources)}", advice="run lower-to-cuda before")
    source = sources[0]
    graphs = [
        op for op in module.body.block.ops if isinstance(op, GraphOp) and op.sym_name == source.graph.root_reference
    ]
    if len(graphs) != 1:
        raise PlanError(
            f"cuda.source @{source.sym_name.data}: expected the graph it was made from, found {len(graphs)}"
        )
    graph, kernel, constants = graphs[0], source.kernel, source.constants
    tables = expand(graph)
    launch = Launch(
        kernel=kernel.sym_name.data,
        num_blocks=kernel.blocks.value.data,
        num_threads=kernel.threads.value.data,
        shared_bytes=kernel.shared_bytes.value.data,
        ring_bytes=constants["kRingStages"] * constants["kStageBytes"],
    )
    return Program(
        name=graph.sym_name.data,
        target=target_of(graph.target.data),
        buffers=tables.buffers,
        grids=tables.grids,
        bodies=tables.bodies,
        tasks=tables.tasks,
        queue_begin=tables.queue_begin,
        event_count=tables.event_count,
        event_polled=tables.event_polled,
        event_shared=tables.event_shared,
        event_names=tables.event_names,
        step_event=constants["kStepEvent"],
        arena_bytes=graph.arena_bytes.value.data if graph.arena_bytes is not None else 0,
        polled_bytes=graph.polled_bytes.value.data if graph.polled_bytes is not None else 0,
        ranks=graph.rank_count,
        source=print_source(source),
        headers=headers_of(source, [grid.kind for grid in tables.grids]),
        launch=launch,
        constants=tables.constants,
        metadata={**_metadata(graph), "profile": bool(constants["kProfile"])},
    )


def headers_of(source: SourceOp, kinds: list[str]) -> dict[str, str]:
    """All headers that NVRTC needs, by include name."""
    folder = resources.files("mpk_ir.codegen").joinpath("cuda/mpk")
    headers = {f"mpk/{name}": folder.joinpath(name).read_text() for name in RUNTIME_HEADERS}
    headers |= {"mpk/abi.cuh": abi.header(), "mpk/config.cuh": print_config(source)}
    for name in sorted(set(kinds)):
        headers[f"mpk/tasks/{name}.cuh"] = task_kind(name).header()
    return headers


def _metadata(graph: GraphOp) -> Mapping[str, Any]:
    return {key: value_from_attr(value) for key, value in graph.metadata.data.items()}
