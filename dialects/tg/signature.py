"""Shapes of an op as one line of text, checked and inferred from it.

`x[R,K], weight[N,K], bias[N] -> result[R,N]` names each operand's and result's dimensions: a name stands for the same
size everywhere, a number for itself, a leading `...` for any dimensions. An absent optional operand is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.ir import Attribute, SSAValue
from xdsl.utils.exceptions import VerifyException

from .tensors import Shape, Tensor, shape_of, tensor

_TERM = re.compile(r"(\w+)\[([^\]]*)\]")


@dataclass
class _Binding:
    """The sizes found so far, and which value each was found in."""

    sizes: dict[str, int]
    origins: dict[str, str]
    rest: Shape | None = None


@dataclass(frozen=True)
class Signature:
    """See the module's docstring. ``operands`` and ``results`` map a name to its dimensions."""

    operands: Mapping[str, tuple[str, ...]]
    results: Mapping[str, tuple[str, ...]]

    @staticmethod
    def of(text: str) -> Signature:
        operands, _, results = text.partition("->")
        return Signature(_terms(operands), _terms(results))

    def check(self, op_name: str, operands: Mapping[str, SSAValue | None], results: Mapping[str, SSAValue]) -> None:
        """Raises VerifyException naming the operand or result, its shape and the expected one."""
        binding = self._bind(op_name, operands)
        for name, dims in self.results.items():
            _match(f"{op_name}: result '{name}'", name, dims, shape_of(results[name]), binding)

    def infer(self, op_name: str, element: Attribute, **operands: SSAValue | None) -> Tensor:
        """Type of the only result, from the operands. Raises VerifyException if they do not fit each other."""
        binding = self._bind(op_name, operands)
        (dims,) = self.results.values()
        if dims[:1] == ("...",):
            return tensor((binding.rest or ()) + tuple(binding.sizes[dim] for dim in dims[1:]), element)
        return tensor([int(dim) if dim.isdecimal() else binding.sizes[dim] for dim in dims], element)

    def _bind(self, op_name: str, operands: Mapping[str, SSAValue | None]) -> _Binding:
        binding = _Binding({}, {})
        for name, dims in self.operands.items():
            value = operands.get(name)
            if value is not None:
                _match(f"{op_name}: operand '{name}'", name, dims, shape_of(value), binding)
        return binding


def _terms(text: str) -> dict[str, tuple[str, ...]]:
    return {name: tuple(dims.replace(" ", "").split(",")) for name, dims in _TERM.findall(text)}


def _match(subject: str, name: str, dims: tuple[str, ...], shape: Shape, binding: _Binding) -> None:
    if dims[0] == "...":
        dims, lead, shape = dims[1:], shape[: len(shape) - len(dims) + 1], shape[len(shape) - len(dims) + 1 :]
        if binding.rest is not None and binding.rest != lead:
            raise VerifyException(f"{subject} has leading dimensions {list(lead)}, expected {list(binding.rest)}")
        binding.rest = lead
    if len(shape) != len(dims):
        raise VerifyException(f"{subject} has shape {list(shape)}, expected [{', '.join(dims)}]")
    for dim, size in zip(dims, shape, strict=True):
        if dim.isdecimal():
            wanted, origin = int(dim), "always"
        else:
            wanted = binding.sizes.setdefault(dim, size)
            origin = f"as in '{binding.origins.setdefault(dim, name)}'"
        if wanted != size:
            expected = f"[{', '.join(dims)}] with {dim} = {wanted} ({origin})"
            raise VerifyException(f"{subject} has shape {list(shape)}, expected {expected}")
