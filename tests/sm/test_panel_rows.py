"""Rows in panels: each element has one place, the device finds it where the tables say, and plans mean the same."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from importlib import resources
from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mpk_ir.codegen.program import Buffer
from mpk_ir.core.dtype import BF16
from mpk_ir.core.errors import PlanError
from mpk_ir.core.memory import PANEL_COLUMNS, PANEL_LAYOUTS, Space
from mpk_ir.core.target import target_of
from mpk_ir.interpreter import evaluate
from mpk_ir.passes.sm.panel_rows import PanelRows, panel_rows
from mpk_ir.pipeline import plan_passes
from mpk_ir.proof.layouts import tears_panels
from mpk_ir.runtime.binding import box_offsets
from mpk_ir.runtime.interleaving import RunAhead
from tests.sm.test_properties import inputs, planned, program_of, run

from .plans import GraphPlan, Layer, build, graph_plans, random_params

COMPILER = shutil.which("g++")
HEADER = "cuda/mpk/panels.cuh"
ON_THE_HOST = """
#include <cstddef>
#define __device__
#define __forceinline__ inline
#include "panels.cuh"
extern "C" size_t offset(int panel, int row, int column, unsigned row_stride) {
  if (panel == 1) return mpk::element_offset<1>(row, column, row_stride);
  if (panel == 2) return mpk::element_offset<2>(row, column, row_stride);
  if (panel == 4) return mpk::element_offset<4>(row, column, row_stride);
  return mpk::element_offset<8>(row, column, row_stride);
}
"""
DeviceOffset = Callable[[int, int, int, int], int]


def lying_in(panel: int, rows: int, columns: int) -> Buffer:
    return Buffer("h", Space.SCRATCH, (rows, columns), BF16, PANEL_LAYOUTS[panel])


def place(buffer: Buffer, row: int, column: int) -> int:
    """Of an element: the 8 columns that it is one of begin a box, and lie together."""
    begin = box_offsets(buffer, np.array([[row, column // PANEL_COLUMNS * PANEL_COLUMNS]]))
    return int(begin[0]) + column % PANEL_COLUMNS


@given(st.sampled_from(list(PANEL_LAYOUTS)), st.integers(1, 4), st.integers(1, 6))
def test_every_element_has_one_place(panel: int, panels: int, octets: int) -> None:
    buffer = lying_in(panel, panel * panels, PANEL_COLUMNS * octets)
    places = [place(buffer, row, column) for row, column in np.ndindex(buffer.shape)]
    assert sorted(places) == list(range(len(places)))


@given(st.sampled_from((2, 4, 8)), st.integers(0, 3), st.integers(0, 40))
def test_a_warps_load_is_one_piece(panel: int, number: int, octet: int) -> None:
    """The rows of a panel at four neighbouring 8 columns: what the lanes of a warp read at a time."""
    buffer = lying_in(panel, 4 * panel, 512)
    rows, columns = range(number * panel, (number + 1) * panel), range(8 * octet, 8 * octet + 32)
    places = [place(buffer, row, column) for row, column in product(rows, columns)]
    assert max(places) - min(places) + 1 == len(places)


def test_a_box_that_begins_inside_8_columns_is_an_error() -> None:
    with pytest.raises(PlanError, match=r"'h' is in panels: a task's box begins inside 8 columns"):
        box_offsets(lying_in(4, 8, 64), np.array([[0, 12]]))


@pytest.fixture(scope="module")
def device_offset(tmp_path_factory: pytest.TempPathFactory) -> DeviceOffset:
    """`element_offset` of the device code, through a host compiler."""
    if COMPILER is None:
        pytest.skip("needs g++, which compiles the device code for the host")
    folder = tmp_path_factory.mktemp("panels")
    (folder / "panels.cuh").write_text(resources.files("mpk_ir.codegen").joinpath(HEADER).read_text())
    (folder / "host.cpp").write_text(ON_THE_HOST)
    library = folder / "panels.so"
    subprocess.run([COMPILER, "-std=c++20", "-shared", "-fPIC", "-o", library, folder / "host.cpp"], check=True)
    function = ctypes.CDLL(str(library)).offset
    function.restype = ctypes.c_size_t
    return function


@given(
    st.sampled_from(list(PANEL_LAYOUTS)),
    st.tuples(st.integers(1, 3), st.integers(2, 4)),
    st.data(),
)
@settings(deadline=None)
def test_a_body_finds_all_of_its_box_unless_the_proof_says_that_it_tears_panels(
    device_offset: DeviceOffset,
    panel: int,
    panels: tuple[int, int],
    data: st.DataObject,
) -> None:
    """It counts from the address of the box's first element, which the tables give it. Panels that are only 8 columns
    wide are one piece whatever their rows: not drawn."""
    rows, columns = panel * panels[0], PANEL_COLUMNS * panels[1]
    low = data.draw(st.integers(0, rows - 1)), PANEL_COLUMNS * data.draw(st.integers(0, panels[1] - 1))
    size = data.draw(st.integers(1, rows - low[0])), data.draw(st.integers(1, columns - low[1]))
    buffer = lying_in(panel, rows, columns)
    first = int(box_offsets(buffer, np.array([low]))[0])
    found = all(
        first + device_offset(panel, row, column, columns) == place(buffer, low[0] + row, low[1] + column)
        for row, column in np.ndindex(size)
    )
    high = low[0] + size[0], low[1] + size[1]
    assert found is not bool(tears_panels(np.array([low]), np.array([high]), (), panel)[0])


@pytest.mark.parametrize(
    ("rows", "usual", "expected"),
    [(8, 8, 8), (8, 5, 4), (8, 3, 2), (8, 1, 1), (16, 16, 8), (12, 12, 4), (6, 6, 2), (7, 7, 1), (16, 4, 4), (8, 0, 1)],
)
def test_a_panel_has_as_many_rows_as_a_step_mostly_has(rows: int, usual: int, expected: int) -> None:
    assert panel_rows(rows, usual) == expected


CHAIN = GraphPlan(64, (Layer("linear", 0, 0, 64), Layer("linear", 1, 0, 64), Layer("linear", 2, 0, 64)))


def in_panels(drawn: GraphPlan, rows: int, target: str) -> tuple[np.ndarray, int]:
    """(the result of a simulated plan that is proved safe, how many of its buffers lie in panels)."""
    passes = [PanelRows(rows) if isinstance(one, PanelRows) else one for one in plan_passes(target_of(target))[1:-1]]
    program = program_of(planned(drawn, passes, target))
    return run(program, drawn, RunAhead()), sum(buffer.layout.panel_rows > 1 for buffer in program.buffers)


@example(CHAIN, 4, "sim")
@given(graph_plans(), st.sampled_from((2, 4, 8)), st.sampled_from(("sim", "h200")))
@settings(max_examples=25, deadline=None)
def test_a_plan_in_panels_is_safe_and_means_the_same(drawn: GraphPlan, rows: int, target: str) -> None:
    found, _ = in_panels(drawn, rows, target)
    plain, count = in_panels(drawn, 1, target)
    expected = evaluate(build(drawn), [inputs(drawn)], random_params(build(drawn), 0), {})[0]
    assert count == 0
    assert np.array_equal(found, plain, equal_nan=True)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("rows", [2, 4, 8])
def test_products_of_products_read_panels(rows: int) -> None:
    assert in_panels(CHAIN, rows, "sim")[1] == 2
