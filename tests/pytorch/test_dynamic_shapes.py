"""Symbolic sizes: a graph stays symbolic, kernels are made for the sizes met, few are kept, each is explained."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch.export import Dim

import mpk_ir
from mpk_ir.core.errors import UsageError
from mpk_ir.pytorch import REPORTS, plan_cache
from mpk_ir.pytorch.backend import mpk
from mpk_ir.pytorch.module import CompiledModule

Tensor = torch.Tensor


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    REPORTS.clear()
    with torch.no_grad():
        yield


class Scorer(torch.nn.Module):
    """Rows of two inputs, a state that all rows change, and a size that is computed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(8, 4)
        self.register_buffer("seen", torch.zeros(4))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.softmax(self.linear(x), -1) + y
        self.get_buffer("seen").add_(z.mean(0))
        return torch.cat([z, z * 2]).reshape(x.shape[0] * 2, 4), z.sum(0) / x.shape[0]


def exported(model: torch.nn.Module) -> CompiledModule:
    rows = Dim("rows", min=2, max=12)
    program = torch.export.export(
        model, (torch.randn(3, 8), torch.randn(3, 4)), dynamic_shapes={"x": {0: rows}, "y": {0: rows}}
    )
    return mpk_ir.compile(program, target="sim")


def test_an_exported_program_runs_at_every_size_and_keeps_its_state() -> None:
    model = Scorer()
    eager, compiled = copy.deepcopy(model), exported(model)
    for rows in (3, 5, 2, 5, 3):
        x, y = torch.randn(rows, 8), torch.randn(rows, 4)
        torch.testing.assert_close(compiled(x, y), eager(x, y))
        torch.testing.assert_close(compiled.state("seen"), eager.get_buffer("seen"))
    assert compiled.recompilations == ["size 0 of argument 0 is 5, was 3", "size 0 of argument 0 is 2, was 5"]


def test_sizes_that_the_program_was_not_exported_for_are_refused() -> None:
    compiled = exported(Scorer())
    with pytest.raises(UsageError, match="is 13, the program was exported for 2 to 12"):
        compiled(torch.randn(13, 8), torch.randn(13, 4))
    with pytest.raises(UsageError, match=r"argument 1: found shape \[1, 4\], expected \[4, 4\]"):
        compiled(torch.randn(4, 8), torch.randn(1, 4))
    with pytest.raises(UsageError, match=r"argument 0: found shape \[4, 9\], expected \[4, 8\]"):
        compiled(torch.randn(4, 9), torch.randn(4, 4))
    with pytest.raises(UsageError, match=r"argument 1: found shape \[2, 4\]"):
        compiled(torch.randn(3, 8), torch.randn(2, 4))
    assert compiled.recompilations == []


def test_dynamic_true_is_one_graph_and_a_kernel_for_each_size() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.softmax(x @ x.T, -1).reshape(-1) * x.shape[0]

    compiled = torch.compile(function, backend=mpk, dynamic=True)
    for rows in (4, 6, 4, 5):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(compiled(x), function(x))
    (graph,) = REPORTS.graphs
    (region,) = graph.regions
    assert region.recompilations == REPORTS.recompilations == 2
    assert region.reasons[0] == "first call"
    assert "is 6, was 4" in region.reasons[1]
    assert "is 5, was 6" in region.reasons[2]


def test_few_kernels_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_cache, "MOST_PLANS", 2)
    compiled = torch.compile(lambda x: torch.tanh(x) * 2, backend=mpk, dynamic=True)
    for rows in (4, 5, 6, 6, 5, 4):
        x = torch.randn(rows, 3)
        torch.testing.assert_close(compiled(x), torch.tanh(x) * 2)
    (region,) = REPORTS.graphs[0].regions
    assert len(region.grids) == 4, "4, 5, 6, and 4 again, which was dropped"


def test_strides_are_symbols_too() -> None:
    compiled = torch.compile(lambda x: torch.exp(x), backend=mpk, dynamic=True)
    for shape in ((4, 6), (5, 7)):
        for x in (torch.randn(shape), torch.randn(shape[::-1]).t()):
            found = compiled(x)
            torch.testing.assert_close(found, torch.exp(x))
            assert found.stride() == torch.exp(x).stride()
