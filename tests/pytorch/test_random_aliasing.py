"""Random programs that write through views: inputs that share memory, no elements, gaps; compiled against eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st

from mpk_ir.pytorch.backend import mpk

Tensor = torch.Tensor
Act = Callable[[Tensor, Tensor, int], Tensor]


def _axis(x: Tensor, choice: int) -> int:
    return choice % x.dim()


def _narrowed(x: Tensor, choice: int) -> Tensor:
    axis = _axis(x, choice)
    start = min(choice, x.shape[axis])
    return x.narrow(axis, start, x.shape[axis] - start)


def _like(x: Tensor, y: Tensor) -> Tensor:
    """A part of ``y`` that broadcasts to ``x``: a scalar where they do not fit, or nothing is left of it."""
    if y.shape[-1:] == x.shape[-1:]:
        return y.reshape(-1, y.shape[-1])[:1].reshape(-1) if y.numel() else y.sum()
    return y.sum()


VIEWS: list[Callable[[Tensor, int], Tensor]] = [
    lambda x, c: x,
    lambda x, c: x.transpose(0, -1),
    _narrowed,
    lambda x, c: x[..., ::2],
    lambda x, c: x[:, :0],
    lambda x, c: x.unsqueeze(_axis(x, c)).squeeze(0),
    lambda x, c: x[:, :1].expand(-1, 3),
]
# In-place acts read a clone: to read what the same op writes has no defined result in eager.
ACTS: dict[str, Act] = {
    "tanh": lambda x, y, c: torch.tanh(x),
    "add": lambda x, y, c: x + _like(x, y),
    "scale": lambda x, y, c: x * (c - 1.5),
    "sum": lambda x, y, c: x.sum(_axis(x, c), keepdim=True),
    "join": lambda x, y, c: torch.cat([x, x * 2], _axis(x, c)),
    "where": lambda x, y, c: torch.where(x > 0, x, _like(x, y)),
    "transposed": lambda x, y, c: x.transpose(0, -1),
    "narrowed": lambda x, y, c: _narrowed(x, c),
    "flat": lambda x, y, c: x.reshape(1, -1),
    "add_": lambda x, y, c: x.add_(c),
    "mul_": lambda x, y, c: x.mul_(_like(x, y).clone()),
    "clamp_": lambda x, y, c: x.clamp_(-1, c),
    "zero_": lambda x, y, c: x[:1].zero_(),
    "copy_": lambda x, y, c: x.copy_(_like(x, y).clone()),
    "column_": lambda x, y, c: x[:, c % 2 :].sub_(1),
    "assign": lambda x, y, c: x.__setitem__((slice(None), slice(None, None, 2)), float(c)) or x,
}


@dataclass(frozen=True)
class Scenario:
    """Inputs, each a (base, view, choice); steps, each an (act, first, second, choice); numbers of values returned."""

    bases: tuple[tuple[int, int], ...]
    dtype: torch.dtype
    inputs: tuple[tuple[int, int, int], ...]
    steps: tuple[tuple[str, int, int, int], ...]
    returned: tuple[int, ...]

    def fresh(self) -> tuple[list[Tensor], list[Tensor]]:
        """Bases, and inputs that are views of them."""
        generator = torch.Generator().manual_seed(0)
        bases = [torch.randn(shape, generator=generator).to(self.dtype) for shape in self.bases]
        views = [VIEWS[view](bases[base % len(bases)], choice) for base, view, choice in self.inputs]
        return bases, views

    def run(self, *inputs: Tensor) -> list[Tensor]:
        values = list(inputs)
        for act, first, second, choice in self.steps:
            values.append(ACTS[act](values[first % len(values)], values[second % len(values)], choice))
        return [values[number % len(values)] for number in self.returned]


_small = st.integers(0, 3)
scenarios = st.builds(
    Scenario,
    st.lists(st.tuples(st.sampled_from((0, 1, 3, 4)), st.sampled_from((1, 3, 6))), min_size=1, max_size=2).map(tuple),
    st.sampled_from((torch.float32, torch.bfloat16)),
    st.lists(st.tuples(_small, st.integers(0, len(VIEWS) - 1), _small), min_size=1, max_size=3).map(tuple),
    st.lists(
        st.tuples(st.sampled_from(sorted(ACTS)), st.integers(0, 6), st.integers(0, 6), _small), min_size=1, max_size=5
    ).map(tuple),
    st.lists(st.integers(0, 7), min_size=1, max_size=3).map(tuple),
)


def shared_memory(tensors: Sequence[Tensor]) -> list[int]:
    """For each tensor the number of the first one in the same memory."""
    places = [one.untyped_storage().data_ptr() for one in tensors]
    return [places.index(place) if one.numel() else -1 for one, place in zip(tensors, places, strict=True)]


def steps_of(x: Tensor) -> list[int]:
    """The strides that matter: of dimensions with more than one element, where there are any."""
    return [step for size, step in zip(x.shape, x.stride(), strict=True) if size > 1] if x.numel() else []


def call_compiled(scenario: Scenario, inputs: list[Tensor], backend: Any) -> list[Tensor]:
    """The results; rejects what AOTAutograd cannot do with any backend (views without elements of shared inputs)."""
    torch._dynamo.reset()
    try:
        compiled: Any = torch.compile(scenario.run, backend=backend)
        return compiled(*inputs)
    except (AssertionError, RuntimeError):
        if backend == "aot_eager":
            reject()
        call_compiled(scenario, scenario.fresh()[1], "aot_eager")
        raise


@settings(max_examples=60, phases=(Phase.explicit, Phase.generate))
@given(scenarios)
def test_what_is_written_returned_and_shared_is_eagers(scenario: Scenario) -> None:
    bases, inputs = scenario.fresh()
    others, copies = scenario.fresh()
    with torch.no_grad():
        try:
            wanted = scenario.run(*inputs)
        except RuntimeError:  # a write to elements that share memory
            reject()
        found = call_compiled(scenario, copies, partial(mpk, options={"target": "sim"}))
    tolerance = 1e-4 if scenario.dtype is torch.float32 else 0.05
    for want, got in zip([*wanted, *bases], [*found, *others], strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)
        assert steps_of(got) == steps_of(want)
    assert shared_memory([*found, *others]) == shared_memory([*wanted, *bases])
