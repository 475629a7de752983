"""Names of grids and of the operators that they stand for."""

from __future__ import annotations

import re

_LAYER_NUMBER = re.compile(r"\.\d+(?=\.|$)")


def operator_name(grid: str) -> str:
    """The grids of all layers under one name: `layers.3.mlp.down_proj` and `attention.4` without their numbers."""
    return _LAYER_NUMBER.sub("", grid)
