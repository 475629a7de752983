"""Transformers' decoders at the sizes people run them: `python -m mpk_ir.bench.families`.

Needs a GPU and transformers. One JSON object a line for each model of `PUBLISHED`, weights drawn at random: greedy
tokens of its one kernel against eager's logits in bf16 and fp32, also where the window of a layer is full; how far its
logits are from fp32's, beside eager's; milliseconds a step at batch 1, of eager too, and the least that its bytes take.

Models are exported and planned side by side in ``--jobs`` processes; the GPU is one model's at a time. Eager's time is
the host's, so it is disturbed by those that still export, ours is not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from os import cpu_count
from statistics import median
from typing import TYPE_CHECKING, Any

from ..core.errors import DeviceError, MpkError, UsageError, did_you_mean
from ..core.memory import Space
from ..frontend import StepOptions
from .exported import CONTEXT, PROMPTS, agreement, model_of, seconds_since
from .floor import floor_ms
from .published import PUBLISHED

if TYPE_CHECKING:
    import torch

    from ..codegen.program import Program
    from ..executable import Executable
    from ..runtime.driver import Device

OPTIONS = StepOptions(batch=1, rows=8, max_length=CONTEXT + 128, page_size=64)
LONG_PROMPT = 560
"""Tokens: more than the window of Gemma 3."""
NEW_TOKENS = 32


@dataclass
class _Worker:
    """What each process is given: whose turn on the GPU it is, and what the GPU reads, 10^12 bytes a second."""

    gpu: Any = None
    reads_tb_s: float = 0.0


_worker = _Worker()


def _start(gpu: Any, reads_tb_s: float) -> None:
    _worker.gpu, _worker.reads_tb_s = gpu, reads_tb_s


def prompts(vocab_size: int) -> list[list[int]]:
    """A short one, and one that fills windows."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return [PROMPTS[0], torch.randint(0, vocab_size, (LONG_PROMPT,), generator=generator).tolist()]


def row_of(name: str) -> dict[str, Any]:
    """One line; with "error" in it if the model fails."""
    row: dict[str, Any] = {"model": name}
    try:
        return _measure(name, row)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return row | {"error": f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})"}


def _measure(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """``row`` with its facts."""
    import torch

    from ..cli.run_command import choose_target
    from ..pytorch.decoder import bind_decoder, decoder_step, plan_decoder
    from ..runtime.cache import KernelCache
    from .timing import kernel_ms

    choice = choose_target("auto")
    model_of(PUBLISHED[name], "meta")  # imports all that it needs: nobody shall wait for that
    with _worker.gpu:
        model = model_of(PUBLISHED[name])
    row["device"] = choice.reason
    begin = time.perf_counter()
    step = decoder_step(model, OPTIONS)
    program = plan_decoder(step, choice.target, OPTIONS).program
    row["export_and_plan_s"] = seconds_since(begin)
    kernel = KernelCache().compile(program.source, program.headers, program.target.arch)
    row["resources"] = {name: vars(one) for name, one in kernel.resources.items()}
    read = step_bytes(model, program, CONTEXT)
    row |= {"gigabytes_a_step": round(read / 1e9, 3), "floor_ms": round(floor_ms(read, _worker.reads_tb_s), 3)}
    with _worker.gpu, torch.no_grad():
        executable = bind_decoder(program, step.weights, _device(choice.device))
        given = prompts(step.vocab_size)
        continued = [executable.generate([prompt], NEW_TOKENS).tokens[0] for prompt in given]
        found = logits(executable, given[0][: OPTIONS.rows])
        row["step_ms"] = round(median(kernel_ms(executable.engine, CONTEXT)), 4)  # pyright: ignore[reportArgumentType]
        del executable
        torch.cuda.empty_cache()
        row["eager_ms"] = round(eager_ms(model, given[1][:CONTEXT]), 3)
        row |= against_eager(model, given, continued, found)
        del model, step
        torch.cuda.empty_cache()
    return row


def _device(device: Device | None) -> Device:
    if device is None:
        raise DeviceError("no GPU to run a step on")
    return device


def step_bytes(model: torch.nn.Module, program: Program, context: int) -> float:
    """Bytes that a step must read: each weight once, but for tables of which it looks up a row, and the keys and values
    of ``context`` positions, as if no layer had a window."""
    import torch

    head: Any = model.get_output_embeddings()  # pyright: ignore[reportCallIssue]
    tables = {id(one.weight) for one in model.modules() if isinstance(one, torch.nn.Embedding)} - {id(head.weight)}
    weights = sum(one.numel() * one.element_size() for one in model.parameters() if id(one) not in tables)
    caches = [one for one in program.buffers if one.space is Space.STATE and len(one.shape) == 4]
    return weights + context * sum(one.shape[1] * one.shape[3] * one.dtype.bytes for one in caches)


def logits(executable: Executable, prompt: list[int]) -> torch.Tensor:
    """[tokens, vocab] float32 of a ``prompt`` that one step takes."""
    import torch

    executable.begin([prompt], 1)
    executable.engine.run(1)
    return torch.from_numpy(executable.engine.read_state("logits"))[: len(prompt), : executable.vocab_size]


def against_eager(
    model: Any, given: list[list[int]], continued: list[list[int]], found: torch.Tensor
) -> Mapping[str, Any]:
    """How the kernel's tokens, and the logits ``found`` of the first prompt, are those of eager; ``model`` is float32
    afterwards."""
    import torch

    ids = torch.tensor([given[0][: len(found)]], device=model.device)
    with torch.no_grad():
        rounded = model(input_ids=ids, use_cache=False).logits[0].float()
        agreed = agreement(model, given, continued)  # makes it float32
        exact = model(input_ids=ids, use_cache=False).logits[0]
    errors = [round(float((one.to(exact.device) - exact).abs().mean()), 5) for one in (found, rounded)]
    spread = round(float(exact.std()), 3)
    return {"agreement": vars(agreed), "mean_error": errors[0], "eager_mean_error": errors[1], "logits_std": spread}


def eager_ms(model: Any, prompt: list[int]) -> float:
    """Milliseconds of a decode step after ``prompt``, as transformers runs it: with a cache that grows."""
    import torch

    from .timing import median_ms

    token = torch.tensor([prompt], device=model.device)
    cache = model(input_ids=token, use_cache=True).past_key_values

    def step() -> None:
        nonlocal token
        token = model(input_ids=token[:, -1:], past_key_values=cache, use_cache=True).logits.argmax(-1)

    for _ in range(3):
        step()
    return median_ms(step, 10)


def measure(names: list[str], jobs: int) -> bool:
    """Print a line for each model as it comes; whether all did and none had a wrong token."""
    from .timing import read_bandwidth_tb_s

    context = get_context("spawn")
    shared = context.Lock(), read_bandwidth_tb_s()
    good = True
    with ProcessPoolExecutor(jobs, context, _start, shared) as pool:
        for done in as_completed([pool.submit(row_of, name) for name in names]):
            row = done.result()
            good &= "error" not in row and row["agreement"]["wrong"] == 0
            print(json.dumps(row), flush=True)
    return good


def main() -> int:
    """Print the lines; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.families", description=__doc__)
    parser.add_argument("--models", default=",".join(PUBLISHED), help="some of them")
    parser.add_argument("--jobs", type=int, default=max(1, (cpu_count() or 1) // 2), help="processes")
    parsed = parser.parse_args()
    import torch

    try:
        names = parsed.models.split(",")
        for name in names:
            if name not in PUBLISHED:
                raise UsageError(f"unknown model '{name}'", advice=did_you_mean(name, PUBLISHED))
        if not torch.cuda.is_available():
            raise DeviceError("no GPU that torch can use", advice="install a torch built with CUDA")
        return 0 if measure(names, min(parsed.jobs, len(names))) else 1
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
