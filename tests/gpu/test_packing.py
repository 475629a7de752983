"""Weights in the kernel's layout: packed on the GPU as on the CPU, with little memory beside them."""

from __future__ import annotations

from typing import Any

import pytest

from mpk_ir.bench.plans import Plan
from mpk_ir.bench.shapes import random_weights, shape_config
from mpk_ir.runtime.driver import find_device
from mpk_ir.runtime.executor import GpuExecutor
from mpk_ir.runtime.weights import logical_weight, packed_weight, weights_of

pytestmark = pytest.mark.gpu

MODEL = "qwen3-0.6b"


@pytest.fixture(scope="module")
def weights() -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    if find_device() is None:
        pytest.skip("no NVIDIA GPU")
    if not torch.cuda.is_available():
        pytest.skip("a torch without CUDA packs on the CPU")
    return random_weights(shape_config(MODEL), "cuda")


def test_the_gpu_packs_as_the_cpu_with_little_more_memory(weights: dict[str, Any]) -> None:
    import torch

    program = Plan(MODEL).compile()
    buffers = weights_of(program)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    engine = GpuExecutor(program, weights)
    assert torch.cuda.max_memory_reserved() - before < max(buffer.bytes for buffer in buffers)
    host = {name: weight.cpu() for name, weight in weights.items()}
    for buffer in buffers:
        expected = packed_weight(buffer, logical_weight(program, buffer, host))
        assert torch.equal(engine.ranks[0].tensor(buffer).view(-1).cpu(), expected), buffer.name
