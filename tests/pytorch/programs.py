"""Random ATen programs as small frozen plans: hypothesis draws and shrinks the plan, `run_plan` calls torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st

Tensor = torch.Tensor


@dataclass(frozen=True)
class Step:
    """``op`` of earlier values (modulo their number); ``choice`` varies it."""

    op: str
    first: int
    second: int
    choice: int


@dataclass(frozen=True)
class ProgramPlan:
    """Steps over inputs of ``shapes`` and one dtype; the last value is the result."""

    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype
    steps: tuple[Step, ...]


def _axis(x: Tensor, choice: int) -> int:
    return choice % max(1, x.dim())


def _narrowed(x: Tensor, choice: int) -> Tensor:
    axis = _axis(x, choice)
    start = choice % x.shape[axis]
    return x.narrow(axis, start, max(1, (x.shape[axis] - start + 1) // 2))


def _permuted(x: Tensor, choice: int) -> Tensor:
    order = list(range(x.dim()))
    return x.permute(order[choice % len(order) :] + order[: choice % len(order)])


def _broadcastable(x: Tensor, y: Tensor) -> Tensor:
    """A part of ``y`` that broadcasts with ``x``."""
    y = y.reshape(-1)[: x.shape[-1]]
    return y if len(y) == x.shape[-1] else y[:1]


def _strided(x: Tensor, choice: int) -> Tensor:
    return x[..., :: 1 + choice % 3]


def _gathered(x: Tensor, choice: int) -> Tensor:
    axis = _axis(x, choice)
    return x.index_select(axis, torch.tensor([choice % x.shape[axis], 0, x.shape[axis] - 1]))


UNARY: dict[str, Callable[[Tensor, int], Tensor]] = {
    "tanh": lambda x, c: torch.tanh(x),
    "sigmoid": lambda x, c: torch.sigmoid(x),
    "gelu": lambda x, c: torch.nn.functional.gelu(x, approximate=("none", "tanh")[c % 2]),
    "silu": lambda x, c: torch.nn.functional.silu(x),
    "abs_sqrt": lambda x, c: torch.sqrt(x.abs() + 0.1),
    "square": lambda x, c: x.clamp(-4, 4) ** (2 + c % 2),
    "cos": lambda x, c: torch.cos(x),
    "softmax": lambda x, c: torch.softmax(x, _axis(x, c)),
    "layer_norm": lambda x, c: torch.nn.functional.layer_norm(x, x.shape[-1:], eps=0.1),
    "sum": lambda x, c: x.sum(_axis(x, c), keepdim=bool(c & 1)) * 0.25,
    "mean_all": lambda x, c: x.mean(),
    "amax": lambda x, c: x.amax(_axis(x, c), keepdim=bool(c & 1)),
    "permute": _permuted,
    "narrow": _narrowed,
    "strided": _strided,
    "flatten": lambda x, c: x.reshape(-1),
    "rows": lambda x, c: x.reshape(x.shape[0], -1),
    "unsqueeze": lambda x, c: x.unsqueeze(_axis(x, c)) if x.dim() < 5 else x,
    "expand": lambda x, c: x.unsqueeze(0).expand(2, *x.shape) if x.dim() < 4 and x.numel() < 200 else x,
    "flip": lambda x, c: x.flip(_axis(x, c)),
    "pad": lambda x, c: torch.nn.functional.pad(x, (c % 2, c % 3)),
    "gather": _gathered,
    "float": lambda x, c: x.float().to(x.dtype),
    "step": lambda x, c: torch.where(x > 0.1 * c, x, -x),
    "mask": lambda x, c: (x > 0).to(x.dtype) * x,
    "cumsum": lambda x, c: x.cumsum(_axis(x, c)) * 0.25,
}
BINARY: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "add": lambda x, y, c: x + _broadcastable(x, y),
    "sub": lambda x, y, c: torch.sub(x, _broadcastable(x, y), alpha=1 + c),
    "mul": lambda x, y, c: x * _broadcastable(x, y) * 0.5,
    "maximum": lambda x, y, c: torch.maximum(x, _broadcastable(x, y)),
    "matmul": lambda x, y, c: (x.reshape(-1, x.shape[-1]) @ x.reshape(-1, x.shape[-1]).T)[:6] * 0.1,
    "outer": lambda x, y, c: x.reshape(-1)[:6, None] * y.reshape(-1)[None, :7],
    "cat": lambda x, y, c: torch.cat([x, x * 2], _axis(x, c)),
    "stack": lambda x, y, c: torch.stack([x, -x], _axis(x, c)) if x.dim() < 4 and x.numel() < 200 else x,
}

_sizes = st.sampled_from((1, 2, 3, 5, 8))
_shapes = st.lists(_sizes, min_size=1, max_size=4).map(tuple)
_steps = st.builds(
    Step, st.sampled_from(sorted({**UNARY, **BINARY})), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5)
)
program_plans = st.builds(
    ProgramPlan,
    st.lists(_shapes, min_size=1, max_size=2).map(tuple),
    st.sampled_from((torch.float32, torch.bfloat16)),
    st.lists(_steps, min_size=1, max_size=6).map(tuple),
)


def inputs_of(plan: ProgramPlan, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(plan.dtype) for shape in plan.shapes]


def run_plan(plan: ProgramPlan, inputs: list[Tensor]) -> Tensor:
    """The program, by torch."""
    values = list(inputs)
    for step in plan.steps:
        x, y = values[step.first % len(values)], values[step.second % len(values)]
        if x.dim() == 0:
            x = x.reshape(1)
        made = UNARY[step.op](x, step.choice) if step.op in UNARY else BINARY[step.op](x, y, step.choice)
        values.append(made)
    return values[-1] + 0
