"""The numpy meaning of the general task kinds, on operands with steps of their own, against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpk_ir.core.errors import PlanError
from mpk_ir.tasks.expression import FUNCTIONS, Expression, literal, parse_expression
from mpk_ir.tasks.gather import Gather, GatherParams
from mpk_ir.tasks.index_copy import IndexCopy, IndexCopyParams
from mpk_ir.tasks.map import Map, MapParams
from mpk_ir.tasks.matmul import Matmul, MatmulParams
from mpk_ir.tasks.normalize import FUNCTIONS as NORMS
from mpk_ir.tasks.normalize import Normalize, NormalizeParams
from mpk_ir.tasks.reduce import FUNCTIONS as REDUCTIONS
from mpk_ir.tasks.reduce import Reduce, ReduceParams
from mpk_ir.tasks.strided import Placement

Array = np.ndarray[Any, Any]
SEEDS = st.integers(0, 2**32)
UNARY = sorted(
    {"neg", "exp", "rsqrt", "sigmoid", "tanh", "sqrt", "log", "sin", "cos", "erf", "abs", "floor", "ceil", "silu"}
)
BINARY = sorted(
    {"add", "sub", "mul", "div", "maximum", "minimum", "pow", "remainder", "eq", "ne", "lt", "le", "gt", "ge"}
)


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def block_fields(shape: tuple[int, ...], rows: int, *places: Placement) -> dict[str, Any]:
    """All columns and ``rows`` rows a task; every operand is f32."""
    flat = tuple(number for place in places for number in place.flat())
    dims = max(1, len(shape) - 1)
    columns = int(np.prod(shape[dims:]))
    return {
        "shape": shape,
        "row_dims": dims,
        "rows": rows,
        "columns": columns,
        "types": ("f32",) * len(places),
        "places": flat,
    }


WHOLE = Placement(True, 1, 1, ((0, 0), (0, 0)))
PLAIN = Placement(False, 0, 0, ((1, 0), (0, 1)))
TURNED = Placement(False, 0, 0, ((0, 1), (1, 0)))


def test_every_function_has_a_case_here() -> None:
    assert set(FUNCTIONS) == {*UNARY, *BINARY, "gelu", "gelu_tanh", "select", "to_int", "to_float"}


@pytest.mark.parametrize("name", UNARY)
@settings(max_examples=10)
@given(SEEDS)
def test_functions_of_one_operand(name: str, seed: int) -> None:
    x = np.abs(normal(seed, 12)) + 0.1 if name in ("rsqrt", "sqrt", "log") else normal(seed, 12) * 3
    function = torch.nn.functional.silu if name == "silu" else getattr(torch, name)
    found = parse_expression(f"{name}(in0)").value([x])
    np.testing.assert_allclose(found, function(torch.from_numpy(x)).numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=10)
@given(SEEDS, st.booleans())
def test_functions_of_two_operands(name: str, seed: int, whole: bool) -> None:
    a, b = normal(seed, 12) * 4, normal(seed + 1, 12) * 4
    if whole and name != "div":
        a, b = np.abs(a).astype(np.int32), np.abs(b).astype(np.int32) + 1
    elif name == "pow":
        a = np.abs(a) + 0.1
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    found = parse_expression(f"{name}(in0,in1)").value([a, b])
    np.testing.assert_allclose(found, getattr(torch, name)(*tensors).numpy(), rtol=2e-4, atol=1e-5)


def test_choices_conversions_and_literals() -> None:
    x = np.array([-1.5, 0.0, 2.5], np.float32)
    choice = Expression(
        "select", (Expression("gt", (Expression("in0"), literal(0.0))), literal(7.0), Expression("in0"))
    )
    assert choice.value([x]).tolist() == [-1.5, 0.0, 7.0]
    assert parse_expression("to_int(in0)").value([x]).tolist() == [-1, 0, 2]
    assert parse_expression(str(literal(-3))).value([]).item() == -3
    for tanh in (False, True):
        gelu = torch.nn.functional.gelu(torch.from_numpy(x), approximate="tanh" if tanh else "none")
        found = parse_expression("gelu_tanh(in0)" if tanh else "gelu(in0)").value([x])
        np.testing.assert_allclose(found, gelu.numpy(), rtol=1e-5)


@pytest.mark.parametrize("text", ["", "add(in0", "add(in0,in1)x", "nothing(in0)", "x0", "add(in0,)"])
def test_text_that_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="expression"):
        parse_expression(text)


@settings(max_examples=10)
@given(SEEDS, st.integers(1, 4))
def test_map_reads_transposed_and_repeated_operands(seed: int, rows: int) -> None:
    a, b, c, y = normal(seed, 4, 6), normal(seed + 1, 6, 4), normal(seed + 2, 1, 6), np.zeros((4, 6), np.float32)
    repeated = Placement(False, 0, 0, ((0, 0), (0, 1)))
    fields = block_fields((4, 6), rows, WHOLE, TURNED, repeated, WHOLE)
    params = MapParams(**fields, expression="add(in0,mul(in1,in2))")
    for first in range(0, 4, rows):
        views = {"in0": a[first : first + rows], "in1": b, "in2": c, "y": y[first : first + rows]}
        Map().reference(params, views, (first // rows, 0))
    np.testing.assert_allclose(y, a + b.T * c, rtol=1e-6)


@pytest.mark.parametrize("name", sorted(REDUCTIONS))
@settings(max_examples=10)
@given(SEEDS)
def test_reduce_along_rows_of_the_buffer(name: str, seed: int) -> None:
    x, y = normal(seed, 5, 6), np.zeros((2, 3), np.float32)
    place = Placement(False, 0, 0, ((0, 3), (0, 1)))
    params = ReduceParams(**block_fields((2, 3), 2, place, WHOLE), function=name, length=5, axis_row=1, axis_column=0)
    Reduce().reference(params, {"x": x, "y": y}, (0, 0))
    np.testing.assert_allclose(y, getattr(np, name)(x.reshape(5, 2, 3), axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NORMS)
@settings(max_examples=10)
@given(SEEDS)
def test_normalize(name: str, seed: int) -> None:
    x, weight, bias, y = normal(seed, 3, 8), normal(seed + 1, 8), normal(seed + 2, 8), np.zeros((3, 8), np.float32)
    vector = Placement(False, 0, 0, ((0, 0), (1, 0)))
    affine = name != "softmax"
    places = (PLAIN, *((vector, vector) if affine else ()), WHOLE)
    fields = block_fields((3, 8), 3, *places)
    params = NormalizeParams(**fields, function=name, weighted=affine, biased=affine, eps=1e-5)
    views = {"x": x, "y": y} | ({"weight": weight, "bias": bias} if affine else {})
    Normalize().reference(params, views, (0, 0))
    torch_x, w, b = (torch.from_numpy(one) for one in (x, weight, bias))
    expected = {
        "softmax": lambda: torch.softmax(torch_x, -1),
        "layer_norm": lambda: torch.nn.functional.layer_norm(torch_x, (8,), w, b),
        "rms_norm": lambda: torch.nn.functional.rms_norm(torch_x, (8,), w, 1e-5) + b,
    }[name]()
    np.testing.assert_allclose(y, expected.numpy(), rtol=2e-5, atol=2e-5)


@settings(max_examples=10)
@given(SEEDS)
def test_matmul_of_transposed_batches(seed: int) -> None:
    lhs, rhs, y = normal(seed, 6, 5), normal(seed + 1, 8, 5), np.zeros((6, 4), np.float32)
    left = Placement(False, 0, 0, ((3, 0), (1, 0), (0, 0)))
    right = Placement(False, 0, 0, ((4, 0), (0, 0), (1, 0)))
    out = Placement(True, 1, 1, ((0, 0),) * 3)
    fields = block_fields((2, 3, 4), 6, left, right, out)
    params = MatmulParams(**fields, depth=5, lhs_step=(0, 1), rhs_step=(0, 1))
    Matmul().reference(params, {"lhs": lhs, "rhs": rhs, "y": y}, (0, 0))
    expected = lhs.reshape(2, 3, 5) @ rhs.reshape(2, 4, 5).transpose(0, 2, 1)
    np.testing.assert_allclose(y.reshape(2, 3, 4), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=10)
@given(SEEDS)
def test_gather_and_index_copy_are_inverse(seed: int) -> None:
    x, order = normal(seed, 5, 3), np.random.default_rng(seed).permutation(5).astype(np.int32)
    ids = np.where(np.arange(5) % 2, order, order - 5).astype(np.int32)  # some counted from the end
    chosen, back = np.zeros((5, 3), np.float32), np.zeros((5, 3), np.float32)
    slices, of_rows = Placement(False, 0, 0, ((0, 0), (0, 1))), Placement(False, 0, 0, ((1, 0), (0, 0)))
    axis: dict[str, Any] = {"length": 5, "axis_row": 1, "axis_column": 0}
    params = GatherParams(**block_fields((5, 3), 5, slices, of_rows, WHOLE), **axis)
    Gather().reference(params, {"x": x, "ids": ids, "y": chosen}, (0, 0))
    np.testing.assert_array_equal(chosen, x[order])
    moved = IndexCopyParams(**block_fields((5, 3), 5, PLAIN, of_rows, slices), **axis)
    IndexCopy().reference(moved, {"source": chosen, "ids": ids, "x": back}, (0, 0))
    np.testing.assert_array_equal(back, x)


def test_ids_outside_touch_no_other_memory() -> None:
    x, y = normal(0, 5, 3), np.zeros((2, 3), np.float32)
    slices, of_rows = Placement(False, 0, 0, ((0, 0), (0, 1))), Placement(False, 0, 0, ((1, 0), (0, 0)))
    params = GatherParams(**block_fields((2, 3), 2, slices, of_rows, WHOLE), length=5, axis_row=1, axis_column=0)
    Gather().reference(params, {"x": x, "ids": np.array([99, -99], np.int32), "y": y}, (0, 0))
    np.testing.assert_array_equal(y, x[[4, 0]])
