"""The rules of a safe plan, one function each, and their order."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from .ahead import check_ahead
from .dealing import check_dealing
from .layouts import check_layouts
from .order import Order
from .plan import BoolArray, IntArray, Plan, PlanBuffer, Region
from .promises import check_polled, check_streams
from .races import check_coverage, check_early_reads, check_races
from .ranks import check_pushes, representatives, spread
from .rejection import Place, Rejection
from .ring import check_ring


def check(plan: Plan) -> Order:
    """Prove ``plan`` safe; its order. Raises Rejection for the first rule that it breaks.

    1. Bounds: every box lies in its buffer; of blocks from its begin on, the last is cut at its end.
    2. Layout: bodies take a buffer in the order of elements in which it lies; in panels of rows each box begins where
       they can be counted from: at whole 8 columns, and with a panel or inside one that it does not leave.
    3. Counting: an event receives in a step exactly the arrivals it is said to, and a wait is for all of them.
    4. Polled: who touches a polled buffer can poll; one grid writes it, no two of its tasks the same word.
    5. Dealing: of a grid that deals its work at run time, nothing depends on which task does what (`proof.dealing`).
    6. Deadlock: events together with the order of each queue have no cycle.
    7. Race: of two tasks that touch the same element of a buffer, one a write, the first of the program happens before
       the other; two tasks of one grid never do so. Polled events count only for reads of polled buffers, and for
       writes after reads as far as polled data tell that the reading is done (`proof.telling`).
    8. Memory model: what a loader reads ahead of every wait no task of the step writes before it; what a body reads
       before its wait was written before its queue came to it.
    9. Coverage: what a task reads of a scratch or output buffer, grids before it write.
    10. Memory: scratch buffers lie inside the arena, and of two that share bytes all tasks of one run before all tasks
       of the other, without polled events; both copies of a polled buffer share bytes with nothing.
    11. Ring: loaders, and bodies that give stages of the ring back, never wait for each other in a circle; shared
        memory holds the ring and what bodies need besides (`proof.ring`). No more is said to be loaded ahead of a wait
        than the ring and the end of the step allow (`proof.ahead`).
    12. Step: all tasks are over when the step event has its arrivals, so no task, buffer or counter of one step meets
        those of the next.

    Of a plan for several ranks, these hold of all their tasks together; what a task writes into the memory of another
    rank is polled, for which the rank waits by no event (`proof.ranks`).
    """
    check_bounds(plan)
    check_layouts(plan)
    check_counts(plan)
    check_polled(plan)
    check_dealing(plan)
    order = Order.of(plan)
    tasks, between = plan, order
    if plan.ranks > 1:
        check_pushes(plan)
        tasks = spread(plan, representatives(plan))
        between = Order.of(tasks)
    check_races(tasks, between)
    check_streams(plan)
    check_early_reads(tasks, between)
    check_coverage(tasks)
    check_memory(plan, order.strong)
    if plan.ring is not None:
        check_ring(plan.ring, tuple(plan.task(grid.first) for grid in plan.grids))
        check_ahead(plan, plan.ring)
    check_step(tasks, between)
    return order


def check_bounds(plan: Plan) -> None:
    """Every box lies inside its buffer and holds something. Raises Rejection, rule bounds.

    A box that is said as an offset and a size is cut at the buffer's end where it is the last of blocks that lie one
    behind another from the buffer's begin on: the task's body knows such a block by its index. Any other that reaches
    beyond the end is a fault.
    """
    seen: set[tuple[object, ...]] = set()
    for region in plan.regions:
        shape = plan.buffers[region.buffer].shape
        boxes = region.whole or region.bounds
        if (boxes, shape, region.rank_step, region.whole is None) in seen:  # layers repeat
            continue
        seen.add((boxes, shape, region.rank_step, region.whole is None))
        last = (plan.ranks - 1) * np.array(region.rank_step or (0,) * len(shape))
        outside = _outside(region, np.zeros_like(last), shape) | _outside(region, last, shape)
        if outside.any():
            number = int(outside.argmax())
            task = plan.task(plan.grids[region.grid].first + number)
            name = plan.buffers[region.buffer].name
            raise Rejection(
                "bounds",
                f"{task} touches by operand {region.operand} the box {boxes.text(number)}, which is not inside "
                f"buffer @{name} of shape {list(shape)}",
                tasks=(task,),
                places=(Place(name, boxes.text(number)),),
                advice="only the last of even blocks from the buffer's begin may reach beyond its end"
                if region.whole
                else None,
            )


def _outside(region: Region, shift: IntArray, shape: tuple[int, ...]) -> BoolArray:
    """[tasks]: whether a box, moved by ``shift``, leaves a buffer of ``shape``."""
    boxes = region.whole or region.bounds
    low, high, size = boxes.low + shift, boxes.high + shift, np.array(shape)
    beyond = high > size
    if region.whole is not None:
        beyond &= low % np.maximum(high - low, 1) != 0
    outside: BoolArray = (low < 0) | (high <= low) | (low >= size) | beyond
    return np.asarray(outside.any(axis=1))


def check_counts(plan: Plan) -> None:
    """Arrivals are what events say, and waits are for all of them. Raises Rejection, rule counting."""
    for task, name in plan.unknown_events:
        raise Rejection(
            "counting",
            f"{plan.task(task)} waits on or signals event {name}, which does not exist",
            tasks=(plan.task(task),),
            events=(name,),
        )
    found = np.bincount(plan.signals[:, 1], minlength=len(plan.event_count))
    wrong = np.flatnonzero(found != plan.event_count)
    if wrong.size:
        event = int(wrong[0])
        signallers = plan.signals[plan.signals[:, 1] == event, 0].tolist()
        name = plan.event_names[event]
        raise Rejection(
            "counting",
            f"event {name} is said to receive {int(plan.event_count[event])} arrivals a step, its signals give "
            f"{int(found[event])}",
            tasks=tuple(plan.task(task) for task in signallers[:2]),
            events=(name,),
        )
    early = np.flatnonzero(plan.waits[:, 2] != plan.event_count[plan.waits[:, 1]])
    if early.size:
        number, event, count = plan.waits[early[0]].tolist()
        name = plan.event_names[event]
        raise Rejection(
            "counting",
            f"{plan.task(number)} waits for {count} arrivals a step of event {name}, which receives "
            f"{int(plan.event_count[event])}",
            tasks=(plan.task(number),),
            events=(name,),
        )


def check_memory(plan: Plan, order: Order) -> None:
    """Scratch buffers lie in the arena and share bytes one after another only. Raises Rejection, rule memory."""
    placed, begin = _placed(plan)
    end = begin + np.array([buffer.size_bytes for _, buffer in placed], np.int64)
    if outside := np.flatnonzero((begin < 0) | (end > plan.arena_bytes)).tolist():
        buffer = placed[outside[0]][1]
        raise Rejection(
            "memory",
            f"buffer @{buffer.name} is at bytes {begin[outside[0]]} to {end[outside[0]]} of an arena of "
            f"{plan.arena_bytes}",
            places=(Place(buffer.name),),
        )
    if not placed:
        return
    users = _users(plan)
    spans = [_span(plan, order, users[number]) for number, _ in placed]
    over, ready = (np.stack(part) for part in zip(*spans, strict=True))
    a, b = np.nonzero(np.triu((begin[:, None] < end) & (begin < end[:, None]), 1))
    polled = np.array([buffer.polled for _, buffer in placed])  # in use from step to step
    apart = (ready[b] >= over[a]).all(axis=1) | (ready[a] >= over[b]).all(axis=1)
    apart &= ~(polled[a] | polled[b])
    if not apart.all():
        one, two = (int(side[np.flatnonzero(~apart)[0]]) for side in (a, b))
        names = placed[one][1].name, placed[two][1].name
        tasks = tuple(plan.task(int(users[placed[number][0]][-1])) for number in (one, two))
        raise Rejection(
            "memory",
            f"buffers @{names[0]} and @{names[1]} share bytes {max(begin[one], begin[two])} to "
            f"{min(end[one], end[two])} while both are in use, by {tasks[0]} and {tasks[1]}",
            tasks=tasks,
            places=tuple(map(Place, names)),
        )


def _placed(plan: Plan) -> tuple[list[tuple[int, PlanBuffer]], IntArray]:
    """(number, buffer) of all in the arena, polled ones twice; [placed] where each begins."""
    placed, begin = list[tuple[int, PlanBuffer]](), list[int]()
    for number, buffer in enumerate(plan.buffers):
        if buffer.offset_bytes is not None:
            for copy in range(2 if buffer.polled else 1):
                placed.append((number, buffer))
                begin.append(buffer.offset_bytes + copy * plan.polled_bytes)
    return placed, np.array(begin, np.int64)


def _users(plan: Plan) -> dict[int, IntArray]:
    grids: dict[int, set[int]] = defaultdict(set)
    for region in plan.regions:
        grids[region.buffer].add(region.grid)
    users: dict[int, IntArray] = defaultdict(lambda: np.zeros(0, np.int64))
    for buffer, numbers in grids.items():
        users[buffer] = np.concatenate([np.arange(plan.grids[n].first, plan.grids[n].end) for n in sorted(numbers)])
    return users


def _span(plan: Plan, order: Order, tasks: IntArray) -> tuple[IntArray, IntArray]:
    """When ``tasks`` use a buffer: how far each queue must be for the last of them to be over, and how far each is for
    sure when the first of them starts."""
    over = np.zeros(plan.num_queues, np.int64)
    np.maximum.at(over, plan.queue[tasks], plan.position[tasks] + 1)
    return over, order.clock[tasks].min(axis=0, initial=plan.num_tasks).astype(np.int64)


def check_step(plan: Plan, order: Order) -> None:
    """Nothing outlives its step. Raises Rejection, rule step."""
    expected = len(np.unique(plan.queue_rank))
    if len(plan.step_events) != expected:
        raise Rejection(
            "step",
            f"expected one step event of one element, found {len(plan.step_events) // expected}",
            advice="sm-synthesize-events makes it",
        )
    for step in plan.step_events:
        late = np.flatnonzero(plan.position >= order.event_clock[step][plan.queue])
        if late.size:
            task, name = plan.task(int(late[0])), plan.event_names[step]
            raise Rejection(
                "step", f"{task} may still run when event {name} ends the step", tasks=(task,), events=(name,)
            )
