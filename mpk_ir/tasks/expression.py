"""Elementwise expressions as text: `add(in0,mul(in1,f3f800000))` is in0 + in1 * 1.0.

A leaf is `in<k>`, an operand; `f<hex>`, a float32 by its bits; or `i<number>`, an int32. One spelling stands for the
numpy meaning and for the C++ type `mpk::Apply<mpk::fn::Add, mpk::In<0>, ...>` that the kernel evaluates
(codegen/cuda/mpk/strided.cuh).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ..core.errors import PlanError
from .base import Array
from .math import gelu_tanh, silu

_erf = np.vectorize(math.erf, otypes=[np.float32])


def _div(a: Array, b: Array) -> Array:
    quotient = np.divide(a, b)
    whole = np.result_type(a, b).kind == "i"
    return np.trunc(quotient).astype(np.int32) if whole else quotient


def _power(a: Array, b: Array) -> Array:
    if np.result_type(a, b).kind == "i":
        return np.power(a, np.maximum(b, 0))  # wraps as in C
    return np.power(a, b)


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0)))


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _div,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "pow": _power,
    "remainder": np.remainder,
    "neg": np.negative,
    "exp": np.exp,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "sigmoid": lambda x: 1.0 / (1.0 + np.exp(-x)),
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "erf": _erf,
    "abs": np.abs,
    "floor": np.floor,
    "ceil": np.ceil,
    "silu": silu,
    "gelu": _gelu,
    "gelu_tanh": gelu_tanh,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "select": lambda condition, a, b: np.where(condition != 0, a, b),
    "to_int": lambda x: np.trunc(x).astype(np.int32),
    "to_float": lambda x: np.asarray(x, np.float32),
}
"""Name -> meaning in numpy. The CUDA functor of `gelu_tanh` is `mpk::fn::GeluTanh`."""

_TOKEN = re.compile(r"[a-z_0-9]+|[(),]")


@dataclass(frozen=True)
class Expression:
    """``name`` of a function and its operands, or a leaf without any."""

    name: str
    operands: tuple[Expression, ...] = ()

    def __str__(self) -> str:
        return f"{self.name}({','.join(map(str, self.operands))})" if self.operands else self.name

    def cuda(self) -> str:
        """The C++ type that evaluates it."""
        if self.operands:
            functor = "".join(word.capitalize() for word in self.name.split("_"))
            return f"mpk::Apply<mpk::fn::{', '.join([functor, *(one.cuda() for one in self.operands)])}>"
        kind, text = _leaf(self.name)
        return {"in": f"mpk::In<{text}>", "f": f"mpk::F<0x{text}u>", "i": f"mpk::I<{text}>"}[kind]

    def value(self, inputs: Sequence[Array]) -> Array:
        """Its value in numpy; ``inputs`` broadcast against each other. Comparisons give int32."""
        if not self.operands:
            kind, text = _leaf(self.name)
            if kind == "in":
                return inputs[int(text)]
            return np.array(int(text), np.int32) if kind == "i" else np.array(int(text, 16), np.uint32).view(np.float32)
        result = FUNCTIONS[self.name](*(operand.value(inputs) for operand in self.operands))
        return result.astype(np.int32) if result.dtype == np.bool_ else result


def literal(value: float) -> Expression:
    """A float or an int as a leaf."""
    if isinstance(value, int):
        return Expression(f"i{value}" if value >= 0 else f"in_{-value}")
    return Expression(f"f{np.float32(value).view(np.uint32):08x}")


@cache
def parse_expression(text: str) -> Expression:
    """The inverse of ``str``. Raises PlanError for text that is no expression."""
    tokens = _TOKEN.findall(text)
    expression, rest = _parse(text, tokens)
    if rest or "".join(tokens) != text:
        raise PlanError(f"expression '{text}': found '{''.join(rest)}' after its end")
    return expression


def _parse(text: str, tokens: list[str]) -> tuple[Expression, list[str]]:
    if not tokens or tokens[0] in "(),":
        raise PlanError(f"expression '{text}': expected a name, found '{''.join(tokens)}'")
    name, rest = tokens[0], tokens[1:]
    if rest[:1] != ["("]:
        _leaf(name)
        return Expression(name), rest
    if name not in FUNCTIONS:
        raise PlanError(f"expression '{text}': no function '{name}'")
    operands: list[Expression] = []
    while rest[:1] != [")"]:
        if rest[:1] not in (["("], [","]):
            raise PlanError(f"expression '{text}': expected ',' or ')', found '{''.join(rest)}'")
        operand, rest = _parse(text, rest[1:])
        operands.append(operand)
    return Expression(name, tuple(operands)), rest[1:]


def _leaf(name: str) -> tuple[str, str]:
    """Kind (in, f, i) and text of a leaf."""
    if match := re.fullmatch(r"in(\d+)", name):
        return "in", match[1]
    if match := re.fullmatch(r"in_(\d+)", name):
        return "i", f"-{match[1]}"
    if match := re.fullmatch(r"f([0-9a-f]{8})", name):
        return "f", match[1]
    if match := re.fullmatch(r"i(\d+)", name):
        return "i", match[1]
    raise PlanError(f"expression: expected in<k>, f<8 hex digits> or i<number>, found '{name}'")
