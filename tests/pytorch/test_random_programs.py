"""Random programs of ATen ops, shapes, dtypes, broadcasting and views, compiled and simulated, against eager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch._decomp import core_aten_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from mpk_ir.core.target import SIM
from mpk_ir.frontend.aten.importer import Roles, import_graph
from mpk_ir.frontend.aten.interface import Imported
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
