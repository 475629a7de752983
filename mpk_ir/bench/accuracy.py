"""Is the kernel as exact as torch? Logits of every step against an fp32 oracle, beside torch's own bf16 error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import UsageError
from ..core.requests import RequestColumn, RowColumn
from ..runtime.executor import GpuExecutor
from .reference import Decoder

if TYPE_CHECKING:
    import torch

    from ..executable import Executable


@dataclass(frozen=True)
class Accuracy:
    """Relative errors ‖logits - oracle‖ / ‖oracle‖ per step: the worst, and torch bf16's on the same tokens.

    ``wrong``: greedy tokens that differ from the oracle's although its two best logits are further apart than the
    noise of bf16 (twice torch's largest error of a logit in that row).
    """

    steps: int
    worst_ratio: float
    mean_error: float
    mean_torch_error: float
    wrong: int
    near_ties: int


def check(executable: Executable, decoders: tuple[Decoder, Decoder], prompts: list[list[int]], steps: int) -> Accuracy:
    """Run ``steps`` steps one launch each, scratch poisoned before each, and compare with (fp32, bf16) decoders."""
    import torch

    engine = executable.engine
    if not isinstance(engine, GpuExecutor):
        raise UsageError(f"accuracy is measured on a GPU, found an engine on {engine.device_name}")
    executable.begin(prompts, steps)
    seen: list[tuple[int, int, np.ndarray]] = []
    for _ in range(steps):
        rows = engine.read_state("rows")
        count = int(engine.read_state("row_count")[0])
        engine.poison()
        for part in engine.ranks:
            part.tensor(engine.program.buffer("logits")).fill_(float("nan"))
        torch.cuda.synchronize()
        engine.run(1)
        logits = np.concatenate([engine.read_state("logits", part.rank) for part in engine.ranks], axis=1)
        for row in range(count):
            request, position = int(rows[row, RowColumn.REQUEST]), int(rows[row, RowColumn.POSITION])
            seen.append((request, position, logits[row].copy()))
    history, requests = engine.read_state("history"), engine.read_state("requests")
    return _compare(seen, history, requests[:, RequestColumn.KNOWN], decoders)


def _compare(
    seen: list[tuple[int, int, np.ndarray]], history: np.ndarray, known: np.ndarray, decoders: tuple[Decoder, Decoder]
) -> Accuracy:
    import torch

    ratios, errors, torch_errors, wrong, near_ties = [], [], [], 0, 0
    for request in range(len(history)):
        mine = [(position, logits) for owner, position, logits in seen if owner == request]
        tokens = torch.from_numpy(history[request, : known[request]].astype(np.int64))
        exact, rounded = (_all_logits(decoder, tokens) for decoder in decoders)
        for position, logits in mine:
            found = torch.from_numpy(logits).to(exact.device)
            norm = exact[position].norm()
            error = float((found - exact[position]).norm() / norm)
            torch_error = float((rounded[position] - exact[position]).norm() / norm)
            errors.append(error)
            torch_errors.append(torch_error)
            ratios.append(error / torch_error if np.isfinite(error) else float("inf"))
            if found.argmax() != exact[position].argmax():
                best = exact[position].topk(2).values
                noise = 2 * float((rounded[position] - exact[position]).abs().max())
                wrong, near_ties = (wrong + 1, near_ties) if best[0] - best[1] > noise else (wrong, near_ties + 1)
    return Accuracy(len(ratios), max(ratios), float(np.mean(errors)), float(np.mean(torch_errors)), wrong, near_ties)


def wrong_tokens(prompt: list[int], tokens: list[int], decoders: tuple[Decoder, Decoder]) -> list[int]:
    """Which of the greedy ``tokens`` after ``prompt`` are wrong, as indices: another token is best by more than the
    noise of bf16, as in `Accuracy`. Every token is judged on those before it, so that a near-tie decides nothing else.

    ``decoders``: the same weights in (fp32, bf16).
    """
    import torch

    exact, rounded = (_all_logits(decoder, torch.tensor(prompt + tokens)) for decoder in decoders)
    wrong: list[int] = []
    for index, token in enumerate(tokens):
        row = len(prompt) + index - 1
        noise = 2 * float((rounded[row] - exact[row]).abs().max())
        if float(exact[row].max() - exact[row][token]) > noise:
            wrong.append(index)
    return wrong


def _all_logits(decoder: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    """Logits [n, vocab] of a whole sequence."""
    import torch

    device = decoder.embedding.device
    positions = torch.arange(len(tokens), device=device)
    with torch.inference_mode():
        return decoder.forward(tokens[None].to(device), positions, decoder.cache(1, len(tokens)))[0]
