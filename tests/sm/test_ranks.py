"""Plans for several ranks: simulated, they compute what one computes; and what makes one unsafe is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import AffineMapAttr, ArrayAttr, IntegerAttr, ModuleOp, i64
from xdsl.ir.affine import AffineConstantExpr, AffineMap
from xdsl.utils.exceptions import VerifyException

from mpk_ir import proof
from mpk_ir.codegen.emit import emit
from mpk_ir.codegen.memory_model import check_ordering
from mpk_ir.codegen.plan_arrays import plan_of as program_plan
from mpk_ir.codegen.program import Program
from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.core.errors import VerificationError
from mpk_ir.core.ranks import TO_ALL
from mpk_ir.core.target import target_of
from mpk_ir.dialects.sm import BoxAttr, GraphOp, GridOp
from mpk_ir.dialects.sm.attributes import ALL_RANKS, ints
from mpk_ir.dialects.sm.ops import EventUse, dense_i32
from mpk_ir.interpreter import run_step, shard_state
from mpk_ir.passes.analysis.plan_arrays import plan_of
from mpk_ir.passes.lower.lower_to_cuda import LowerToCuda
from mpk_ir.passes.sm.verify import Verify
from mpk_ir.pipeline import lowering_passes, plan_passes, tensor_passes
from mpk_ir.proof import Rejection, check
from mpk_ir.proof.check import check_step
from mpk_ir.proof.order import Order
from mpk_ir.proof.races import check_coverage, check_early_reads, check_races
from mpk_ir.proof.ranks import spread
from mpk_ir.runtime.interleaving import Interleaving, Lagging, Priorities, RandomOrder, RunAhead, StarvedSm
from mpk_ir.runtime.simulator import Simulator, SimulatorOptions
from tests.sm.conftest import graph_of
from tests.tg.graphs import FAMILIES, LEAST_VOCABULARY, Arrays, Plan, random_state, random_weights, transformed

STRATEGIES = ("push", "two-shot", "multicast", "off")
ORDERS: list[Callable[[int], Interleaving]] = [
    RandomOrder,
    Priorities,
    lambda seed: RunAhead(),
    lambda seed: StarvedSm(seed % 8),
    lambda seed: Lagging(most=bool(seed % 2)),
]
STEPS = 3


@st.composite
def ranked_plans(draw: st.DrawFn) -> tuple[Plan, int]:
    ranks = draw(st.integers(1, 8))
    kv_heads = draw(st.sampled_from([heads for heads in range(1, 9) if heads % ranks == 0 or ranks % heads == 0]))
    plan = Plan(
        family=draw(st.sampled_from(FAMILIES)),
        layers=draw(st.integers(1, 2)),
        kv_heads=kv_heads,
        group=max(1, ranks // kv_heads) * draw(st.integers(1, 2)),
        head_dim=16,
        inner=ranks * draw(st.sampled_from((8, 16, 64))),
        vocabulary=ranks * (-(-LEAST_VOCABULARY // ranks) + draw(st.integers(0, 3))),
        hidden=draw(st.sampled_from((24, 128))),
        biases=draw(st.booleans()),
        tied=draw(st.booleans()),
        batch=draw(st.integers(1, 2)),
        rows=draw(st.integers(2, 5)),
        dtype="bfloat16",
    )
    return plan, ranks


def sharded(plan: Plan, ranks: int) -> ModuleOp:
    return transformed(plan.build(), *tensor_passes(ranks))


def rounded(arrays: Arrays) -> Arrays:
    """Floats as bf16 can hold them."""
    return {name: round_to_bf16(a) if a.dtype.kind == "f" else a for name, a in arrays.items()}


def program_of(module: ModuleOp, strategy: str) -> Program:
    planned = module.clone()
    for one in (*plan_passes(target_of("sim"), strategy), *lowering_passes()):
        one.apply(Context(), planned)
        planned.verify()
    return emit(planned)


@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(
    drawn=ranked_plans(),
    strategy=st.sampled_from(STRATEGIES),
    order=st.sampled_from(ORDERS),
    seed=st.integers(0, 99),
    shared_arena=st.booleans(),
    delayed_writes=st.booleans(),
)
def test_ranks_compute_what_one_computes(
    drawn: tuple[Plan, int],
    strategy: str,
    order: Callable[[int], Interleaving],
    seed: int,
    shared_arena: bool,
    delayed_writes: bool,
) -> None:
    plan, ranks = drawn
    module = sharded(plan, ranks)
    program, weights = program_of(module, strategy), rounded(random_weights(plan.config()))
    options = SimulatorOptions(order(seed), shared_arena=shared_arena, delayed_writes=delayed_writes)
    simulator = Simulator(program, {name: torch.from_numpy(values) for name, values in weights.items()}, options)
    whole, before = rounded(random_state(plan.build())), plan.build()
    for name in simulator.names():
        for rank in range(ranks):
            piece = shard_state(module, whole, rank, ranks)[name]
            simulator.write_rank_state(name, piece, rank)
    for step in range(STEPS):
        active = int(whole["row_count"][0])
        run_step(before, weights, whole)
        simulator.run(1)
        for rank in range(ranks):
            for name, expected in shard_state(module, whole, rank, ranks).items():
                found = simulator.read_state(name, rank)
                if name == "logits":
                    found, expected = found[:active], expected[:active]
                message = f"step {step}, rank {rank}: {name}"
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3, err_msg=message)


PLAN = Plan(layers=1, kv_heads=2, group=4, head_dim=16, inner=64, hidden=128, dtype="bfloat16", rows=2, batch=1)


@cache
def planned(ranks: int, strategy: str = "push") -> ModuleOp:
    module = sharded(PLAN, ranks)
    for one in plan_passes(target_of("sim"), strategy):
        one.apply(Context(), module)
    return module


def damaged(damage: Callable[[GraphOp], None], ranks: int, strategy: str) -> GraphOp:
    module = planned(ranks, strategy).clone()
    graph = graph_of(module)
    damage(graph)
    return graph


def first_sum(graph: GraphOp) -> GridOp:
    return next(grid for grid in graph.grids if grid.kind.data == "rank_sum")


def pusher(graph: GraphOp) -> tuple[GridOp, int]:
    """The last grid that pushes for a sum, and its operand."""
    found = [(g, n) for g in graph.grids for n, box in enumerate(g.boxes) if box.pushes and g.kind.data == "linear"]
    return [(grid, operand) for grid, operand in found if grid.operand_names.data[operand].data == "y"][-1]


def set_box(grid: GridOp, operand: int, box: BoxAttr) -> None:
    boxes = list(grid.boxes.data)
    boxes[operand] = box
    grid.boxes = ArrayAttr(boxes)


def forget_rank(graph: GraphOp) -> None:
    """All ranks write to the place of rank 0."""
    grid, operand = pusher(graph)
    box = grid.boxes.data[operand]
    offset = AffineMap(box.offset.data.num_dims, 0, (AffineConstantExpr(0), box.offset.data.results[1]))
    set_box(grid, operand, BoxAttr(box.access, AffineMapAttr(offset), box.sizes, box.along, box.to))


def push_to_one(graph: GraphOp) -> None:
    """What all ranks read is written to one."""
    grid, operand = pusher(graph)
    box = grid.boxes.data[operand]
    dims = box.offset.data.num_dims
    to = AffineMapAttr(AffineMap(dims, 0, (AffineConstantExpr(0),)))
    set_box(grid, operand, BoxAttr(box.access, box.offset, box.sizes, box.along, to))


def push_to_nobody(graph: GraphOp) -> None:
    """To a rank that there is not."""
    grid, operand = pusher(graph)
    box = grid.boxes.data[operand]
    to = AffineMapAttr(AffineMap(box.offset.data.num_dims, 0, (AffineConstantExpr(graph.rank_count),)))
    set_box(grid, operand, BoxAttr(box.access, box.offset, box.sizes, box.along, to))


def forget_event(graph: GraphOp) -> None:
    """A task of the sum does not wait for the columns it adds."""
    grid = first_sum(graph)
    uses = grid.wait_uses
    assert uses
    table = np.full((grid.num_tasks, 1), -1)
    grid.set_events([EventUse(uses[0].event, dense_i32(table, table.shape)), *uses[1:]], grid.signal_uses)


def unshare_events(graph: GraphOp) -> None:
    """Ranks hear of their own writes alone."""
    for event in graph.events:
        if event.step is None:
            event.shared = None


def unshare_step(graph: GraphOp) -> None:
    """A rank begins a step when its own tasks have ended the one before."""
    for event in graph.events:
        if event.step is not None:
            event.shared = None


def count_instead(graph: GraphOp) -> None:
    """What is pushed is not polled."""
    grid, operand = pusher(graph)
    grid.data[operand].owner.polled = None  # type: ignore[union-attr]


def share_slots(graph: GraphOp) -> None:
    """The slots of two layers lie in the same bytes, although other ranks may be writing those of the next."""
    slots = [b for b in graph.buffers if b.sym_name.data.endswith(".slots")]
    slots[1].offset = IntegerAttr(slots[0].offset.value.data, i64)  # type: ignore[union-attr]


def step_too_far(graph: GraphOp) -> None:
    """The boxes of the last rank are outside the buffer."""
    grid, operand = pusher(graph)
    box = grid.boxes.data[operand]
    row, column = box.offset.data.results
    offset = AffineMap(box.offset.data.num_dims, 1, (row * 2, column))
    set_box(grid, operand, BoxAttr.of(box.mode, offset, ints(box.sizes), to=box.to))


def sum_first(graph: GraphOp) -> None:
    """The queue of an SM holds a task of the sum before the one of the product that it waits for."""
    grid, _ = pusher(graph)
    reader = next(g for g in graph.grids if g.kind.data == "rank_sum" and set(g.data) & set(grid.data))
    for value in reader.data:
        owner = value.owner
        owner.detach()  # type: ignore[union-attr]
        graph.body.block.insert_op_before(owner, graph.grids[0])  # type: ignore[arg-type]
    reader.detach()
    graph.body.block.insert_op_before(reader, grid)


DAMAGES: dict[Callable[[GraphOp], None], str] = {
    forget_rank: "race",
    push_to_one: "coverage",
    push_to_nobody: "bounds",
    forget_event: "race",
    unshare_events: "race",
    unshare_step: "step",
    count_instead: "memory-model",
    share_slots: "memory",
    step_too_far: "bounds",
    sum_first: "deadlock",
}


@pytest.mark.parametrize(("ranks", "strategy"), [(2, "push"), (4, "push"), (4, "multicast")])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_a_damaged_plan_is_rejected(damage: Callable[[GraphOp], None], ranks: int, strategy: str) -> None:
    with pytest.raises(Rejection) as caught:
        check(plan_of(damaged(damage, ranks, strategy)))
    expected = {DAMAGES[damage], "race"} if damage is push_to_one else {DAMAGES[damage]}
    assert caught.value.rule in expected, str(caught.value)


def check_tasks(plan: proof.Plan) -> None:
    """The rules of what two tasks owe each other."""
    order = Order.of(plan)
    check_races(plan, order)
    check_early_reads(plan, order)
    check_coverage(plan)
    check_step(plan, order)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_two_ranks_stand_for_all(ranks: int, strategy: str) -> None:
    """What the checker accepts by looking at some ranks holds of all of them."""
    plan = plan_of(graph_of(planned(ranks, strategy)))
    assert (strategy == "multicast") == any(region.multicast for region in plan.regions)
    assert (strategy == "two-shot" and ranks < 8) == any((r.to >= 0).any() for r in plan.regions if r.to is not None)
    check(plan)
    everybody = spread(plan, range(ranks))
    check_tasks(everybody)
    assert everybody.num_tasks == ranks * plan.num_tasks


@pytest.mark.parametrize("damage", [forget_rank, forget_event, unshare_events, unshare_step], ids=lambda d: d.__name__)
def test_what_two_ranks_show_all_show(damage: Callable[[GraphOp], None]) -> None:
    plan = plan_of(damaged(damage, 4, "push"))
    for ranks in (range(2), range(4)):
        everybody = spread(plan, ranks)
        with pytest.raises(Rejection) as caught:
            check_tasks(everybody)
        assert caught.value.rule == DAMAGES[damage]


def simulate(graph: GraphOp, order: Interleaving) -> list[np.ndarray]:
    """The logits of each rank after some steps of a damaged plan."""
    module = graph.parent_op()
    assert isinstance(module, ModuleOp)
    LowerToCuda().apply(Context(), module)
    weights = {name: torch.from_numpy(values) for name, values in random_weights(PLAN.config()).items()}
    program = emit(module)
    simulator = Simulator(program, weights, SimulatorOptions(order, shared_arena=True, delayed_writes=True))
    for name, values in random_state(PLAN.build()).items():
        if name in ("history", "requests", "rows", "row_count", "page_table"):
            simulator.write_state(name, values)
    simulator.run(3)
    return [simulator.read_state("logits", rank) for rank in range(program.ranks)]


UNSAFE = [forget_rank, forget_event, unshare_events, unshare_step]


@pytest.mark.parametrize("damage", UNSAFE, ids=lambda d: d.__name__)
def test_the_simulator_shows_what_the_checker_rejects(damage: Callable[[GraphOp], None]) -> None:
    expected = simulate(damaged(lambda graph: None, 2, "push"), RandomOrder(0))
    orders = [RunAhead(), StarvedSm(0), StarvedSm(5), Lagging(most=True), *(Priorities(seed) for seed in range(6))]
    wrong = 0
    for order in orders:
        try:
            found = simulate(damaged(damage, 2, "push"), order)
        except VerificationError:
            wrong += 1
            continue
        wrong += any(not np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert wrong


def test_a_deadlock_across_ranks_names_rank_and_event() -> None:
    with pytest.raises(VerificationError, match=r"(?s)deadlock.*rank 1, SM .* waits for event"):
        simulate(damaged(sum_first, 2, "push"), RandomOrder(0))


def test_a_store_that_reaches_all_is_no_store_to_one() -> None:
    """Tables that a fault of expansion or of the disk has made: IR cannot say it."""
    program = program_of(sharded(PLAN, 2), "multicast")
    assert program.multicasts
    check(program_plan(program))
    tasks = program.tasks.copy()
    tasks["push_to"][tasks["push_to"] == TO_ALL] = 1
    with pytest.raises(Rejection, match="by multicast, which reaches all") as caught:
        check(program_plan(replace(program, tasks=tasks)))
    assert caught.value.rule == "coverage"


def test_multicast_changes_no_order_and_no_box() -> None:
    """The proof of one-shot holds of it: all it says of memory is the same."""
    one, other = (plan_of(graph_of(planned(4, strategy))) for strategy in ("push", "multicast"))
    for mine, theirs in zip(one.regions, other.regions, strict=True):
        assert (mine.grid, mine.operand, mine.buffer, mine.rank_step) == (
            theirs.grid,
            theirs.operand,
            theirs.buffer,
            theirs.rank_step,
        )
        for side in ("low", "high"):
            np.testing.assert_array_equal(getattr(mine.bounds, side), getattr(theirs.bounds, side))
        assert (mine.to is None) == (theirs.to is None)
        if mine.to is not None:
            np.testing.assert_array_equal(mine.to, theirs.to)
    np.testing.assert_array_equal(one.waits, other.waits)
    np.testing.assert_array_equal(one.signals, other.signals)


def test_a_task_pushes_in_one_way() -> None:
    """The head's tasks push their best value and its column; one of the two by multicast is refused."""
    module = planned(2, "multicast").clone()
    grid = next(g for g in graph_of(module).grids if sum(box.pushes for box in g.boxes) > 1)
    operand = next(n for n, box in enumerate(grid.boxes) if box.pushes)
    box = grid.boxes.data[operand]
    set_box(grid, operand, BoxAttr(box.access, box.offset, box.sizes, box.along, ALL_RANKS))
    with pytest.raises(VerifyException, match="pushes beside it are multicast, this one is not"):
        module.verify()


SCOPES = {
    "the end of a step": ("mpk/runtime/kernel.cuh", "add_release_sys(", "add_release_gpu("),
    "its wait": ("mpk/runtime/context.cuh", "load_acquire_sys(counter)", "load_acquire_gpu(counter)"),
    "a push": ("mpk/runtime/context.cuh", "store_relaxed_sys(", "store_relaxed_gpu("),
    "a multicast": ("mpk/runtime/context.cuh", "multicast_relaxed_sys(", "store_relaxed_gpu("),
    "the instruction of a multicast": ("mpk/atoms.cuh", "multimem.st.relaxed.sys", "multimem.st.relaxed.gpu"),
    "the fence between its addresses": ("mpk/runtime/kernel.cuh", "fence_proxy_alias();", ";"),
    "a poll": ("mpk/runtime/polling.cuh", "load_relaxed_sys(", "load_relaxed_gpu("),
    "the instruction of a push": ("mpk/atoms.cuh", "st.relaxed.sys", "st.relaxed.gpu"),
}


@pytest.mark.parametrize("what", SCOPES)
def test_ranks_need_the_scope_of_the_system(what: str) -> None:
    header, before, after = SCOPES[what]
    program = program_of(sharded(PLAN, 2), "push")
    check_ordering(program.headers)
    assert before in program.headers[header]
    headers = {**program.headers, header: program.headers[header].replace(before, after)}
    with pytest.raises(Rejection, match="memory-model"):
        check_ordering(headers)


def test_the_pass_proves_all_ranks() -> None:
    module = planned(4).clone()
    Verify().apply(Context(), module)
    unshare_step(graph_of(module))
    with pytest.raises(Rejection, match="step"):
        Verify().apply(Context(), module)
