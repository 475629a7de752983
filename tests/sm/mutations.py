"""Ways to damage a plan. Each takes the graph and a generator and says what it did; None: it found no place."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.dialects.builtin import AffineMapAttr, ArrayAttr, DictionaryAttr, IntAttr, IntegerAttr, i64
from xdsl.ir import SSAValue
from xdsl.ir.affine import AffineMap

from mpk_ir.core.memory import PANEL_LAYOUTS
from mpk_ir.dialects.sm import BoxAttr, BufferOp, GraphOp, GridOp, LayoutAttr, SharedMemoryAttr, StreamAttr
from mpk_ir.dialects.sm.attributes import ints
from mpk_ir.dialects.sm.expansion import event_elements
from mpk_ir.dialects.sm.ops import EventOp, EventUse, dense_i32

Mutation = Callable[[GraphOp, np.random.Generator], str | None]


def _pick(generator: np.random.Generator, items: list[GridOp]) -> GridOp | None:
    return items[int(generator.integers(len(items)))] if items else None


def _without_one(grid: GridOp, use: EventUse, generator: np.random.Generator) -> tuple[EventUse, int]:
    """``use`` without one task's element, and that element."""
    table = event_elements(grid, use).copy()
    row, column = generator.permutation(np.argwhere(table >= 0))[0]
    element = int(table[row, column])
    table[row, column] = -1
    return EventUse(use.event, dense_i32(table, table.shape)), element


def set_count(event: SSAValue, element: int, change: int) -> None:
    """Add ``change`` to the arrivals that the event is said to receive."""
    assert isinstance(event.owner, EventOp)
    counts = event.owner.arrivals.copy()
    counts[element] += change
    event.owner.counts = dense_i32(counts, counts.shape)


def drop_wait(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """One task no longer waits for one event."""
    grid = _pick(generator, [g for g in graph.grids if g.wait_uses])
    if grid is None:
        return None
    uses = grid.wait_uses
    number = int(generator.integers(len(uses)))
    uses[number], element = _without_one(grid, uses[number], generator)
    grid.set_events(uses, grid.signal_uses)
    return f"a task of @{grid.sym_name.data} without its wait for element {element}"


def _drop_signal(graph: GraphOp, generator: np.random.Generator) -> tuple[SSAValue, int] | None:
    grid = _pick(generator, [g for g in graph.grids if g.signal_uses])
    if grid is None:
        return None
    uses = grid.signal_uses
    number = int(generator.integers(len(uses)))
    uses[number], element = _without_one(grid, uses[number], generator)
    grid.set_events(grid.wait_uses, uses)
    return uses[number].event, element


def drop_signal(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """One task no longer signals one event, which still expects it."""
    dropped = _drop_signal(graph, generator)
    return dropped and f"a signal of element {dropped[1]} less"


def forget_producer(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """One task no longer signals one event, whose count is lowered to match."""
    dropped = _drop_signal(graph, generator)
    if dropped is None or dropped[0].owner.arrivals[dropped[1]] < 2:  # type: ignore[union-attr]
        return None
    set_count(*dropped, -1)
    return f"a signal of element {dropped[1]} and its arrival less"


def change_count(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """An event is said to receive one arrival more or less than it does."""
    event = graph.events[int(generator.integers(len(graph.events)))]
    element = int(generator.integers(event.size))
    change = -1 if event.arrivals[element] > 1 and generator.random() < 0.5 else 1
    set_count(event.event, element, change)
    return f"{change:+} arrival of @{event.sym_name.data}[{element}]"


def set_box(grid: GridOp, operand: int, shift: tuple[int, ...], widen: tuple[int, ...]) -> None:
    """Move a box by ``shift`` and grow it by ``widen`` elements per dimension."""
    box = grid.boxes.data[operand]
    offset = box.offset.data
    moved = AffineMap(offset.num_dims, 0, tuple(e + s for e, s in zip(offset.results, shift, strict=True)))
    sizes = [max(1, size + extra) for size, extra in zip(ints(box.sizes), widen, strict=True)]
    boxes = list(grid.boxes.data)
    boxes[operand] = BoxAttr.of(box.mode, moved, sizes, ints(box.along))
    grid.boxes = ArrayAttr(boxes)


def move_box(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """A grid's tasks touch other elements of an operand than before."""
    grid = _pick(generator, [g for g in graph.grids if g.data])
    if grid is None:
        return None
    operand = int(generator.integers(len(grid.data)))
    rank = len(ints(grid.boxes.data[operand].sizes))
    steps = (-16, -1, 0, 0, 0, 1, 16)
    shift, widen = (tuple(generator.choice(steps, rank).tolist()) for _ in range(2))
    set_box(grid, operand, shift, widen)
    return f"@{grid.sym_name.data}, operand {operand}: moved by {shift}, grown by {widen}"


def hoist_buffers(graph: GraphOp) -> None:
    """Define all buffers first, so that grids can change places."""
    for buffer in reversed(graph.buffers):
        buffer.detach()
        first = graph.body.block.first_op
        assert first is not None
        graph.body.block.insert_op_before(buffer, first)


def swap(graph: GraphOp, first: GridOp, second: GridOp) -> None:
    """Two grids change places in program order, and so in every SM's queue."""
    hoist_buffers(graph)
    block, mark = graph.body.block, second.next_op
    for grid, anchor in ((second, first), (first, mark)):
        grid.detach()
        if anchor is None:
            block.add_op(grid)
        else:
            block.insert_op_before(grid, anchor)


def swap_grids(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """Two random grids change places."""
    if len(graph.grids) < 2:
        return None
    one, two = sorted(generator.permutation(len(graph.grids))[:2].tolist())
    first, second = graph.grids[one], graph.grids[two]
    swap(graph, first, second)
    return f"@{first.sym_name.data} and @{second.sym_name.data} swapped"


def move_task(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """A grid's tasks run on SMs drawn at random."""
    grid = _pick(generator, graph.grids)
    assert grid is not None
    sms = generator.integers(0, 4, grid.num_tasks)
    grid.placement = dense_i32(sms, (grid.num_tasks,))
    return f"@{grid.sym_name.data} on SMs {sms.tolist()}"


def place(buffer: BufferOp, offset: int) -> None:
    """Give a buffer another place in the arena."""
    buffer.offset = IntegerAttr(offset, i64)


def alias_buffers(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """A scratch buffer moves to the place of another."""
    placed = [b for b in graph.buffers if b.offset is not None]
    if len(placed) < 2:
        return None
    one, two = generator.permutation(len(placed))[:2].tolist()
    target = placed[two].offset
    assert target is not None
    place(placed[one], target.value.data + int(generator.choice((0, 16))))
    return f"@{placed[one].sym_name.data} at the place of @{placed[two].sym_name.data}"


def wait_for_another(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """All tasks of a grid wait for one element of an event drawn at random besides their own."""
    grid = _pick(generator, [g for g in graph.grids if len(g.wait_uses) < 4])
    if grid is None:
        return None
    event = graph.events[int(generator.integers(len(graph.events)))]
    element = int(generator.integers(event.size + 1))  # at times one too far
    constant = AffineMap(len(grid.shape), 0, (AffineMap.constant_map(element).results[0],))
    grid.set_events([*grid.wait_uses, EventUse(event.event, AffineMapAttr(constant))], grid.signal_uses)
    return f"@{grid.sym_name.data} waits for @{event.sym_name.data}[{element}] too"


def split_otherwise(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """Blocks split their shared memory in another way than planned."""
    split = graph.shared_memory
    if split is None:
        return None
    stages = int(generator.choice((1, 2, 3, split.stages.data, split.stages.data + 1)))
    scratch = max(0, split.scratch_bytes.data + int(generator.choice((-256, 0, 128))))
    graph.shared_memory = SharedMemoryAttr.of(stages, split.stage_bytes.data, scratch)
    return f"{stages} stages, {scratch} bytes of scratch"


def deal_to_others(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """Work that is dealt at run time is dealt to a task more or less than there are."""
    grid = _pick(generator, [g for g in graph.grids if g.dynamic is not None])
    if grid is None:
        return None
    takers = grid.task_kind.takers(grid.task_params) + int(generator.choice((-1, 1)))
    grid.params = DictionaryAttr(grid.params.data | {"takers": IntegerAttr(takers, i64)})
    return f"@{grid.sym_name.data} deals to {takers}"


def promise_more_ahead(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """More stages are said to be filled while a task waits."""
    grid = _pick(generator, [g for g in graph.grids if g.stream is not None])
    if grid is None or grid.stream is None:
        return None
    ahead = grid.stream.ahead.data + int(generator.integers(1, 20))
    grid.stream = StreamAttr(grid.stream.keeps, IntAttr(ahead))
    return f"@{grid.sym_name.data} has {ahead} stages ahead"


def push_box_out(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """The boxes of an operand begin some elements further on, so that one reaches beyond the buffer, and is cut."""
    grid = _pick(generator, [g for g in graph.grids if g.data])
    if grid is None:
        return None
    operand = int(generator.integers(len(grid.data)))
    sizes = ints(grid.boxes.data[operand].sizes)
    dim = int(generator.integers(len(sizes)))
    shift = [0] * len(sizes)
    shift[dim] = int(generator.integers(1, sizes[dim] + 1))
    set_box(grid, operand, tuple(shift), (0,) * len(sizes))
    return f"@{grid.sym_name.data}, operand {operand}: moved by {shift}"


def lay_otherwise(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """A scratch buffer lies in other panels than bodies know, or in some that cannot hold it."""
    scratch = [buffer for buffer in graph.buffers if buffer.offset is not None]
    if not scratch:
        return None
    buffer = scratch[int(generator.integers(len(scratch)))]
    layout = PANEL_LAYOUTS[
        int(generator.choice([rows for rows in PANEL_LAYOUTS if rows != buffer.layout.data.panel_rows]))
    ]
    buffer.layout = LayoutAttr(layout)
    return f"@{buffer.sym_name.data} in {layout}"


def count_otherwise(graph: GraphOp, generator: np.random.Generator) -> str | None:
    """A grid's body counts other panels than its buffer lies in."""
    able = [(grid, one.panel) for grid in graph.grids for one in grid.task_kind.operands if one.panel]
    if not able:
        return None
    grid, name = able[int(generator.integers(len(able)))]
    rows = int(generator.choice([rows for rows in PANEL_LAYOUTS if rows != getattr(grid.task_params, name)]))
    grid.params = DictionaryAttr(grid.params.data | {name: IntegerAttr(rows, i64)})
    return f"@{grid.sym_name.data} with {name} {rows}"


MUTATIONS: tuple[Mutation, ...] = (
    drop_wait,
    drop_signal,
    forget_producer,
    change_count,
    move_box,
    swap_grids,
    move_task,
    alias_buffers,
    wait_for_another,
    split_otherwise,
    deal_to_others,
    promise_more_ahead,
    push_box_out,
    lay_otherwise,
    count_otherwise,
)
