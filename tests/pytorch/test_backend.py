"""torch.compile(backend="mpk"): the same values, aliases, mutations and strides as eager, and a report of what ran."""

from __future__ import annotations

import copy
import importlib
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from mpk_ir.core.errors import DeviceError
from mpk_ir.pytorch import REPORTS
from mpk_ir.pytorch.backend import mpk
from tests.project.files import ROOT

from .test_random_aliasing import shared_memory

Tensor = torch.Tensor


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    REPORTS.clear()
    with torch.no_grad():
        yield


def compiled(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return torch.compile(function, backend=mpk, options={"target": "sim", **options})


class Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down, self.norm = torch.nn.Linear(12, 20), torch.nn.Linear(20, 5), torch.nn.LayerNorm(20)
        self.register_buffer("seen", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.softmax(self.down(self.norm(torch.nn.functional.gelu(self.up(x)))), -1)
        self.get_buffer("seen").add_(y.mean(0))
        return y


def test_dynamo_finds_the_backend_by_its_name() -> None:
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    module, _, attribute = entries["torch_dynamo_backends"]["mpk"].partition(":")
    assert getattr(importlib.import_module(module), attribute) is mpk


def test_a_module_is_one_region_and_keeps_its_buffers() -> None:
    model = Mlp()
    eager, found = copy.deepcopy(model), compiled(model)
    for _ in range(2):
        x = torch.randn(4, 12)
        torch.testing.assert_close(found(x), eager(x))
        torch.testing.assert_close(model.get_buffer("seen"), eager.get_buffer("seen"))
    (graph,) = REPORTS.graphs
    assert (len(graph.regions), graph.breaks, REPORTS.recompilations) == (1, [], 0)
    assert len(graph.regions[0].grids) == 1


def test_changed_parameters_are_packed_again() -> None:
    model = torch.nn.Linear(12, 5)
    found, x = compiled(model), torch.randn(3, 12)
    before = found(x)
    model.weight.mul_(2.0)
    torch.testing.assert_close(found(x), model(x))
    assert not torch.equal(before, found(x))


def test_an_op_without_rule_runs_in_pytorch_between_two_regions() -> None:
    def function(x: Tensor) -> Tensor:
        y = torch.tanh(x) * 2
        z = torch.sort(y, -1).values  # the line that breaks the graph
        return torch.relu(z) + 1

    x = torch.randn(3, 7)
    torch.testing.assert_close(compiled(function)(x), function(x))
    (graph,) = REPORTS.graphs
    assert len(graph.regions) == 2
    (broken,) = graph.breaks
    assert "no rule for aten op 'sort.default'" in broken.why
    assert broken.where is not None
    file, _, line = broken.where.rpartition(":")
    assert "the line that breaks the graph" in Path(file).read_text().splitlines()[int(line) - 1]
    assert "2 regions compiled, 1 ops left to PyTorch" in str(graph)


def test_fullgraph_makes_that_an_error_with_the_line() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.sort(x + 1, -1).values

    with pytest.raises(Exception, match=r"test_backend\.py:\d+: fullgraph: no rule for aten op 'sort\.default'"):
        compiled(function, fullgraph=True)(torch.randn(4))


def line_at(where: str | None) -> str:
    file, _, number = (where or ":0").rpartition(":")
    return Path(file).read_text().splitlines()[int(number) - 1]


@pytest.mark.parametrize("asked", [{"fullgraph": True}, {"options": {"fullgraph": True}}])
def test_fullgraph_alone_makes_every_unsupported_op_an_error(asked: dict[str, Any]) -> None:
    def function(x: Tensor) -> Tensor:
        y = torch.relu(x)
        return torch.sort(y, -1).values + torch.sort(x, -1).values

    with pytest.raises(
        Exception, match=r"test_backend\.py:\d+: fullgraph: no rule for aten op 'sort\.default'"
    ) as caught:
        torch.compile(function, backend=mpk, **asked)(torch.randn(4))
    assert "2 ops do not compile; without fullgraph PyTorch runs them" in str(caught.value)
    torch.compile(torch.relu, backend=mpk, **asked)(torch.randn(4))
    assert REPORTS.graphs[-1].breaks == []


def test_an_op_that_its_rule_refuses_breaks_the_graph_alone() -> None:
    def function(x: Tensor, ids: Tensor) -> Tensor:
        y = torch.tanh(x)
        y = torch.index_put(y, (ids,), y[:2], accumulate=True)  # adds up
        return torch.exp(y)

    x, ids = torch.randn(4, 3), torch.tensor([1, 1])
    torch.testing.assert_close(compiled(function)(x, ids), function(x, ids))
    (graph,) = REPORTS.graphs
    assert len(graph.regions) == 2
    assert [region.fallback for region in graph.regions] == [None, None]
    (broken,) = graph.breaks
    assert "index_put.default: index_put by several indices, or that adds up" in broken.why
    assert "# adds up" in line_at(broken.where)


def test_a_shape_that_depends_on_data_is_told_with_its_line() -> None:
    def function(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        chosen = y[y > 0]  # as many as there are
        return chosen * 2

    x = torch.randn(16)
    torch.testing.assert_close(compiled(function)(x), function(x))
    ended = REPORTS.graphs[0].ended_by
    assert ended is not None
    assert "# as many as there are" in line_at(ended.where)
    assert "ends before its function does" in str(REPORTS)
    with pytest.raises(Exception, match=r"test_backend\.py:\d+: .*the shape depends on data") as caught:
        torch.compile(function, backend=mpk, fullgraph=True)(x)
    assert "torch.where instead of masks" in str(caught.value)


def test_tensors_on_two_devices_are_told_with_their_line() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.tanh(x).to("meta") * 2  # leaves the device

    with pytest.raises(
        Exception, match=r"test_backend\.py:\d+: fullgraph: .*tensors on cpu and meta; move them to one"
    ):
        compiled(function, fullgraph=True)(torch.randn(4))


def test_an_argument_on_another_device_is_an_error() -> None:
    with pytest.raises(DeviceError, match="'arg0' is on meta, the program runs on the simulator") as caught:
        compiled(torch.tanh)(torch.randn(4, device="meta"))
    assert "move it to the CPU" in (caught.value.advice or "")


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(Exception, match=r"unknown option 'fullgrap'(.|\n)*did you mean 'fullgraph'"):
        compiled(torch.tanh, fullgrap=True)(torch.randn(4))


def test_recompilations_are_counted_and_explained() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.tanh(x) * 3

    found = compiled(function)
    for rows in (4, 5, 6):
        x = torch.randn(rows, 3)
        torch.testing.assert_close(found(x), function(x))
    first, second = REPORTS.graphs
    assert (first.recompile_of_frame, second.recompile_of_frame) == (0, 1)
    assert "size mismatch at index 0. expected 4, actual 5" in second.why_again()
    assert second.regions[0].recompilations == 1
    assert "size 0 of argument 0 is 6, was 5" in second.regions[0].reasons[1]
    assert REPORTS.recompilations == 2


def _in_place(x: Tensor) -> Tensor:
    x.mul_(2)
    return x + 1


def _view_of_input(x: Tensor) -> Tensor:
    return x.t()[1:]


def _write_through_view(x: Tensor) -> Tensor:
    x[:, 1:3].add_(1)
    return x.sum()


def _argument_back(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x + 1


def _twice(x: Tensor) -> tuple[Tensor, Tensor]:
    y = torch.exp(x)
    return y, y


def _views_of_one_result(x: Tensor) -> tuple[Tensor, ...]:
    y = torch.exp(x)
    return y, y.t(), y[1:].t()[:2], torch.tanh(y[0]), x + 1


def _without_elements(x: Tensor) -> tuple[Tensor, Tensor]:
    return x[:, :0] * 2, torch.cat([x[:, :0], x * 2], 1)


def _integers(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    ids = (x > 0).long()
    return ids.argmax(-1), ids + 3, x > 0


def _truths(x: Tensor) -> tuple[Tensor, ...]:
    ids, others = (x * 3).long(), (x > 0.5).long() * 2
    both, either = torch.logical_and(ids, others), torch.logical_or(ids, others)
    return both.sum(), either.sum(), torch.logical_xor(ids, others) * 2, both & (x > 0)


def _clamps_at_one(x: Tensor) -> tuple[Tensor, ...]:
    return x.clamp(-1, 1) * 2, torch.maximum(x, torch.ones(1)) + 0, torch.remainder(x, 1.0)


CASES: list[Callable[[Tensor], Any]] = [
    _in_place, _view_of_input, _write_through_view, _argument_back, _twice,
    _views_of_one_result, _without_elements, _integers, _truths,
    _clamps_at_one,
]  # fmt: skip


@pytest.mark.parametrize("function", CASES, ids=lambda function: function.__name__.strip("_"))
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "strided"])
def test_values_aliases_and_strides_are_eagers(function: Callable[[Tensor], Any], layout: str) -> None:
    base = torch.randn(6, 8)
    make = {"contiguous": lambda b: b[:4], "transposed": lambda b: b.t()[:6], "strided": lambda b: b[::2, ::2]}[layout]
    bases = base.clone(), base.clone()
    one, other = (make(b) for b in bases)
    expected, found = function(one), compiled(function)(other)
    torch.testing.assert_close(bases[1], bases[0], msg="what was written to the input")
    pairs = [(expected, found)] if isinstance(expected, Tensor) else list(zip(expected, found, strict=True))
    for want, got in pairs:
        torch.testing.assert_close(got, want)
        assert got.dtype == want.dtype
        assert want.numel() == 0 or got.stride() == want.stride()
        shares = (t.untyped_storage().data_ptr() for t in (want, one, got, other))
        want_at, one_at, got_at, other_at = shares
        assert (want_at == one_at) == (got_at == other_at), "whether the result is a view of the input"
    wants, gots = zip(*pairs, strict=True)
    assert shared_memory(gots) == shared_memory(wants), "whether results are views of each other"


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (2, 0, 4)])
def test_inputs_without_elements_are_as_in_eager(shape: tuple[int, ...]) -> None:
    def function(x: Tensor) -> tuple[Tensor, ...]:
        return torch.exp(x) * 2, x.sum(), x.sum(1), torch.cat([x, x + 1]), x.mT @ x, x.new_ones(3) + 1

    x = torch.randn(shape)
    for found, expected in zip(torch.compile(function, backend="mpk")(x), function(x), strict=True):
        torch.testing.assert_close(found, expected)
        assert found.stride() == expected.stride()


def test_gradients_are_left_to_pytorch() -> None:
    model = torch.nn.Linear(3, 2)
    with torch.enable_grad():
        compiled(model)(torch.randn(4, 3)).sum().backward()
    assert model.weight.grad is not None
    assert REPORTS.graphs
    assert all(graph.training for graph in REPORTS.graphs)
    assert "it needs gradients" in str(REPORTS)


def test_unsupported_dtypes_run_in_pytorch() -> None:
    def function(x: Tensor) -> Tensor:
        return torch.tanh(x.double()).float() + 1

    x = torch.randn(5)
    torch.testing.assert_close(compiled(function)(x), function(x))
    assert any("elements of float64" in broken.why for broken in REPORTS.graphs[0].breaks)


def test_a_graph_break_of_python_gives_two_graphs() -> None:
    def function(x: Tensor) -> Tensor:
        y = torch.tanh(x)
        if y.sum() > 0:
            return y + 1
        return y - 1

    x = torch.ones(4)
    torch.testing.assert_close(compiled(function)(x), function(x))
    first, second = REPORTS.graphs
    assert first.ended_by is not None
    assert "if y.sum() > 0" in line_at(first.ended_by.where)
    assert second.ended_by is None


def test_dynamo_marks_no_part_of_a_call_for_the_profiler() -> None:
    """Which takes microseconds without a profiler too; other backends' graphs keep their marks."""

    def function(x: Tensor) -> Tensor:
        return torch.tanh(x) * 2

    def marked(backend: Any) -> bool:
        torch._dynamo.reset()
        call, x = torch.compile(function, backend=backend), torch.randn(3)
        call(x)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            call(x)
        return "Pregraph bytecode" in {event.name for event in profile.events() or ()}

    assert not marked(mpk)
    assert marked("eager")


def test_what_fails_to_compile_leaves_dynamos_settings_alone() -> None:
    with pytest.raises(BackendCompilerFailed):
        compiled(lambda x: torch.sort(x).values, fullgraph=True)(torch.randn(3))
    assert torch._dynamo.config.record_runtime_overhead
