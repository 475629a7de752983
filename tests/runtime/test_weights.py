"""Packing against loops that follow the definition word by word."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mpk_ir.codegen.program import Buffer, Pack
from mpk_ir.core.dtype import BF16, F32
from mpk_ir.core.errors import CheckpointError, PlanError
from mpk_ir.core.memory import Layout, Space
from mpk_ir.runtime.binding import box_offsets, from_device, to_device
from mpk_ir.runtime.weights import interleave, packed_weight


def tiled(shape: tuple[int, int], padded: tuple[int, int]) -> Buffer:
    return Buffer("w", Space.WEIGHT, shape, BF16, Layout.MMA_ROWS_16, padded, Pack(("w",)))


def naive_mma_rows_16(weight: torch.Tensor, n: int, k: int) -> list[float]:
    elements: list[float] = []
    words = product(range(n // 16), range(k // 32), range(2), range(8), range(4), range(2), range(2), range(2))
    for tile, block, product_number, row, quad, word, half, element in words:
        i, j = 16 * tile + 8 * half + row, 32 * block + 8 * quad + 4 * product_number + 2 * word + element
        inside = i < weight.shape[0] and j < weight.shape[1]
        elements.append(float(weight[i, j]) if inside else 0.0)
    return elements


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 50), k=st.integers(1, 70), seed=st.integers(0, 1000))
def test_mma_rows_16_is_the_order_of_its_definition(n: int, k: int, seed: int) -> None:
    weight = torch.randn(n, k, generator=torch.Generator().manual_seed(seed)).bfloat16()
    padded = (-(-n // 16) * 16, -(-k // 32) * 32)
    packed = packed_weight(tiled((n, k), padded), weight)
    assert packed.dtype is torch.bfloat16
    assert packed.tolist() == naive_mma_rows_16(weight, *padded)


@settings(deadline=None, max_examples=30)
@given(blocks=st.integers(1, 6), rows=st.integers(1, 9), columns=st.integers(1, 3))
def test_interleaving_deals_blocks_of_both_halves(blocks: int, rows: int, columns: int) -> None:
    weight = torch.arange(2 * blocks * rows * columns).reshape(2 * blocks * rows, columns)
    naive = []
    for block in range(blocks):
        naive += [weight[block * rows + r] for r in range(rows)]
        naive += [weight[blocks * rows + block * rows + r] for r in range(rows)]
    first, second = weight.chunk(2)
    assert torch.equal(interleave(first, second, rows), torch.stack(naive))


def test_halves_that_do_not_divide_or_differ_are_refused() -> None:
    for first, second in (((20, 4), (20, 4)), ((16, 4), (24, 4)), ((16, 4), (16, 5))):
        with pytest.raises(CheckpointError, match=r"cannot be interleaved in blocks of 8"):
            interleave(torch.zeros(first), torch.zeros(second), 8)


def test_a_row_major_weight_is_converted_and_padded() -> None:
    buffer = Buffer("w", Space.WEIGHT, (2, 3), F32, padded_shape=(3, 4), pack=Pack(("w",)))
    packed = packed_weight(buffer, torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.float16))
    assert packed.dtype is torch.float32
    assert packed.tolist() == [1, 2, 3, 0, 4, 5, 6, 0, 0, 0, 0, 0]


def test_a_tile_is_found_where_its_box_begins() -> None:
    buffer = tiled((40, 60), (48, 64))
    assert box_offsets(buffer, np.array([[0, 0, 0, 0], [32, 0, 0, 0]])).tolist() == [0, 32 * 64]
    for inside in ([4, 0], [16, 32]):
        with pytest.raises(PlanError, match="begins inside a tile"):
            box_offsets(buffer, np.array([inside]))


def test_a_box_of_a_padded_tensor_is_found_by_its_memory_shape() -> None:
    buffer = Buffer("s", Space.STATE, (2, 3, 5), F32, padded_shape=(2, 4, 8))
    assert box_offsets(buffer, np.array([[1, 2, 3, 0]])).tolist() == [(1 * 4 + 2) * 8 + 3]
    assert box_offsets(Buffer("v", Space.STATE, (7,), F32), np.array([[5, 0, 0, 0]])).tolist() == [5]


@settings(deadline=None)
@given(st.lists(st.floats(-(2.0**120), 2.0**120, width=32), min_size=6, max_size=6))
def test_bf16_memory_holds_what_torch_would_store(values: list[float]) -> None:
    buffer = Buffer("s", Space.STATE, (2, 3), BF16, padded_shape=(2, 4))
    array = np.array(values, np.float32).reshape(2, 3)
    bits = to_device(array, buffer)
    assert bits.shape == (2, 4)
    assert not bits[:, 3].any()
    assert np.array_equal(from_device(bits, buffer), torch.from_numpy(array).bfloat16().float().numpy())
