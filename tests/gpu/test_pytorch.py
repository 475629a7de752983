"""PyTorch models and ops on a GPU through both ways in: transformers decoders, an encoder, and torch's op samples."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree

import mpk_ir
from mpk_ir.bench.exported import agreement
from mpk_ir.executable import Executable
from mpk_ir.frontend import StepOptions
from mpk_ir.pytorch import REPORTS, synchronize
from mpk_ir.pytorch.backend import mpk
from mpk_ir.pytorch.decoder import export_decoder

from ..pytorch.hugging_face import FAMILIES, tiny, transformers
from ..pytorch.test_module import Mixer
from ..pytorch.test_torch_op_samples import LEFT_TO_PYTORCH, TOLERANCES, cases, covered, name_of

pytestmark = pytest.mark.gpu
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
OPS_A_GRAPH = 6
PROMPTS = [[3, 7, 5, 9, 11, 4, 6, 8, 90, 12], [8, 4]]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    REPORTS.clear()
    with torch.no_grad():
        yield
    synchronize()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_generates_what_eager_generates(family: str) -> None:
    """The whole step in one kernel; a token may differ from fp32's only where bf16's noise reaches."""
    model = tiny(family, torch.bfloat16).to("cuda")
    executable = mpk_ir.compile(model, target="auto", batch=2, max_length=48)
    assert isinstance(executable, Executable)
    continued = executable.generate(PROMPTS, 30).tokens
    found = agreement(model, PROMPTS, continued)
    print(f"{family}: {found}")
    assert found.wrong == 0
    assert found.as_fp32 >= 0.8 * found.tokens


@DTYPES
@pytest.mark.parametrize("family", ["gemma2", "qwen3", "gpt2"])
def test_a_step_of_the_static_cache_is_one_kernel(family: str, dtype: torch.dtype) -> None:
    """The exported graph called like the module, not raised."""
    model = tiny(family, dtype).to("cuda")
    step = mpk_ir.compile(export_decoder(model, StepOptions(1, 2, 48, 16)), target="auto")
    prompt, logits = [3, 7, 5, 9], torch.zeros(0)
    for position in range(0, len(prompt), 2):
        ids = torch.tensor([prompt[position : position + 2]], device="cuda")
        logits = step(input_ids=ids, cache_position=torch.arange(position, position + 2, device="cuda"))
    expected = model.float()(input_ids=torch.tensor([prompt], device="cuda")).logits[:, -2:]
    tolerance = 1e-3 if dtype is torch.float32 else 0.1
    torch.testing.assert_close(logits.float(), expected, rtol=tolerance, atol=tolerance)


@DTYPES
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_torch_compile_of_a_decoder(family: str, dtype: torch.dtype) -> None:
    """Prefill without a cache, by torch.compile alone."""
    model = tiny(family, dtype).to("cuda")
    ids = torch.tensor([PROMPTS[0]], device="cuda")
    found = torch.compile(model, backend=mpk)(input_ids=ids, use_cache=False).logits
    expected = model.float()(input_ids=ids, use_cache=False).logits
    tolerance = 1e-3 if dtype is torch.float32 else 0.1
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


@DTYPES
def test_an_encoder(dtype: torch.dtype) -> None:
    sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(vocab_size=500, **sizes)).eval().cuda()
    ids, mask = torch.randint(0, 500, (4, 32), device="cuda"), torch.ones(4, 32, dtype=torch.long, device="cuda")
    mask[1, 20:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    expected = model(**inputs).last_hidden_state
    model = model.to(dtype)
    tolerance = 1e-3 if dtype is torch.float32 else 0.1
    for way in (mpk_ir.compile(model, inputs), torch.compile(model, backend=mpk)):
        found = way(**inputs).last_hidden_state
        torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


@DTYPES
def test_a_network_without_attention(dtype: torch.dtype) -> None:
    model, x = Mixer().eval().cuda(), torch.randn(4, 6, 16, device="cuda")
    expected = model(x.to(dtype).float())
    model, x = model.to(dtype), x.to(dtype)
    tolerance = 1e-3 if dtype is torch.float32 else 0.1
    for way in (mpk_ir.compile(model, (x,)), torch.compile(model, backend=mpk)):
        for want, got in zip(expected, way(x), strict=True):
            torch.testing.assert_close(got.float(), want, rtol=tolerance, atol=tolerance)


def computes(op: Any, dtype: torch.dtype) -> bool:
    """Whether torch's own kernels do: products of integers, for one, exist on the CPU alone."""
    return all(dtype in op.supported_dtypes(device) for device in ("cpu", "cuda"))


def groups() -> list[Any]:
    found: list[Any] = []
    for dtype in TOLERANCES:
        known = [op for op in covered() if computes(op, dtype) and name_of(op) not in LEFT_TO_PYTORCH]
        for begin in range(0, len(known), OPS_A_GRAPH):
            name = f"{str(dtype).removeprefix('torch.')}-{name_of(known[begin])}"
            found.append(pytest.param(dtype, known[begin : begin + OPS_A_GRAPH], id=name))
    return found


@pytest.mark.parametrize(("dtype", "ops"), groups())
def test_torchs_op_samples(dtype: torch.dtype, ops: Sequence[Any]) -> None:
    """Through torch's own samples of its ops, against eager on the same GPU."""
    listed = list(cases(ops, dtype, "cuda"))
    inputs = [tensor for _, _, tensors in listed for tensor in tensors]

    def all_of_them(*tensors: torch.Tensor) -> list[list[torch.Tensor]]:
        rest = iter(tensors)
        return [function(*itertools.islice(rest, len(mine))) for _, function, mine in listed]

    expected = all_of_them(*inputs)
    graph: Any = make_fx(lambda *xs: _pytree.tree_leaves(all_of_them(*xs)))(*inputs)
    found = iter(mpk(graph, inputs)(*inputs))
    wrong: list[str] = []
    for (name, _, _), wanted in zip(listed, expected, strict=True):
        for want, got in zip(wanted, itertools.islice(found, len(wanted)), strict=True):
            tolerance = TOLERANCES[dtype] if want.is_floating_point() else 0
            if dtype is torch.bfloat16 and name.startswith("cumsum"):
                tolerance *= 4  # eager rounds each partial sum
            try:
                torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)
            except AssertionError as error:
                wrong.append(f"{name}: {error}")
    assert not wrong, "\n".join(wrong)
    assert [region.fallback for report in REPORTS.graphs for region in report.regions] == [None]


class Step(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = torch.nn.Linear(64, 128), torch.nn.Linear(128, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


@DTYPES
def test_a_call_can_be_captured_in_a_cuda_graph(dtype: torch.dtype) -> None:
    """Two calls of one region in a graph, replayed many times, with calls outside the graph between replays."""
    model, x = Step().to("cuda", dtype), torch.randn(8, 64, device="cuda", dtype=dtype)
    compiled = torch.compile(model, backend=mpk)

    def twice() -> torch.Tensor:
        return compiled(compiled(x.mT.contiguous().mT))  # one argument is copied

    twice()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = twice()
    tolerance = 1e-3 if dtype is torch.float32 else 0.1
    for _ in range(20):
        x.copy_(torch.randn_like(x))
        graph.replay()
        torch.testing.assert_close(result, model(model(x)), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(compiled(x), model(x), rtol=tolerance, atol=tolerance)
