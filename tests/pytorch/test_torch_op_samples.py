"""PyTorch's own op tests as a client: the sample inputs of its op database, through the backend, against eager.

The samples come with the torch wheel and are not ours; they found that clamps at 1 were dropped, for instance.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree

from mpk_ir.frontend.aten.rules import all_rules
from mpk_ir.pytorch import REPORTS
from mpk_ir.pytorch.backend import mpk

pytest.importorskip("expecttest", reason="torch.testing._internal needs expecttest")
from torch.testing._internal.common_methods_invocations import op_db

Sample = Any

MOST_SAMPLES = 3
MOST_ELEMENTS = 200
OPS_A_GRAPH = 12
TOLERANCES = {torch.float32: 2e-4, torch.bfloat16: 4e-2, torch.int64: 1e-5}
LEFT_TO_PYTORCH = {
    "bitwise_and": "bits of integers",
    "bitwise_or": "bits of integers",
    "bitwise_xor": "bits of integers",
    "dropout": "random",
    "div_floor_rounding": "of integers",
    "div_trunc_rounding": "of integers",
    "index_put": "masks and several indices",
    "log_softmax_with_dtype": "float64",
    "max_reduction_with_dim": "no rule",
    "min_reduction_with_dim": "no rule",
    "softmax_with_dtype": "float64",
}


def name_of(op: Any) -> str:
    return "_".join(part for part in (op.name.removeprefix("nn.functional."), op.variant_test_name) if part)


def covered() -> list[Any]:
    """The ops of the database that our table of ATen rules names."""
    bases = {name.split(".")[0] for name in all_rules()}
    return [op for op in op_db if {op.aten_name, op.name.removeprefix("nn.functional.")} & bases]


def samples(op: Any, dtype: torch.dtype, device: str) -> Iterator[Sample]:
    torch.manual_seed(0)
    for sample in op.sample_inputs(device, dtype, requires_grad=False):
        tensors = [x for x in _pytree.tree_leaves((sample.input, sample.args)) if isinstance(x, torch.Tensor)]
        if all(0 < x.numel() <= MOST_ELEMENTS for x in tensors):
            yield sample


def computed(result: Any) -> list[torch.Tensor]:
    """What an op gave, through one op more: views are left to PyTorch where nothing is computed from them."""
    tensors = [x for x in _pytree.tree_leaves(result) if isinstance(x, torch.Tensor)]
    return [torch.where(x, 2, 3) if x.dtype is torch.bool else x * 2 for x in tensors]


def cases(
    ops: Sequence[Any], dtype: torch.dtype, device: str = "cpu"
) -> Iterator[tuple[str, Callable[..., list[torch.Tensor]], list[Any]]]:
    """Each sample as its name, a function of tensors, and these."""
    for op in ops:
        for number, sample in enumerate(itertools.islice(samples(op, dtype, device), MOST_SAMPLES)):
            leaves, spec = _pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
            places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

            def function(
                *tensors: torch.Tensor, op: Any = op, leaves: Any = leaves, spec: Any = spec, at: Any = places
            ):
                mine = list(leaves)
                for place, tensor in zip(at, tensors, strict=True):
                    mine[place] = tensor
                first, args, kwargs = _pytree.tree_unflatten(mine, spec)
                return computed(op.op(first, *args, **kwargs))

            yield f"{name_of(op)}, sample {number}", function, [leaves[place] for place in places]


def groups() -> list[Any]:
    found: list[Any] = []
    for dtype in TOLERANCES:
        known = [op for op in covered() if dtype in op.supported_dtypes("cpu") and name_of(op) not in LEFT_TO_PYTORCH]
        for begin in range(0, len(known), OPS_A_GRAPH):
            name = f"{str(dtype).removeprefix('torch.')}-{name_of(known[begin])}"
            marks = () if dtype is torch.float32 else pytest.mark.slow
            found.append(pytest.param(dtype, known[begin : begin + OPS_A_GRAPH], id=name, marks=marks))
    return found


@pytest.mark.parametrize(("dtype", "ops"), groups())
def test_samples_give_what_eager_gives(dtype: torch.dtype, ops: Sequence[Any]) -> None:
    listed = list(cases(ops, dtype))
    inputs = [tensor for _, _, tensors in listed for tensor in tensors]

    def all_of_them(*tensors: torch.Tensor) -> list[list[torch.Tensor]]:
        rest = iter(tensors)
        return [function(*itertools.islice(rest, len(mine))) for _, function, mine in listed]

    torch._dynamo.reset()
    REPORTS.clear()
    with torch.no_grad():
        expected = all_of_them(*inputs)
        graph: Any = make_fx(lambda *xs: _pytree.tree_leaves(all_of_them(*xs)))(*inputs)
        found = iter(mpk(graph, inputs, options={"target": "sim", "fullgraph": True})(*inputs))
    for (name, _, _), wanted in zip(listed, expected, strict=True):
        for want, got in zip(wanted, itertools.islice(found, len(wanted)), strict=True):
            tolerance = TOLERANCES[dtype] if want.is_floating_point() else 0
            torch.testing.assert_close(
                got, want, rtol=tolerance, atol=tolerance, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}"
            )
    assert [region.fallback for graph in REPORTS.graphs for region in graph.regions] == [None]


@pytest.mark.parametrize("op", [op for op in covered() if name_of(op) in LEFT_TO_PYTORCH], ids=name_of)
def test_what_is_left_to_pytorch_is_said_to_be(op: Any) -> None:
    dtypes = (dtype for dtype in (torch.int64, torch.float32) if dtype in op.supported_dtypes("cpu"))
    listed = [case for dtype in dtypes for case in cases([op], dtype)]
    refused = 0
    for _, function, tensors in listed:
        REPORTS.clear()
        graph: Any = make_fx(lambda *xs, function=function: _pytree.tree_leaves(function(*xs)))(*tensors)
        with torch.no_grad():
            mpk(graph, tensors, options={"target": "sim"})
        refused += bool(REPORTS.graphs[0].breaks)
    assert refused, "all samples compile: take it off the list"
