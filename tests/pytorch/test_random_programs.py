"""Random programs of ATen ops, shapes, dtypes, broadcasting and views, compiled and simulated, against eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from mpk_ir.core.target import SIM
from mpk_ir.frontend.aten.importer import Roles, import_graph
from mpk_ir.frontend.aten.interface import Imported
from mpk_ir.pytorch.backend import mpk
from mpk_ir.pytorch.region import Region

from .programs import ProgramPlan, inputs_of, program_plans, run_plan

_TABLE: Any = core_aten_decompositions()


def imported_from(function: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> Imported:
    """``function`` of ``inputs`` as `tg`."""
    return import_graph(make_fx(function, _TABLE, tracing_mode="fake")(*inputs), Roles())


@settings(max_examples=40, phases=(Phase.explicit, Phase.generate))  # shrinking would take minutes
@given(program_plans, st.integers(0, 99))
def test_a_compiled_program_computes_what_eager_computes(plan: ProgramPlan, seed: int) -> None:
    inputs = inputs_of(plan, seed)
    region = Region(imported_from(lambda *xs: run_plan(plan, list(xs)), inputs), SIM, None, {}.__getitem__)
    for again in range(2):
        inputs = inputs_of(plan, seed + again)
        expected = run_plan(plan, inputs)
        (found,) = region(inputs)
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
        exact = run_plan(plan, [one.float() for one in inputs])
        tolerance = 1e-4 if plan.dtype is torch.float32 else 0.06  # eager rounds each op to bf16, a kernel fewer
        torch.testing.assert_close(found.float(), exact, rtol=tolerance, atol=tolerance)


def _nothing(x: torch.Tensor) -> None:
    del x


WRITES: list[Callable[[torch.Tensor], Any]] = [
    _nothing,
    lambda x: x.add_(1),
    lambda x: x[..., ::2].mul_(2),
    lambda x: x.reshape(-1)[:1].zero_(),
    lambda x: x.copy_(x.flip(0)),
]
LAYOUTS: list[Callable[[torch.Tensor], torch.Tensor]] = [
    lambda x: x,
    lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],  # with gaps
    lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
]


@settings(max_examples=30, phases=(Phase.explicit, Phase.generate))
@given(
    program_plans,
    st.sampled_from((torch.float32, torch.float16, torch.int64)),
    st.sampled_from(WRITES),
    st.sampled_from(LAYOUTS),
    st.integers(0, 99),
)
def test_the_backend_writes_and_returns_what_eager_does(
    plan: ProgramPlan, dtype: torch.dtype, write: Any, layout: Any, seed: int
) -> None:
    """Inputs written in place, in any layout; dtypes that compile, and one that PyTorch keeps."""

    def program(*inputs: torch.Tensor) -> list[torch.Tensor]:
        first = run_plan(plan, list(inputs))
        write(inputs[0])
        return [first, inputs[0][..., :1], run_plan(plan, list(inputs))]

    def fresh() -> list[torch.Tensor]:
        return [layout(x) for x in inputs_of(replace(plan, dtype=dtype), seed)]

    wanted_inputs, found_inputs, traced_inputs = fresh(), fresh(), fresh()
    try:
        wanted = program(*wanted_inputs)
    except RuntimeError:  # an op that has no meaning for integers
        reject()
    with torch.no_grad():
        graph: Any = make_fx(program)(*traced_inputs)
        found = mpk(graph, found_inputs, options={"target": "sim"})(*found_inputs)
    tolerance = 1e-2 if dtype is torch.float16 else 1e-4
    for want, got in zip([*wanted, *wanted_inputs], [*found, *found_inputs], strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance, equal_nan=True, check_stride=True)
    assert found[1].untyped_storage().data_ptr() == found_inputs[0].untyped_storage().data_ptr(), "a view of the input"
