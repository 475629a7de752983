"""General graphs on a GPU: each task kind of them, f32 and bf16, against eager; and torch.compile on CUDA tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import mpk_ir
from mpk_ir.pytorch.backend import mpk
from mpk_ir.pytorch.module import CompiledModule

pytestmark = pytest.mark.gpu
Tensor = torch.Tensor


class Case(torch.nn.Module):
    """A function of one [6, 5, 40] tensor."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


CASES: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "map": ("map", lambda x: torch.tanh(x) * x[:, :1] + x.mT.mT.exp().clamp(max=3)),
    "transposed": ("map", lambda x: x.permute(2, 0, 1).reshape(40, 30) + 1),
    "integers": ("map", lambda x: torch.where((x > 0) & (x < 1), x, -x)),
    "sum": ("reduce", lambda x: x.sum(1)),
    "amax": ("reduce", lambda x: x.amax(-1, keepdim=True) - x),
    "softmax": ("normalize", lambda x: torch.softmax(x, -1)),
    "softmax_of_rows": ("normalize", lambda x: torch.softmax(x, 0)),
    "layer_norm": ("normalize", lambda x: torch.nn.functional.layer_norm(x, (40,))),
    "argmax": ("argmax", lambda x: x.float().reshape(30, 40).argmax(-1)),
    "bmm": ("matmul", lambda x: x @ x.mT),
    "gather": ("gather", lambda x: x[torch.tensor([3, 0, 5], device=x.device)] * 2),
    "index_copy": ("index_copy", lambda x: x.index_copy(1, torch.tensor([4, 1], device=x.device), x[:, :2]) * 2),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_a_kind_computes_what_eager_computes(name: str, dtype: torch.dtype) -> None:
    kind, function = CASES[name]
    x = torch.randn(6, 5, 40, generator=torch.Generator().manual_seed(0)).to("cuda", dtype)
    compiled = mpk_ir.compile(Case(function), (x,), target="auto")
    assert isinstance(compiled, CompiledModule)
    assert kind in {grid.kind for grid in compiled.program.grids}
    tolerance = 1e-4 if dtype is torch.float32 else 0.05
    for _ in range(2):
        torch.testing.assert_close(compiled(x), function(x), rtol=tolerance, atol=tolerance)


def test_torch_compile_runs_on_cuda_tensors_in_stream_order() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.GELU(), torch.nn.Linear(96, 64)).cuda()
    compiled = torch.compile(model, backend=mpk)
    with torch.no_grad():
        x = torch.randn(8, 64, device="cuda")
        for _ in range(5):
            y = compiled(x)
            torch.testing.assert_close(y, model(x), rtol=1e-4, atol=1e-4)
            x = y * 2
