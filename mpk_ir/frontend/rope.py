"""Frequencies of the rotary position embedding, from a config of any age."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np

from ..core.errors import CheckpointError, UnsupportedError

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Llama3Scaling:
    """Long wavelengths are stretched by ``factor``, short ones kept, those between blended."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int

    def apply(self, inv_freq: FloatArray) -> FloatArray:
        turns = self.original_max_positions * inv_freq / np.float32(2 * pi)
        kept = (turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        kept = np.clip(kept, 0.0, 1.0)
        return ((1 - kept) * inv_freq / self.factor + kept * inv_freq).astype(np.float32)


@dataclass(frozen=True)
class LinearScaling:
    """All positions are divided by ``factor``."""

    factor: float

    def apply(self, inv_freq: FloatArray) -> FloatArray:
        return inv_freq / np.float32(self.factor)


@dataclass(frozen=True)
class Rope:
    """Base ``theta`` and an optional scaling for contexts longer than those trained on."""

    theta: float
    scaling: Llama3Scaling | LinearScaling | None = None

    def inv_freq(self, head_dim: int) -> FloatArray:
        """[head_dim / 2] float32: angle per position of each pair."""
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        inv_freq = np.float32(1.0) / np.float32(self.theta) ** exponents
        return inv_freq if self.scaling is None else self.scaling.apply(inv_freq)


def rope_from(values: Mapping[str, Any], where: str) -> Rope:
    """The rope of a config: `rope_parameters` of transformers 5, else `rope_theta` and `rope_scaling`.

    Raises UnsupportedError for a type of rope we lack, CheckpointError for a missing parameter.
    """
    parameters = values.get("rope_parameters") or values.get("rope_scaling") or {}
    theta = float(parameters.get("rope_theta", values.get("rope_theta", 10000.0)))
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if parameters.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedError("option partial_rotary_factor is not supported", where=where)
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, LinearScaling(_number(parameters, "factor", where)))
    if kind == "llama3":
        return Rope(theta, _llama3(parameters, where))
    raise UnsupportedError(f"rope_type: found {kind!r}, expected default, linear or llama3", where=where)


def _llama3(parameters: Mapping[str, Any], where: str) -> Llama3Scaling:
    low, high = (_number(parameters, key, where) for key in ("low_freq_factor", "high_freq_factor"))
    if high <= low:
        raise CheckpointError(
            f"high_freq_factor: found {high}, expected more than low_freq_factor = {low}", where=where
        )
    original = int(_number(parameters, "original_max_position_embeddings", where))
    return Llama3Scaling(_number(parameters, "factor", where), low, high, original)


def _number(parameters: Mapping[str, Any], key: str, where: str) -> float:
    found = parameters.get(key)
    if not isinstance(found, int | float) or found <= 0:
        raise CheckpointError(f"rope {key}: found {found!r}, expected a positive number", where=where)
    return float(found)
