"""What a compiled graph takes and gives, in PyTorch's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from xdsl.dialects.builtin import ModuleOp


@dataclass(frozen=True)
class Value:
    """A tensor that crosses the border: ``name`` of its buffer in the program, and how PyTorch sees it.

    ``shape`` () is held as [1]; int64 and bool are held as i32. One without elements has no buffer and no ``name``.
    """

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Constant:
    """A result that is no tensor of the program: a number, None, or an argument handed back."""

    value: object = None
    argument: int | None = None


@dataclass(frozen=True)
class Imported:
    """A graph as `tg`. ``inputs`` by number of the argument; ``states`` by name of the buffer they are bound to.

    ``results`` in order; a `Value` is named after its output buffer.
    ``constants`` are tensors of the graph itself, named by `tg.param` as parameters are.
    """

    module: ModuleOp
    inputs: Mapping[int, Value]
    results: tuple[Value | Constant, ...]
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict[str, "torch.Tensor"])
    states: Mapping[str, Value] = field(default_factory=dict[str, Value])
