"""The functions the meanings are made of, on float32 arrays."""

from __future__ import annotations

import math

import numpy as np

from ..core.requests import RowColumn
from ..dialects.tg import Scores
from .values import UNSPECIFIED, Array

erf = np.vectorize(math.erf, otypes=[np.float32])


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp(-x) is infinite for very negative x, and 1 / inf is the right 0
        return 1.0 / (1.0 + np.exp(-x))


def silu(x: Array) -> Array:
    """X * sigmoid(x)."""
    return x * sigmoid(x)


def gelu(x: Array, approximate: bool) -> Array:
    """X times the normal distribution function of x, or the tanh formula for it."""
    if approximate:
        return 0.5 * x * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1.0 + erf(x / math.sqrt(2.0)))


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """X / sqrt(mean(x²) + eps) * weight over the last axis."""
    mean_square = np.mean(np.square(x, dtype=np.float32), axis=-1, keepdims=True, dtype=np.float32)
    return x / np.sqrt(mean_square + np.float32(eps)) * weight


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis."""
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(np.square(centred), axis=-1, keepdims=True)
    return centred / np.sqrt(variance + np.float32(eps)) * weight + bias


def softmax(x: Array, axis: int) -> Array:
    """exp(x - max) / sum(exp(x - max)) along ``axis``."""
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def top_k_gate(logits: Array, k: int) -> tuple[Array, Array]:
    """([R, k] softmax of the k largest of each row, [R, k] which they are)."""
    experts = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    return softmax(np.take_along_axis(logits, experts, axis=1), axis=1), experts


def grouped_linear(x: Array, weight: Array, experts: Array) -> Array:
    """[R, T, M] of x [R, T or 1, K] and weight [E, M, K]. An expert that is none, of an unused row, gives zeros."""
    result = np.zeros((*experts.shape, weight.shape[1]), np.float32)
    for expert in range(len(weight)):
        rows, slots = np.nonzero(experts == expert)
        result[rows, slots] = x[rows, slots if x.shape[1] > 1 else 0] @ weight[expert].T
    return result


def rope(x: Array, rows: Array, inv_freq: Array, scaling: float, interleaved: bool) -> Array:
    """[R, H, D] turned by each row's position."""
    angles = rows[:, RowColumn.POSITION].astype(np.float32)[:, None, None] * inv_freq
    cos, sin = np.cos(angles) * np.float32(scaling), np.sin(angles) * np.float32(scaling)
    half = x.shape[-1] // 2
    first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    turned = (first * cos - second * sin, second * cos + first * sin)
    return np.stack(turned, axis=-1).reshape(x.shape) if interleaved else np.concatenate(turned, axis=-1)


def kv_append(cache: Array, new: Array, rows: Array, page_table: Array) -> Array:
    """A copy of ``cache`` with the active rows of ``new`` written."""
    page_size = cache.shape[2]
    active = np.flatnonzero(rows[:, RowColumn.REQUEST] >= 0)
    position = rows[active, RowColumn.POSITION]
    page = page_table[rows[active, RowColumn.REQUEST], position // page_size]
    result = cache.copy()
    result[page, :, position % page_size] = new[active]
    return result


def attention(q: Array, caches: tuple[Array, Array], rows: Array, page_table: Array, scores: Scores) -> Array:
    """[R, Hq, D]: each active row over the positions of its request up to its own."""
    result = np.full_like(q, UNSPECIFIED)
    for request in np.unique(rows[:, RowColumn.REQUEST]):
        if request < 0:
            continue
        chosen = np.flatnonzero(rows[:, RowColumn.REQUEST] == request)
        position = rows[chosen, RowColumn.POSITION]
        keys, values = (_positions(cache, page_table[request], int(position.max()) + 1) for cache in caches)
        result[chosen] = _attend(q[chosen], keys, values, position, scores)
    return result


def _positions(cache: Array, pages: Array, count: int) -> Array:
    """The first ``count`` positions of a request: [Hkv, count, D]."""
    gathered = cache[pages[: -(-count // cache.shape[2])]].swapaxes(0, 1)
    return gathered.reshape(cache.shape[1], -1, cache.shape[3])[:, :count]


def _attend(q: Array, keys: Array, values: Array, position: Array, how: Scores) -> Array:
    """Q [n, Hq, D] over keys and values [Hkv, L, D]; row i sees positions 0 .. position[i], of a window the latest."""
    rows, heads, size = q.shape
    groups = q.reshape(rows, len(keys), heads // len(keys), size).transpose(1, 2, 0, 3)
    scores = groups @ keys[:, None].swapaxes(-1, -2) * np.float32(how.scale)
    if how.softcap:
        scores = np.float32(how.softcap) * np.tanh(scores / np.float32(how.softcap))
    age = position[:, None] - np.arange(keys.shape[1])
    hidden = (age < 0) | (age >= (how.window or keys.shape[1]))
    weights = softmax(np.where(hidden, np.float32(-np.inf), scores), axis=-1)
    return (weights @ values[:, None]).transpose(2, 0, 1, 3).reshape(q.shape)
