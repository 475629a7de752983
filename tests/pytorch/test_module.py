"""mpk_ir.compile of modules: encoders and graphs that are no transformers, states, and errors that help."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import mpk_ir
from mpk_ir.core.errors import DeviceError, UnsupportedError, UsageError
from mpk_ir.pytorch.module import CompiledModule, check_devices
from mpk_ir.runtime.nvrtc import compile_source

from .hugging_face import transformers

Tensor = torch.Tensor


def compiled(model: torch.nn.Module, *inputs: Tensor) -> CompiledModule:
    made = mpk_ir.compile(model, inputs, target="sim")
    assert isinstance(made, CompiledModule)
    return made


class Counter(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("count").add_(1)
        self.get_buffer("total").add_(x.sum(0))
        return self.get_buffer("total") / self.get_buffer("count")


def test_mutated_buffers_are_states_of_the_kernel() -> None:
    found, model = compiled(Counter(), torch.ones(2, 3)), Counter()
    for _ in range(3):
        x = torch.randn(2, 3)
        torch.testing.assert_close(found(x), model(x))
    torch.testing.assert_close(found.state("total"), model.get_buffer("total"))
    assert int(found.state("count")) == 3
    found.set_state("count", torch.tensor(7))
    assert int(found.state("count")) == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_an_encoder(dtype: torch.dtype) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    model = transformers.BertModel(transformers.BertConfig(vocab_size=50, **sizes)).eval()
    ids, mask = torch.randint(0, 50, (2, 7)), torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    inputs = {"input_ids": ids, "attention_mask": mask}
    found = mpk_ir.compile(model.to(dtype), inputs, target="sim")(**inputs).last_hidden_state
    tolerance = 1e-4 if dtype is torch.float32 else 0.1
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


class Mixer(torch.nn.Module):
    """Products across tokens and across channels, a gate, pooling: no attention."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.channels = torch.nn.Linear(6, 6), torch.nn.Linear(16, 32)
        self.norm, self.head = torch.nn.LayerNorm(16), torch.nn.Linear(16, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = x + self.tokens(self.norm(x).mT).mT
        gate, up = self.channels(y).chunk(2, -1)
        y = y + torch.nn.functional.silu(gate) * up
        return torch.log_softmax(self.head(y.mean(1)), -1), y.flatten(1).amax(1)


def test_a_network_without_attention_compiles_for_the_gpu_too() -> None:
    model, x = Mixer().eval(), torch.randn(4, 6, 16)
    found = compiled(model, x)
    with torch.no_grad():
        for want, got in zip(model(x), found(x), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    from mpk_ir.compiler import compile_module
    from mpk_ir.core.target import H200

    program = compile_module(found.imported.module.clone(), H200).program
    kernel = compile_source(program.source, program.headers, program.target.arch)
    assert kernel.resources[program.launch.kernel].spill_bytes == 0
    assert {"map", "reduce", "normalize", "matmul"} <= {grid.kind for grid in program.grids}


class Sorts(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sort(x + 1).values


class DependsOnData(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[x > 0]


class Branches(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x - 1


@pytest.mark.parametrize(
    ("model", "message", "line"),
    [
        (Sorts(), "no rule for aten op 'sort.default'", "torch.sort(x + 1)"),
        (DependsOnData(), "the shape depends on data", "x[x > 0]"),
        (Branches(), "torch.export cannot trace the model whole", "if x.sum() > 0"),
    ],
)
def test_errors_name_the_users_line(model: torch.nn.Module, message: str, line: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        compiled(model, torch.randn(4))
    assert message in caught.value.message
    file, _, number = (caught.value.where or ":0").rpartition(":")
    with open(file) as source:
        assert line in source.read().splitlines()[int(number) - 1]
    assert caught.value.advice


def test_other_shapes_are_refused() -> None:
    found = compiled(Mixer().eval(), torch.randn(4, 6, 16))
    with pytest.raises(UsageError, match=r"argument 0: found shape \[5, 6, 16\].*compiled for \[4, 6, 16\]"):
        found(torch.randn(5, 6, 16))
    with pytest.raises(UsageError, match=r"argument 0: found a float, compiled for a tensor of shape \[4, 6, 16\]"):
        found(3.0)
    with pytest.raises(UsageError, match="nested or named differently"):
        found(x=torch.randn(4, 6, 16))


def test_mixed_devices_are_refused() -> None:
    tensors: dict[str, Any] = {"a": torch.zeros(1), "b": torch.zeros(1, device="meta")}
    with pytest.raises(DeviceError, match="'a' on cpu, 'b' on meta"):
        check_devices(tensors)
    with pytest.raises(DeviceError, match="'weight' on cpu, 'argument 0' on meta") as caught:
        compiled(torch.nn.Linear(4, 4), torch.randn(2, 4, device="meta"))
    assert "to one device" in (caught.value.advice or "")


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot compile a int"):
        mpk_ir.compile(3, None)  # pyright: ignore[reportCallIssue, reportArgumentType]


class Identity(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def test_a_graph_that_computes_nothing_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="the graph computes nothing"):
        compiled(Identity(), torch.randn(3))


class EdgeCases(torch.nn.Module):
    """Found by PyTorch's own op samples: ranks 0 and 1, and results whose elements share memory."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = x * 2
        return y.argmax(), y[:1].argmax(), y.sum().repeat(()), y[0].expand(3, 2), y[::9], y[0].repeat(2, 2)


def test_edge_cases_of_rank_and_strides() -> None:
    x = torch.randn(5)
    for want, got in zip(EdgeCases()(x), compiled(EdgeCases(), x)(x), strict=True):
        torch.testing.assert_close(got, want, check_stride=False)
