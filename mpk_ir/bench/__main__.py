"""`python -m mpk_ir.bench`: accuracy first, then time per token beside torch, as a table and as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ..core.errors import MpkError
from ..core.target import H200

IDENTICAL_RUNS = 20


@dataclass(frozen=True)
class What:
    """What to measure: steps compared with fp32, our time, torch's time, compiled torch's time."""

    check_steps: int
    timing: bool
    baselines: bool
    compiled: bool
    plain_loads: bool


def measure(name: str, batch: int, context: int, what: What) -> dict[str, Any]:
    """One row: a model shape at a batch and a context, on the GPU."""
    import torch

    from ..compiler import compile_step
    from ..executable import Executable
    from ..frontend import StepOptions
    from ..passes.lower.lower_to_cuda import LowerToCuda
    from ..runtime.executor import GpuExecutor
    from .accuracy import check
    from .reference import Decoder
    from .shapes import random_weights, shape_config
    from .timing import baseline_ms, identical_runs, kernel_ms

    config = shape_config(name)
    options = StepOptions(batch=batch, rows=max(8, batch), max_length=context + 128, page_size=64)
    compilation = compile_step(config, H200, options, LowerToCuda(bulk_loads=not what.plain_loads))
    weights = random_weights(config, "cuda")
    engine = GpuExecutor(compilation.program, weights)
    row: dict[str, Any] = {"model": name, "batch": batch, "context": context}
    if what.check_steps:
        generator = torch.Generator().manual_seed(batch)
        lengths = range(5, 5 + 3 * batch, 3)
        prompts = [torch.randint(0, config.vocab_size, (n,), generator=generator).tolist() for n in lengths]
        decoders = Decoder(config, {k: v.float() for k, v in weights.items()}), Decoder(config, weights)
        row["accuracy"] = vars(
            check(Executable(compilation.program, engine, None), decoders, prompts, what.check_steps)
        )
        row["identical"] = identical_runs(engine, context, IDENTICAL_RUNS, 16)
    if what.timing:
        times = kernel_ms(engine, context)
        row["mpk_ms"], row["mpk_spread_ms"] = median(times), max(times) - min(times)
    row["plan_seconds"] = sum(compilation.seconds.values())
    row["registers"] = {k: v.registers for k, v in engine.compiled.resources.items()}
    del engine
    if what.baselines:
        row["torch_ms"] = baseline_ms(Decoder(config, weights), batch, context, compiled=what.compiled)
    return row


def main() -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench", description=__doc__)
    parser.add_argument("--models", default="qwen3-0.6b,llama-3.2-1b,qwen3-8b")
    parser.add_argument("--batches", default="1")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--check-steps", type=int, default=8, help="steps compared with fp32 before timing")
    parser.add_argument("--baselines", action="store_true", help="time torch too: eager, and eager in a CUDA graph")
    parser.add_argument("--compile", action="store_true", help="with --baselines: torch.compile in a CUDA graph too")
    parser.add_argument("--check-only", action="store_true", help="no timing of our kernel")
    parser.add_argument("--plain-loads", action="store_true", help="no copy engine, for compute-sanitizer racecheck")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    options = parser.parse_args()
    what = What(options.check_steps, not options.check_only, options.baselines, options.compile, options.plain_loads)
    rows: list[dict[str, Any]] = []
    try:
        for name in options.models.split(","):
            for batch in map(int, options.batches.split(",")):
                row = measure(name, batch, options.context, what)
                rows.append(row)
                print(_line(row), flush=True)
                if options.json:
                    options.json.write_text(json.dumps(rows, indent=1) + "\n")
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _line(row: dict[str, Any]) -> str:
    torch_ms = " ".join(f"{name} {value:.3f}" for name, value in row.get("torch_ms", {}).items())
    found = row.get("accuracy")
    exact = "unchecked"
    if found:
        exact = f"{found['steps']} rows, worst error {found['worst_ratio']:.3f} of torch bf16's, {found['wrong']} wrong"
        exact += ", identical bits" if row["identical"] else ", BITS DIFFER"
    spread = f"{row['mpk_ms']:.3f} ms (spread {row['mpk_spread_ms']:.3f})" if "mpk_ms" in row else "untimed"
    return f"{row['model']:14} batch {row['batch']:2} context {row['context']}: {spread}  torch: {torch_ms}  {exact}"


if __name__ == "__main__":
    sys.exit(main())
