"""Where buffers live and how their elements are ordered."""

from __future__ import annotations

from enum import StrEnum


class Space(StrEnum):
    """Where a buffer lives and who fills it."""

    WEIGHT = "weight"
    """Bound once from parameters, packed, never written by a task."""
    STATE = "state"
    """Kept between steps and launches: caches, request state. The host may read and write it between launches."""
    INPUT = "input"
    OUTPUT = "output"
    SCRATCH = "scratch"
    """Lives inside one step, at ``offset_bytes`` of the arena."""


class Layout(StrEnum):
    """Order of a buffer's elements in device memory."""

    ROW_MAJOR = "row_major"
    MMA_ROWS_16 = "mma_rows_16"
    """A weight [N, K] in tiles of 16 rows, padded to 16 rows and 32 columns. A tile is contiguous, and in it each block
    of 32 columns, which two m16n8k16 products take: in the order [product][row % 8][quad][word][row / 8][2 columns],
    column 8 * quad + 4 * product + 2 * word, so that lane 4 * (row % 8) + quad of a warp reads its whole operand of one
    product by one 16-byte load (see codegen/cuda/mpk/tasks/linear.cuh)."""
    K_BLOCKS_64 = "k_blocks_64"
    """Activations [R, K] as wgmma takes them from shared memory, so that one bulk copy brings a part: in blocks of 64
    columns, in a block row by row, a row's eight chunks of 16 bytes at chunk ^ (row % 8) (the 128-byte swizzle).
    Chunk 4 * h + 2 * p + w holds, for each of the four octets of half h of the columns, columns 4 * p + 2 * w and the
    next: the order that `MMA_ROWS_16` gives a weight's columns. Padded to 128 rows and 64 columns. A box's address is
    that of its first row in the block that holds its first column."""
    ROW_PANELS_2 = "row_panels_2"
    """Activations [R, K] in panels of 2 rows, which one load of a warp reads as whole lines: a panel is contiguous, and
    in it, for each 8 columns, the 16 bytes of each of its rows lie side by side. R is whole panels, K whole 8s."""
    ROW_PANELS_4 = "row_panels_4"
    ROW_PANELS_8 = "row_panels_8"

    @property
    def panel_rows(self) -> int:
        """Rows of a panel; 1: row by row."""
        return _PANEL_ROWS.get(self, 1)

    def unfit_for(self, space: Space, shape: tuple[int, ...], element_bytes: int, size_bytes: int) -> str:
        """Why a buffer of ``shape``, of ``size_bytes`` in memory, cannot lie in panels; empty: it can, or does not."""
        if self.panel_rows == 1:
            return ""
        if space is not Space.SCRATCH:
            return f"only scratch, which the host never sees, lies in panels of rows, found space {space}"
        if len(shape) != 2 or element_bytes != PANEL_ELEMENT_BYTES:
            return f"panels are of rows of {PANEL_ELEMENT_BYTES}-byte elements, found {list(shape)} of {element_bytes}"
        if shape[0] % self.panel_rows or shape[1] % PANEL_COLUMNS:
            return f"expected whole panels of {self.panel_rows} rows and {PANEL_COLUMNS} columns, found {list(shape)}"
        if size_bytes != shape[0] * shape[1] * element_bytes:
            return f"panels have no padding, found {size_bytes} bytes for {list(shape)}"
        return ""


PANEL_LAYOUTS = {1: Layout.ROW_MAJOR, 2: Layout.ROW_PANELS_2, 4: Layout.ROW_PANELS_4, 8: Layout.ROW_PANELS_8}
"""By the rows of a panel."""
_PANEL_ROWS = {layout: rows for rows, layout in PANEL_LAYOUTS.items()}
PANEL_ELEMENT_BYTES = 2
PANEL_COLUMNS = 8
"""Of a row of a panel that lie together: 16 bytes."""
BLOCK_ROWS, BLOCK_COLUMNS = 128, 64
"""What `Layout.K_BLOCKS_64` is padded to: the rows of a stage of the ring, the columns of a block."""


def step_counter_offset(arena_bytes: int) -> int:
    """Where, from the beginning of the arena, ranks have the counter that ends a step: behind it, on a line of its own.

    What other ranks write is then one piece of memory.
    """
    return -(-arena_bytes // 128) * 128


SCRATCH_HALVES = 2
"""Of a block's scratch in shared memory: bodies use them in turn, so that no barrier stands between two tasks."""
STAGE_BYTES = 16 * 1024
"""Of the ring in shared memory: what the loader copies and gets back as a whole."""
MAX_STAGES = 16
RUNTIME_SHARED_BYTES = 3584
"""Of shared memory, for ring barriers and task slots; the kernel checks that it suffices."""


def shared_bytes(stages: int, stage_bytes: int, scratch_bytes: int) -> int:
    """Shared memory of a block: a ring, the halves of scratch, and what the runtime keeps."""
    return stages * stage_bytes + SCRATCH_HALVES * scratch_bytes + RUNTIME_SHARED_BYTES
