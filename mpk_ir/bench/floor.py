"""The least time of a step: what it must read, at the rate that this GPU reads."""

from __future__ import annotations

from math import prod

from ..frontend import ModelConfig, weight_shapes
from ..frontend.weights import EMBEDDING

ELEMENT_BYTES = 2


def step_bytes(config: ModelConfig, batch: int, context: float) -> float:
    """Bytes that a decode step must read, in bf16: each weight once, of an untied embedding ``batch`` rows, and the
    keys and values of ``context`` positions of each request."""
    shapes = weight_shapes(config)
    weights = sum(prod(shape) for name, shape in shapes.items() if config.tied_embeddings or name != EMBEDDING)
    rows = 0 if config.tied_embeddings else batch * config.hidden_size
    cached = 2 * config.num_layers * config.kv_size * context * batch
    return ELEMENT_BYTES * (weights + rows + cached)


def floor_ms(bytes_read: float, bandwidth_tb_s: float) -> float:
    """Milliseconds to read so much at ``bandwidth_tb_s`` (10^12 bytes a second)."""
    return bytes_read / bandwidth_tb_s / 1e9
