"""Numpy forms that several task kinds share. All take and return float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from .base import Array


def rms_scale(x: Array, eps: float) -> Array:
    """1 / rms of the last dimension, kept as a dimension of one."""
    return 1.0 / np.sqrt(np.mean(np.square(x), axis=-1, keepdims=True) + eps)


def silu(x: Array) -> Array:
    """X times its sigmoid."""
    return x / (1.0 + np.exp(-x))


def gelu_tanh(x: Array) -> Array:
    """The tanh approximation of GELU."""
    return 0.5 * x * (1.0 + np.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))


def rope(x: Array, positions: Array, inv_freq: Array, scaling: float, interleaved: bool = False) -> Array:
    """Rotary embedding of ``x`` [rows, heads, D] at ``positions`` [rows]: halves, or neighbours, turned as pairs."""
    angle = positions[:, None].astype(np.float32) * inv_freq[None, :]
    cos, sin = (f(angle)[:, None, :] * np.float32(scaling) for f in (np.cos, np.sin))
    low, high = (x[..., ::2], x[..., 1::2]) if interleaved else np.split(x, 2, axis=-1)
    turned = [low * cos - high * sin, high * cos + low * sin]
    return np.stack(turned, axis=-1).reshape(x.shape) if interleaved else np.concatenate(turned, axis=-1)


class HeadParams(Protocol):
    """What is done to queries and keys before attention: RMS norm per head with ``eps``, rotation by position."""

    @property
    def norm(self) -> bool: ...

    @property
    def eps(self) -> float: ...

    @property
    def rotary(self) -> bool: ...

    @property
    def rotary_scaling(self) -> float: ...


def prepared_heads(params: HeadParams, views: Mapping[str, Array], x: Array, norm: str, positions: Array) -> Array:
    """``x`` [rows, heads, D] as attention takes it; its norm's weight is ``views[norm]``."""
    if params.norm:
        x = x * rms_scale(x, params.eps) * views[norm]
    return rope(x, positions, views["inv_freq"], params.rotary_scaling) if params.rotary else x


def active_rows(views: Mapping[str, Array], capacity: int) -> int:
    """Rows of the step that hold a token, of ``capacity`` at most: all, if the graph does not count them."""
    return min(int(views["row_count"][0]), capacity) if "row_count" in views else capacity
