"""A block's ring of stages, run step by step: a loader that fills, a body that takes and gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpk_ir.codegen.program import Program
from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import GraphOp
from mpk_ir.tasks import task_kind

RUNTIME_BYTES = 3584
TILE_ROWS, STAGE_COLUMNS = 16, 512


@dataclass(frozen=True)
class Use:
    """A task that takes ``stages`` of the ring, ``at_once`` at a time."""

    stages: int
    at_once: int


def goes_round(stages: int, queue: Sequence[Use], choose: Callable[[list[str]], str] = lambda able: able[0]) -> bool:
    """Whether the tasks of ``queue`` all end; ``choose`` says who of those that can goes next."""
    filled = taken = given = 0
    groups = [min(use.at_once, use.stages - done) for use in queue for done in range(0, use.stages, use.at_once)]
    total, at = sum(groups), 0
    while at < len(groups):
        able = ["loader"] if filled < total and filled - given < stages else []
        able += ["take"] if taken == given and filled - taken >= groups[at] else []
        able += ["give"] if taken > given else []
        if not able:
            return False
        match choose(able):
            case "loader":
                filled += 1
            case "take":
                taken += groups[at]
            case _:
                given, at = taken, at + 1
    return True


@dataclass
class Load:
    """What a loader brings for a task: stages of weights, and perhaps of a state."""

    stages: int = 0
    state: bool = False

    def add_box(self, low: Sequence[int], high: Sequence[int]) -> None:
        """A box of a weight: whole tiles if it is a matrix, else one stage."""
        matrix = len(low) == 2
        self.stages += -(-(high[0] - low[0]) // TILE_ROWS) * -(-(high[1] - low[1]) // STAGE_COLUMNS) if matrix else 1


def filled(queue: Sequence[Load], waiting: int, ring: int) -> int:
    """Stages that a loader fills, from a task's first on, while the consumers wait at that task; caches are empty."""
    free = ring
    for load, is_next_step in [*((one, False) for one in queue[waiting:]), *((one, True) for one in queue)]:
        if load.state and is_next_step:
            break
        for _ in range(load.stages):
            if not free:
                return ring
            free -= 1
    return ring - free


@dataclass(frozen=True)
class Split:
    """How a plan splits shared memory, with what its grids take of it: (stages at once, bytes of scratch)."""

    stages: int
    stage_bytes: int
    scratch_bytes: int
    limit_bytes: int
    grids: tuple[tuple[int, int], ...]

    @staticmethod
    def of_graph(graph: GraphOp) -> Split | None:
        if graph.shared_memory is None:
            return None
        ring = graph.shared_memory
        grids = tuple(
            (g.task_kind.stages_at_once * g.task_kind.streams, g.task_kind.scratch_bytes(g.task_params))
            for g in graph.grids
        )
        limit = target_of(graph.target.data).shared_memory_bytes
        return Split(ring.stages.data, ring.stage_bytes.data, ring.scratch_bytes.data, limit, grids)

    @staticmethod
    def of_tables(program: Program) -> Split | None:
        lines = program.headers.get("mpk/config.cuh", "").splitlines()
        words = [line.rstrip(";").split() for line in lines if line.startswith("constexpr int")]
        constants = {parts[2]: int(parts[4]) for parts in words}
        if "kRingStages" not in constants:
            return None
        kinds = [(task_kind(grid.kind), grid.params) for grid in program.grids]
        grids = tuple((k.stages_at_once * k.streams, k.scratch_bytes(k.params_from(params))) for k, params in kinds)
        return Split(
            constants["kRingStages"],
            constants["kStageBytes"],
            constants["kScratchBytes"],
            program.target.shared_memory_bytes,
            grids,
        )

    def is_wrong(self) -> bool:
        """Whether it does not fit a block, or a body finds too little, or waits for ever."""
        used = self.stages * self.stage_bytes + 2 * self.scratch_bytes + RUNTIME_BYTES
        if used > self.limit_bytes or any(scratch > self.scratch_bytes for _, scratch in self.grids):
            return True
        return not goes_round(self.stages, [Use(2 * takes, takes) for takes, _ in self.grids if takes])
