"""An exported transformers model beside the config-driven path: `python -m mpk_ir.bench.exported`.

Needs a GPU and transformers. One JSON object a line for each model: whether both paths give the same program, and
constants, milliseconds a step of each, and the exported path's greedy tokens against eager's logits in bf16 and fp32.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from ..core.errors import DeviceError, MpkError
from ..core.target import Target

if TYPE_CHECKING:
    import torch

    from ..codegen.program import Program
    from ..executable import Executable
    from ..frontend import StepOptions
    from ..runtime.driver import Device

CONTEXT = 512
PROMPTS = [[3, 7, 5, 9, 11, 4, 6, 8, 90, 12], [8, 4]]


@dataclass(frozen=True)
class Agreement:
    """Of ``tokens`` greedy ones, how many are those of eager in bf16 and in fp32; ``wrong``: how many differ from fp32
    although its two best logits are further apart than bf16's noise, twice eager's largest error in that row;
    ``eager_as_fp32``: after how many of the same prefixes eager in bf16 chooses what it does in fp32."""

    tokens: int
    as_bf16: int
    as_fp32: int
    wrong: int
    eager_as_fp32: int


def model_of(facts: Mapping[str, Any], device: str = "cuda") -> Any:
    """The transformers model for causal language modelling of these values of a config.json, in bf16: matrices, norms
    and biases are drawn at random, and no token ends a text."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    rest = {key: value for key, value in facts.items() if key not in ("architectures", "model_type", "torch_dtype")}
    config = AutoConfig.for_model(facts["model_type"], **rest)
    torch.manual_seed(0)
    with torch.device(device), torch.no_grad():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
        for name, parameter in model.named_parameters():
            is_norm = parameter.dim() == 1 and not name.endswith("bias")
            parameter.normal_(float(is_norm), 0.1 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5)
    model.generation_config.eos_token_id = None
    return model


def agreement(model: Any, prompts: Sequence[Sequence[int]], continued: Sequence[Sequence[int]]) -> Agreement:
    """Eager's choice after each prefix of what the kernel generated; ``model`` is float32 afterwards."""
    import torch

    with torch.inference_mode():
        rounded = [_choices(model, prompt, new) for prompt, new in zip(prompts, continued, strict=True)]
        model.float()
        exact = [_choices(model, prompt, new) for prompt, new in zip(prompts, continued, strict=True)]
    tokens = torch.tensor([token for one in continued for token in one], device=model.device)
    low, high = torch.cat(rounded), torch.cat(exact)
    best = high.topk(2).values
    noise = 2 * (low - high).abs().amax(-1)
    differs = tokens != high.argmax(-1)
    sure = best[:, 0] - best[:, 1] > noise
    as_bf16, as_fp32 = (int((tokens == logits.argmax(-1)).sum()) for logits in (low, high))
    both = int((low.argmax(-1) == high.argmax(-1)).sum())
    return Agreement(len(tokens), as_bf16, as_fp32, int((differs & sure).sum()), both)


def _choices(model: Any, prompt: Sequence[int], new: Sequence[int]) -> torch.Tensor:
    """Logits [new, vocab] float32 of the positions that choose ``new``."""
    import torch

    ids = torch.tensor([[*prompt, *new]], device=model.device)
    return model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()


def compare(name: str, target: Target, device: Device, options: StepOptions) -> dict[str, Any]:
    """One line's facts."""
    import torch

    from .shapes import SHAPES
    from .timing import kernel_ms

    begin = time.perf_counter()
    model = model_of(SHAPES[name])
    row: dict[str, Any] = {"model": name, "device": device.name, "build_s": seconds_since(begin)}
    begin = time.perf_counter()
    exported = _exported(model, target, device, options)
    row["export_s"] = seconds_since(begin)
    continued = exported.generate(PROMPTS[: options.batch], 32).tokens
    row["exported_ms"] = round(median(kernel_ms(_gpu(exported), CONTEXT)), 4)
    program = exported.program
    del exported
    torch.cuda.empty_cache()
    begin = time.perf_counter()
    driven = _config_driven(name, model, target, device, options)
    row["config_s"] = seconds_since(begin)
    row["config_ms"] = round(median(kernel_ms(_gpu(driven), CONTEXT)), 4)
    row["same_tokens"] = driven.generate(PROMPTS[: options.batch], 32).tokens == continued
    row["same_program"] = same_program(program, driven.program)
    row["same_constants"] = same_constants(program, driven.program)
    del driven
    torch.cuda.empty_cache()
    row["ratio"] = round(row["exported_ms"] / row["config_ms"], 4)
    row["agreement"] = vars(agreement(model, PROMPTS[: options.batch], continued))
    return row


def same_program(one: Program, other: Program) -> bool:
    """Whether the kernels have the same source and the same task table."""
    return one.source == other.source and one.tasks.tobytes() == other.tasks.tobytes()


def same_constants(one: Program, other: Program) -> bool:
    """Whether they hold the same bits beside parameters: frequencies, which transformers computes on its device."""
    values = [{name: array.tobytes() for name, array in program.constants.items()} for program in (one, other)]
    return values[0] == values[1]


def _exported(model: Any, target: Target, device: Device, options: StepOptions) -> Executable:
    from ..pytorch.decoder import compile_decoder

    return compile_decoder(model, target, options, device)


def _config_driven(name: str, model: Any, target: Target, device: Device, options: StepOptions) -> Executable:
    from ..compiler import compile_step
    from ..executable import Executable
    from ..runtime.executor import GpuExecutor
    from .shapes import shape_config

    program = compile_step(shape_config(name), target, options).program
    return Executable(program, GpuExecutor(program, model.state_dict(), device), None)


def _gpu(executable: Executable) -> Any:
    return executable.engine


def seconds_since(begin: float) -> float:
    """On `time.perf_counter`, to a tenth."""
    return round(time.perf_counter() - begin, 1)


def main() -> int:
    """Print the lines; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.exported", description=__doc__)
    parser.add_argument("--models", default="qwen3-0.6b,qwen3-8b")
    parser.add_argument("--batch", type=int, default=1)
    parsed = parser.parse_args()
    from ..cli.run_command import choose_target
    from ..frontend import StepOptions

    options = StepOptions(parsed.batch, max(8, parsed.batch), CONTEXT + 128, 64)
    try:
        choice = choose_target("auto")
        if choice.device is None:
            raise DeviceError("no GPU to time a step on")
        for name in parsed.models.split(","):
            print(json.dumps(compare(name, choice.target, choice.device, options)), flush=True)
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
