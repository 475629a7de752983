"""Two tasks that touch the same element, one of them writing, must be ordered as the program is."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations_with_replacement

import numpy as np

from ..core.memory import Space
from .order import Order
from .plan import BoolArray, Bounds, IntArray, Plan, Region
from .rejection import Place, Rejection, TaskRef

FILLED_BY_THE_STEP = (Space.SCRATCH, Space.OUTPUT)


def boxes_overlap(first: Bounds, second: Bounds) -> BoolArray:
    """[n, m]: whether box i of ``first`` and box j of ``second`` have an element in common."""
    shared = np.ones((len(first.low), len(second.low)), dtype=np.bool_)
    for dim in range(first.low.shape[1]):
        shared &= first.low[:, None, dim] < second.high[None, :, dim]
        shared &= second.low[None, :, dim] < first.high[:, None, dim]
    return shared


class Overlaps:
    """Pairs of tasks whose boxes overlap, computed once for equal boxes."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[Bounds, Bounds], tuple[IntArray, IntArray]] = {}

    def of(self, first: Bounds, second: Bounds) -> tuple[IntArray, IntArray]:
        key = (first, second)
        if key not in self._pairs:
            rows, columns = np.nonzero(boxes_overlap(first, second))
            self._pairs[key] = rows, columns
        return self._pairs[key]


def uses_by_buffer(plan: Plan) -> dict[int, list[Region]]:
    """Per buffer that a task writes: its regions, in program order."""
    uses: dict[int, list[Region]] = defaultdict(list)
    for region in plan.regions:
        uses[region.buffer].append(region)
    return {buffer: regions for buffer, regions in uses.items() if any(region.writes for region in regions)}


def check_races(plan: Plan, order: Order) -> None:
    """Raises Rejection, rule race, for the first consumer with its nearest producer: the rest follows from it."""
    overlaps = Overlaps()
    pairs = [
        (earlier, later)
        for regions in uses_by_buffer(plan).values()
        for place, later in enumerate(regions)
        for earlier in regions[:place]
        if earlier.grid != later.grid and (earlier.writes or later.writes)
    ]
    for earlier, later in sorted(pairs, key=lambda pair: (pair[1].grid, -pair[0].grid)):
        _check_pair(plan, _order_for(plan, order, earlier, later), overlaps, earlier, later)
    _check_inside(plan)


def _order_for(plan: Plan, order: Order, earlier: Region, later: Region) -> Order:
    """Polled events order reads of polled buffers after their writes, and, as far as polled data tell that reading is
    done, writes after reads; else only events with counters do."""
    if plan.buffers[later.buffer].polled and not later.writes:
        return order
    return order.strong if earlier.writes else order.told


def _check_pair(plan: Plan, order: Order, overlaps: Overlaps, earlier: Region, later: Region) -> None:
    begin, begin_later = plan.grids[earlier.grid].first, plan.grids[later.grid].first
    rows, columns = overlaps.of(earlier.bounds, later.bounds)
    a, b = rows + begin, columns + begin_later
    ordered = order.before(a, b)
    if not ordered.all():
        worst = int(np.flatnonzero(~ordered)[0])
        one, two = int(a[worst]), int(b[worst])
        why = "runs before" if bool(order.before(np.array([two]), np.array([one]))[0]) else ""
        raise _race(plan, earlier, later, one, two, why)


def check_early_reads(plan: Plan, order: Order) -> None:
    """What a body reads before it waits for its events was written before its queue came to it. Raises Rejection, rule
    memory-model."""
    overlaps = Overlaps()
    for regions in uses_by_buffer(plan).values():
        for place, later in enumerate(regions):
            for earlier in [r for r in regions[:place] if later.early and r.writes and r.grid != later.grid]:
                rows, columns = overlaps.of(earlier.bounds, later.bounds)
                a, b = rows + plan.grids[earlier.grid].first, columns + plan.grids[later.grid].first
                late = np.flatnonzero(~order.strong.before_wait(a, b))
                if late.size:
                    raise _early_read(plan, later, plan.task(int(a[late[0]])), plan.task(int(b[late[0]])))


def _early_read(plan: Plan, region: Region, writer: TaskRef, reader: TaskRef) -> Rejection:
    return Rejection(
        "memory-model",
        f"{reader} reads operand {region.operand} before it waits for its events, and {writer} of the same step writes "
        "it before",
        tasks=(writer, reader),
        places=(Place(plan.buffers[region.buffer].name),),
    )


def _check_inside(plan: Plan) -> None:
    """Nothing orders tasks of one grid."""
    seen: set[tuple[object, ...]] = set()
    by_grid: dict[int, list[Region]] = defaultdict(list)
    for regions in uses_by_buffer(plan).values():
        for region in regions:
            by_grid[region.grid].append(region)
    for number in sorted(by_grid):
        index = plan.grids[number].index
        for one, other in combinations_with_replacement(by_grid[number], 2):
            if one.buffer != other.buffer or not (one.writes or other.writes):
                continue
            key = (one.bounds, other.bounds, one.along, other.along, index.shape, index[-1].tobytes())
            if key in seen:  # layers repeat
                continue
            seen.add(key)
            pairs = conflicts_inside(index, one, other)
            if pairs.any():
                a, b = (np.argwhere(pairs)[0] + plan.grids[number].first).tolist()
                raise _race(plan, one, other, a, b, "")


def conflicts_inside(index: IntArray, one: Region, other: Region) -> BoolArray:
    """[tasks, tasks]: different tasks of a grid whose boxes overlap and that ``along`` of both does not keep apart."""
    shared = boxes_overlap(one.bounds, other.bounds)
    for first, second in zip(one.along, other.along, strict=True):
        if first == second and first >= 0:
            shared &= index[:, None, first] == index[None, :, first]
    np.fill_diagonal(shared, val=False)
    return shared


def _race(plan: Plan, one: Region, other: Region, a: int, b: int, why: str) -> Rejection:
    tasks = plan.task(a), plan.task(b)
    buffer = plan.buffers[one.buffer].name
    boxes = tuple(r.bounds.text(task - plan.grids[r.grid].first) for r, task in ((one, a), (other, b)))
    sides = [
        f"{'writes' if region.writes else 'reads'} {box} by operand {region.operand}"
        for region, box in zip((one, other), boxes, strict=True)
    ]
    wrong = f"{tasks[1]} {why} {tasks[0]}" if why else f"nothing orders {tasks[0]} and {tasks[1]}"
    return Rejection(
        "race",
        f"{wrong}: of buffer @{buffer} the {'second' if why else 'first'} {sides[0]}, "
        f"the {'first' if why else 'second'} {sides[1]}",
        tasks=tasks,
        places=tuple(Place(buffer, box) for box in boxes),
    )


def check_coverage(plan: Plan) -> None:
    """What a task reads of a scratch or output buffer, grids before it write. Raises Rejection, rule coverage."""
    covered: set[tuple[object, ...]] = set()
    uses = uses_by_buffer(plan)
    for region in plan.regions:  # also reads of what nothing writes
        uses.setdefault(region.buffer, [region])
    for number in sorted(uses):
        buffer = plan.buffers[number]
        if buffer.space not in FILLED_BY_THE_STEP:
            continue
        # a grid's reads come before its writes: its tasks run in any order
        steps = [(r.grid, False, r) for r in uses[number] if r.reads] + [
            (r.grid, True, r) for r in uses[number] if r.writes
        ]
        steps.sort(key=lambda step: step[:2])
        key = (buffer.shape, *((writes, region.bounds) for _, writes, region in steps))
        if key not in covered:  # layers repeat
            _check_covered(plan, number, steps)
            covered.add(key)


def _check_covered(plan: Plan, number: int, steps: list[tuple[int, bool, Region]]) -> None:
    written = np.zeros(plan.buffers[number].shape, dtype=np.bool_)
    for grid, writes, region in steps:
        boxes, first = region.bounds.distinct
        if writes:
            for box in boxes:
                written[box] = True
        elif missing := [task for box, task in zip(boxes, first, strict=True) if not written[box].all()]:
            task = plan.task(plan.grids[grid].first + min(missing))
            name = plan.buffers[number].name
            raise Rejection(
                "coverage",
                f"{task} reads by operand {region.operand} elements of buffer @{name} that no grid before it writes: "
                f"its box is {region.bounds.text(min(missing))}",
                tasks=(task,),
                places=(Place(name, region.bounds.text(min(missing))),),
            )
