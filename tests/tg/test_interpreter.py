"""The interpreter against torch and against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional
from xdsl.dialects.builtin import ModuleOp, bf16, f16, f32, i32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from mpk_ir.core.dtype import round_to_bf16
from mpk_ir.core.errors import UnsupportedError, UsageError
from mpk_ir.dialects import tg
from mpk_ir.interpreter import evaluate, initial_state, run_step

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(0)


def floats(*shape: int) -> Array:
    return RANDOM.normal(size=shape).astype(np.float32)


def compute(make: Callable[..., Operation], *arrays: Array, element: Attribute = f32, rounding: bool = False) -> Array:
    """The first result of the op that ``make`` builds of values holding ``arrays``."""
    types = [tg.tensor(array.shape, i32 if array.dtype == np.int32 else element) for array in arrays]
    block = Block(arg_types=types)
    op = make(*block.args)
    block.add_ops([op, ReturnOp(op.results[0])])
    module = ModuleOp([FuncOp("f", (types, [op.results[0].type]), Region(block))])
    module.verify()
    return evaluate(module, arrays, {}, {}, storage_rounding=rounding)[0]


def step_of(*ops: Operation) -> ModuleOp:
    return ModuleOp([FuncOp("step", ((), ()), Region(Block([*ops, ReturnOp()])))])


def tensors(*arrays: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


X, Y = floats(3, 5) * 3, floats(3, 5)
UNARY: dict[str, tuple[Callable[[SSAValue], Operation], Callable[[torch.Tensor], torch.Tensor]]] = {
    "neg": (tg.NegOp, torch.neg),
    "exp": (tg.ExpOp, torch.exp),
    "sigmoid": (tg.SigmoidOp, torch.sigmoid),
    "tanh": (tg.TanhOp, torch.tanh),
    "silu": (tg.SiluOp, functional.silu),
    "gelu": (tg.GeluOp, functional.gelu),
    "tanh gelu": (lambda x: tg.GeluOp(x, approximate=True), lambda x: functional.gelu(x, approximate="tanh")),
    "softmax 0": (lambda x: tg.SoftmaxOp(x, 0), lambda x: x.softmax(0)),
    "softmax 1": (lambda x: tg.SoftmaxOp(x, 1), lambda x: x.softmax(1)),
    "sum": (lambda x: tg.ReduceOp(tg.Reduction.SUM, x, 0), lambda x: x.sum(0)),
    "max": (lambda x: tg.ReduceOp(tg.Reduction.MAX, x, 1), lambda x: x.amax(1)),
    "mean": (lambda x: tg.ReduceOp(tg.Reduction.MEAN, x, 1), lambda x: x.mean(1)),
    "transpose": (lambda x: tg.TransposeOp(x, (1, 0)), lambda x: x.T),
    "slice": (lambda x: tg.SliceOp(x, (1, 2), (2, 3)), lambda x: x[1:3, 2:5]),
    "reshape": (lambda x: tg.ReshapeOp(x, (5, 3)), lambda x: x.reshape(5, 3)),
    "cast to i32": (lambda x: tg.CastOp(x, i32), lambda x: x.to(torch.int32)),
}


@pytest.mark.parametrize("name", UNARY)
def test_ops_of_one_operand_agree_with_torch(name: str) -> None:
    make, expected = UNARY[name]
    np.testing.assert_allclose(compute(make, X), expected(torch.from_numpy(X)).numpy(), rtol=1e-5, atol=1e-6)


BINARY: dict[str, tuple[Callable[..., Operation], Callable[..., torch.Tensor]]] = {
    "add": (tg.AddOp, torch.add),
    "sub": (tg.SubOp, torch.sub),
    "mul": (tg.MulOp, torch.mul),
    "div": (tg.DivOp, torch.div),
    "silu_mul": (tg.SiluMulOp, lambda a, b: functional.silu(a) * b),
    "gelu_mul": (tg.GeluMulOp, lambda a, b: functional.gelu(a) * b),
    "concat": (lambda a, b: tg.ConcatOp([a, b], 1), lambda a, b: torch.cat((a, b), 1)),
}


@pytest.mark.parametrize("name", BINARY)
def test_ops_of_two_operands_agree_with_torch(name: str) -> None:
    make, expected = BINARY[name]
    np.testing.assert_allclose(compute(make, X, Y), expected(*tensors(X, Y)).numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("one", "other"), [((3, 1), (4,)), ((2, 1, 4), (3, 1)), ((), (2,))])
def test_shapes_broadcast_as_in_numpy(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    a, b = floats(*one), floats(*other)
    np.testing.assert_array_equal(compute(tg.SubOp, a, b), a - b)


def test_linear_matmul_norms_and_embedding_agree_with_torch() -> None:
    x, w, b, g = floats(4, 6), floats(5, 6), floats(5), floats(6)
    tx, tw, tb, tg_ = tensors(x, w, b, g)
    pairs = [
        (compute(tg.LinearOp, x, w), functional.linear(tx, tw)),
        (compute(tg.LinearOp, x, w, b), functional.linear(tx, tw, tb)),
        (compute(lambda x, g: tg.RmsNormOp(x, g, 1e-3), x, g), functional.rms_norm(tx, (6,), tg_, 1e-3)),
        (
            compute(lambda x, g, b: tg.LayerNormOp(x, g, b, 1e-3), x, g, floats(6) * 0 + 2),
            functional.layer_norm(tx, (6,), tg_, torch.full((6,), 2.0), 1e-3),
        ),
        (compute(tg.MatmulOp, floats(1, 3, 2) * 0 + 1, w.reshape(5, 2, 3)), torch.ones(3, 2) @ tw.reshape(5, 2, 3)),
    ]
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5)
    rows = np.array([[2, 0, 0, 0], [4, 0, 1, 0]], np.int32)
    np.testing.assert_array_equal(compute(tg.EmbeddingOp, w, rows), w[[2, 4]])
    np.testing.assert_array_equal(compute(tg.EmbeddingOp, w, rows[:, 0].copy()), w[[2, 4]])


def test_argmax_takes_the_first_of_equal_ones() -> None:
    found = compute(tg.ArgmaxOp, np.array([[1, 3, 3], [2, 2, 0], [-5, -7, -5]], np.float32))
    np.testing.assert_array_equal(found, [1, 0, 0])


def test_integer_division_rounds_toward_zero() -> None:
    a, b = np.array([7, -7, 7], np.int32), np.array([2, 2, -2], np.int32)
    np.testing.assert_array_equal(compute(tg.DivOp, a, b), [3, -3, -3])


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_multiplies_pairs_by_a_unit_complex_number(interleaved: bool) -> None:
    x, inv_freq = floats(3, 2, 8), np.array([1.0, 0.5, 0.1, 0.01], np.float32)
    rows = np.array([[0, 0, 0, 0], [0, 0, 3, 0], [0, 1, 11, 0]], np.int32)
    found = compute(lambda *v: tg.RopeOp(*v, scaling=1.5, interleaved=interleaved), x, rows, inv_freq)
    real, imaginary = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :4], x[..., 4:])
    turned = 1.5 * (real + 1j * imaginary) * np.exp(1j * rows[:, 2, None, None] * inv_freq)
    parts = (found[..., 0::2], found[..., 1::2]) if interleaved else (found[..., :4], found[..., 4:])
    np.testing.assert_allclose(parts[0] + 1j * parts[1], turned, rtol=1e-5, atol=1e-5)


def test_attention_agrees_with_torch_and_ignores_pages_of_others() -> None:
    """Two requests over shuffled pages; everything they may not see is NaN."""
    page_size, heads, kv_heads, size = 4, 4, 2, 8
    lengths, page_table = (6, 3), np.array([[5, 1], [2, 0]], np.int32)
    caches = [np.full((6, kv_heads, page_size, size), np.nan, np.float32) for _ in range(2)]
    whole = [[floats(kv_heads, length, size) for length in lengths] for _ in range(2)]
    for cache, sequences in zip(caches, whole, strict=True):
        for request, sequence in enumerate(sequences):
            for position in range(lengths[request]):
                page = page_table[request, position // page_size]
                cache[page, :, position % page_size] = sequence[:, position]
    rows = np.array([[0, 0, 4, 0], [0, 0, 5, 1], [0, 1, 2, 1], [0, -1, 0, 0]], np.int32)
    q, requests = floats(4, heads, size), np.zeros((2, 6), np.int32)

    def make(q: SSAValue, k: SSAValue, v: SSAValue, *states: SSAValue) -> Operation:
        return tg.AttentionOp(q, (k, v), states, 0.3)

    found = compute(make, q, *caches, rows, requests, page_table)
    for row, (_, request, position, _) in enumerate(rows[:3]):
        k, v = (torch.from_numpy(sequences[request][:, : position + 1]) for sequences in whole)
        k, v = (x.repeat_interleave(heads // kv_heads, dim=0) for x in (k, v))
        expected = functional.scaled_dot_product_attention(torch.from_numpy(q[row])[:, None], k, v, scale=0.3)
        np.testing.assert_allclose(found[row], expected[:, 0].numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("softcap", "window"), [(0.7, 0), (0.0, 3), (0.7, 1), (0.0, 9)])
def test_attention_caps_scores_and_sees_a_window(softcap: float, window: int) -> None:
    cache = [floats(2, 1, 4, 8) for _ in range(2)]
    rows, page_table = np.array([[0, 0, 4, 0], [0, 0, 6, 1]], np.int32), np.array([[1, 0]], np.int32)
    q, requests = floats(2, 2, 8), np.zeros((1, 6), np.int32)

    def make(q: SSAValue, k: SSAValue, v: SSAValue, *states: SSAValue) -> Operation:
        return tg.AttentionOp(q, (k, v), states, tg.Scores(2.0, softcap, window))

    found = compute(make, q, *cache, rows, requests, page_table)
    keys, values = (np.concatenate([one[1, 0], one[0, 0]]) for one in cache)
    for row, position in enumerate((4, 6)):
        first = max(0, position + 1 - window) if window else 0
        scores = torch.from_numpy(q[row] @ keys[first : position + 1].T * np.float32(2.0))
        scores = softcap * torch.tanh(scores / softcap) if softcap else scores
        expected = torch.softmax(scores, -1) @ torch.from_numpy(values[first : position + 1])
        np.testing.assert_allclose(found[row], expected.numpy(), rtol=1e-5, atol=1e-5)


def test_append_writes_only_active_rows() -> None:
    cache, new = np.zeros((4, 1, 2, 2), np.float32), np.ones((3, 1, 2), np.float32)
    rows = np.array([[0, 0, 3, 0], [0, 1, 0, 0], [0, -1, 0, 0]], np.int32)
    found = compute(tg.KvAppendOp, cache, new, rows, np.array([[0, 2], [3, 1]], np.int32))
    written = {(int(page), int(slot)) for page, _, slot, _ in zip(*np.nonzero(found), strict=True)}
    assert written == {(2, 1), (3, 0)}
    assert not cache.any()


def test_updates_take_effect_together_when_the_step_ends() -> None:
    one, other = (tg.StateOp(name, tg.tensor((2,), f32)) for name in ("one", "other"))
    updates = tg.UpdateOp("one", other.result), tg.UpdateOp("other", one.result)
    swap = step_of(one, other, *updates)
    state = {"one": np.array([1, 2], np.float32), "other": np.array([3, 4], np.float32)}
    held = state["one"]
    run_step(swap, {}, state)
    np.testing.assert_array_equal(held, [3, 4])
    np.testing.assert_array_equal(state["other"], [1, 2])


@pytest.mark.parametrize(("element", "rounded"), [(bf16, round_to_bf16), (f16, lambda x: x.astype(np.float16))])
def test_storage_rounding_rounds_every_result(element: Attribute, rounded: Callable[[Array], Array]) -> None:
    x = rounded(floats(50)).astype(np.float32)
    exact = compute(tg.ExpOp, x, element=element)
    np.testing.assert_allclose(exact, np.exp(x), rtol=1e-6)
    found = compute(tg.ExpOp, x, element=element, rounding=True)
    np.testing.assert_array_equal(found, rounded(exact))
    assert (found != exact).any()


def test_params_are_stacked_and_interleaved() -> None:
    gate, up = np.arange(8, dtype=np.float32).reshape(4, 2), -np.arange(8, dtype=np.float32).reshape(4, 2)
    for block, rows in ((0, [*gate, *up]), (2, [gate[0], gate[1], up[0], up[1], gate[2], gate[3], up[2], up[3]])):
        param = tg.ParamOp("both", tg.tensor((8, 2), f32), ["gate", "up"], block)
        module = step_of(param, tg.UpdateOp("out", param.result))
        state = initial_state(module)
        run_step(module, {"gate": gate, "up": up}, state)
        np.testing.assert_array_equal(state["out"], rows)


def test_missing_and_misshapen_inputs_are_named() -> None:
    param = tg.ParamOp("weight", tg.tensor((4,), f32))
    module = step_of(param, tg.UpdateOp("out", param.result))
    with pytest.raises(UsageError, match="no parameter 'weight'"):
        run_step(module, {"wieght": floats(4)}, initial_state(module))
    with pytest.raises(UsageError, match=r"@weight: found parameters of shape \[3\], expected \[4\]"):
        run_step(module, {"weight": floats(3)}, initial_state(module))
    with pytest.raises(UsageError, match="no state 'out'"):
        run_step(module, {"weight": floats(4)}, {})


def test_halves_of_unequal_size_do_not_interleave() -> None:
    module = step_of(
        param := tg.ParamOp("both", tg.tensor((16,), f32), ["a", "b"], 8), tg.UpdateOp("out", param.result)
    )
    with pytest.raises(UsageError, match="interleave"):
        run_step(module, {"a": floats(12), "b": floats(4)}, initial_state(module))


def test_an_op_of_another_dialect_is_refused_by_name() -> None:
    inner = FuncOp("inner", ((), ()), Region(Block([ReturnOp()])))
    with pytest.raises(UnsupportedError, match=r"no meaning for 'func\.func'"):
        run_step(step_of(inner), {}, {})
