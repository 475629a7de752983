"""`python -m mpk_ir.bench.ranks`: steps on several ranks, with and without overlap. Ranks are parts of one GPU; under
torchrun each has a GPU of its own, beside one GPU alone. An fp32 decoder judges tokens before anything is timed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ..codegen.program import Program
from ..core.errors import DeviceError, MpkError
from ..core.ranks import STRATEGIES, Parallel
from .plans import ROOM, Plan, compile_all
from .shapes import shape_config

if TYPE_CHECKING:
    from ..cli.ranks import Ranks
    from ..core.target import Target
    from ..runtime.executor import GpuExecutor
    from .reference import Decoder
    from .soak import Soaked

PROMPT_TOKENS = 9
CONTEXT = 512
"""Positions in each cache, as far as the model has them."""
COLUMNS = ("model", "ranks", "overlap", "ms a step", "least to most", "wrong tokens", "as one rank's", "soak")


@dataclass(frozen=True)
class What:
    """``check_tokens``: greedy tokens to judge; ``soak``: launches of ``soak_steps`` steps that must leave the same
    bits, and a fifth as many with delays of up to ``jitter_ns``, of each plan with overlap. Each may be 0."""

    check_tokens: int
    soak: int
    soak_steps: int
    jitter_ns: int


@dataclass(frozen=True)
class Row:
    """A plan's measurement: ``step_ms`` is the median over launches, ``launch_ms`` what each took per step.
    ``wrong_tokens`` are judged by an fp32 decoder; ``as_one_rank``: how many of them are those of one rank, the tokens
    before the same, which adds in another order."""

    model: str
    ranks: int
    strategy: str
    device: str
    step_ms: float
    launch_ms: list[float]
    wrong_tokens: int | None = None
    as_one_rank: int | None = None
    soaked: dict[str, Soaked] | None = None

    @property
    def passed(self) -> bool:
        return not self.wrong_tokens and all(one.passed for one in (self.soaked or {}).values())


class Bench:
    """A model's weights and judges on this process's GPU; ``ranks`` says which that is, and who the others are."""

    def __init__(self, model: str, ranks: Ranks, what: What) -> None:
        from ..runtime.weight_pool import WeightPool
        from .reference import Decoder
        from .shapes import weights_of

        self.config = shape_config(model)
        self.ranks = ranks
        self.what = what
        self.weights = weights_of(model, self.config, "cuda")
        rounded = Decoder(self.config, self.weights) if what.check_tokens else None
        self.decoders: tuple[Decoder, Decoder] | None = (rounded.in_fp32(), rounded) if rounded else None
        self._of_one: list[int] = []
        self._pool = WeightPool()
        self._before: GpuExecutor | None = None

    def row(self, plan: Plan, program: Program) -> Row:
        """Raises MpkError subclasses."""
        from .timing import kernel_ms

        engine = self._engine(program)
        judged = self._judge(engine) if self.decoders else (None, None)
        times = kernel_ms(engine, plan.context)
        strategy = plan.parallel.strategy
        soaked = self._soak(engine, plan) if self.what.soak and strategy != "off" else None
        return Row(plan.model, plan.ranks, strategy, engine.device_name, median(times), times, *judged, soaked)

    def _engine(self, program: Program) -> GpuExecutor:
        from ..runtime.driver import find_device
        from ..runtime.executor import GpuExecutor

        peers = self.ranks.peers() if program.ranks > 1 else None
        device = find_device(self.ranks.device_ordinal)
        engine = GpuExecutor(program, self.weights, device, peers=peers, pool=self._pool)
        self._before = engine  # the next one, often of the same pieces, finds them packed
        return engine

    def _judge(self, engine: GpuExecutor) -> tuple[int, int]:
        """(wrong tokens, tokens as one rank's up to the first that is not), of greedy ones."""
        from ..executable import Executable
        from .accuracy import wrong_tokens

        assert self.decoders is not None
        prompt = [(7919 * i + 13) % self.config.vocab_size for i in range(PROMPT_TOKENS)]
        found = Executable(engine.program, engine).generate([prompt], self.what.check_tokens).tokens[0]
        self._of_one = self._of_one or found  # one rank comes first
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(found, self._of_one, strict=False)))
        return len(wrong_tokens(prompt, found, self.decoders)), alike

    def _soak(self, engine: GpuExecutor, plan: Plan) -> dict[str, Soaked]:
        from .soak import Snapshot, soak
        from .timing import set_context

        set_context(engine, plan.context)
        start, launches, steps = Snapshot(engine), self.what.soak, self.what.soak_steps
        found = {"plain": soak(engine, start, launches, steps)}
        end = Snapshot(engine)
        if self.what.jitter_ns:
            del engine
            jitter = f"lower-to-cuda{{jitter_ns={self.what.jitter_ns}}}"
            delayed = self._engine(replace(plan, edits=(*plan.edits, jitter)).compile())
            found["delayed"] = soak(delayed, start, max(1, launches // 5), steps, end)
        return found


def plans(models: list[str], counts: list[int], strategies: list[str], target: Target, *, whole: bool) -> list[Plan]:
    """Every model on every number of ranks, with every strategy where there are several."""
    parallel = [Parallel(n, strategy) for n in counts for strategy in (strategies if n > 1 else ["off"])]
    context = {model: min(CONTEXT, shape_config(model).max_positions - ROOM) for model in models}
    return [
        Plan(model, context=context[model], target=target, parallel=one, whole_gpus=whole)
        for model in models
        for one in parallel
    ]


def line(row: Row) -> str:
    """A row of the table."""
    soaked = row.soaked or {}
    told = "; ".join(f"{one.launches} {name}, {len(one.differing)} differ" for name, one in soaked.items())
    cells = [row.model, str(row.ranks), row.strategy if row.ranks > 1 else "", f"{row.step_ms:.4f}"]
    cells += [f"{min(row.launch_ms):.4f} to {max(row.launch_ms):.4f}"]
    cells += ["unchecked" if count is None else str(count) for count in (row.wrong_tokens, row.as_one_rank)]
    cells += [told or "none"]
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0; 1 if a token is wrong or bits differ; or the error's."""
    options = _parser().parse_args(arguments)
    try:
        rows = run(options)
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0 if all(row.passed for row in rows) else 1


def run(options: argparse.Namespace) -> list[Row]:
    """Compile everything, then measure plan by plan. Raises MpkError subclasses."""
    from ..cli.ranks import Ranks
    from ..cli.run_command import choose_target

    choice = choose_target(options.target)
    if choice.device is None:
        raise DeviceError(f"ranks are timed on a GPU; {choice.reason}", advice="mpk_ir.timeline.communication predicts")
    import torch

    ranks = Ranks.of(None, "auto")
    torch.cuda.set_device(ranks.device_ordinal)
    several = ranks.group is not None
    counts = [1, ranks.count] if several else [int(n) for n in options.ranks.split(",")]
    models, strategies = options.models.split(","), options.strategies.split(",")
    asked = plans(models, counts, strategies, choice.target, whole=several)
    compiled = list(zip(asked, compile_all(asked), strict=True))
    what = What(options.check_tokens, options.soak, options.soak_steps, options.jitter_ns)
    rows: list[Row] = []
    _say(ranks, f"| {' | '.join(COLUMNS)} |\n{'| --- ' * len(COLUMNS)}|")
    for model in models:
        bench = Bench(model, ranks, what)
        for plan, program in (pair for pair in compiled if pair[0].model == model):
            rows.append(bench.row(plan, program))
            _say(ranks, line(rows[-1]))
            if options.json and ranks.speaks:
                options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return rows


def _say(ranks: Ranks, text: str) -> None:
    if ranks.speaks:
        print(text, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.ranks", description=__doc__)
    parser.add_argument("--models", default="qwen3-0.6b,qwen3-1.7b")
    parser.add_argument("--ranks", default="1,2,4,8", help="parts of the GPU; under torchrun: 1 and all processes")
    parser.add_argument("--strategies", default="push,two-shot,off", help=f"some of {','.join(STRATEGIES)}")
    parser.add_argument("--check-tokens", type=int, default=32, metavar="N", help="greedy tokens to judge; 0: none")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="launches that must leave the same bits")
    parser.add_argument("--soak-steps", type=int, default=16, metavar="N", help="steps of each of them")
    parser.add_argument("--jitter-ns", type=int, default=0, metavar="N", help="longest delay in a fifth as many more")
    parser.add_argument("--target", default="auto", help="the GPU's own by default")
    parser.add_argument("--json", type=Path, help="write all rows to this file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
