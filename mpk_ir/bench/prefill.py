"""`mpk bench --prefill`: a prompt to its first token, checked against fp32, then timed beside torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..codegen.program import Program
from ..core.target import Target
from ..executable import Executable
from ..frontend import ModelConfig, StepOptions
from ..prefill import compile_prefill, rows_for, steps_of
from .plans import PAGE_SIZE, ROOM
from .reference import Decoder

if TYPE_CHECKING:
    import torch

    from ..runtime.engine import Engine

LAUNCHES = 7


@dataclass(frozen=True)
class PromptAccuracy:
    """Relative errors of keys and values of all layers and positions, and of the logits of each prompt's last token,
    all against fp32; beside them those of torch in bf16. ``wrong``: first tokens that differ from fp32's by more than
    the noise of bf16 (`bench.accuracy.Accuracy`)."""

    positions: int
    mean_error: float
    mean_torch_error: float
    worst_ratio: float
    logits_error: float
    torch_logits_error: float
    wrong: int

    @property
    def passed(self) -> bool:
        return self.wrong == 0 and self.mean_error < 1.2 * self.mean_torch_error


@dataclass(frozen=True)
class PrefillRow:
    """Milliseconds from a prompt of ``length`` tokens to its first token: the median and the worst of our launches,
    and torch."""

    model: str
    length: int
    rows: int
    steps: int
    median_ms: float
    worst_ms: float
    baselines_ms: dict[str, float]
    accuracy: PromptAccuracy
    identical: bool
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def line(self) -> str:
        """A row of a Markdown table."""
        torch_ms = ", ".join(f"{name} {value:.2f}" for name, value in self.baselines_ms.items()) or "-"
        found = self.accuracy
        checked = f"{found.positions} positions, error {found.mean_error / found.mean_torch_error:.2f} of torch bf16's"
        checked += f", {found.wrong} wrong, {'identical bits' if self.identical else 'BITS DIFFER'}"
        cells = (self.model, self.length, self.steps, f"{self.median_ms:.3f} ({self.worst_ms:.3f})", torch_ms, checked)
        return f"| {' | '.join(map(str, cells))} |"


COLUMNS = ("model", "tokens", "steps", "ms (worst)", "torch ms", "checked")


def measure_prefill(
    models: Sequence[str], lengths: Sequence[int], target: Target, baselines: Sequence[str]
) -> Iterator[PrefillRow]:
    """Each model at each length, weights drawn at random. Raises MpkError subclasses."""
    from .shapes import random_weights, shape_config

    for model in models:
        config = shape_config(model)
        weights = random_weights(config, "cuda")
        for length in lengths:
            yield _row(model, config, weights, length, plan(config, length, target), baselines)


def plan(config: ModelConfig, length: int, target: Target) -> Program:
    """What takes a prompt of ``length`` tokens, as `mpk run` would plan it."""
    options = StepOptions(1, 8, min(length + ROOM, config.max_positions), PAGE_SIZE)
    return compile_prefill(config, target, options, rows_for([length]))


def _row(
    model: str,
    config: ModelConfig,
    weights: dict[str, torch.Tensor],
    length: int,
    program: Program,
    baselines: Sequence[str],
) -> PrefillRow:
    from dataclasses import asdict

    from ..runtime.executor import GpuExecutor

    engine = GpuExecutor(program, weights)
    prompt = np.random.default_rng(length).integers(0, config.vocab_size, length).tolist()
    rounded = Decoder(config, weights)
    accuracy = check_prompts(program, engine, (rounded.in_fp32(), rounded), [prompt])
    subject, times, seen = Executable(program, engine), list[float](), set[bytes]()
    steps = begin(subject, [prompt])
    for _ in range(LAUNCHES + 1):
        begin(subject, [prompt])
        times.append(engine.time_steps(steps))
        seen.add(engine.read_state("logits").tobytes() + engine.read_state("history").tobytes())
    facts = {"resources": {name: asdict(one) for name, one in engine.compiled.resources.items()}}
    del engine, subject
    found = baseline_ms(rounded, prompt, baselines)
    median_ms, worst_ms = float(np.median(times[1:])), max(times[1:])
    rows = int(program.metadata["rows"])
    return PrefillRow(model, length, rows, steps, median_ms, worst_ms, found, accuracy, len(seen) == 1, facts)


def begin(subject: Executable, prompts: list[list[int]]) -> int:
    """Hand ``subject`` the prompts; the steps until each has a token."""
    state = subject.begin(prompts, 1)
    return steps_of(state.history, state.requests, state.rows, state.row_count)


def check_prompts(
    program: Program, engine: Engine, decoders: tuple[Decoder, Decoder], prompts: list[list[int]]
) -> PromptAccuracy:
    """Take ``prompts``, scratch poisoned before, and compare with decoders of the same weights in (fp32, bf16)."""
    import torch

    subject = Executable(program, engine)
    steps = begin(subject, prompts)
    poison = getattr(engine, "poison", None)
    if poison is not None:
        poison()
    engine.run(steps)
    errors, torch_errors = list[np.ndarray[Any, Any]](), list[np.ndarray[Any, Any]]()
    logits, torch_logits, wrong = list[float](), list[float](), 0
    history, tables = engine.read_state("history"), engine.read_state("page_table")
    order = list(_rows_at_end(prompts, int(program.metadata["rows"])))
    for request, prompt in enumerate(prompts):
        tokens = torch.tensor([prompt])
        exact, rounded = (_forward(decoder, tokens) for decoder in decoders)
        for name, want, other in _caches(exact[1], rounded[1]):
            mine = _positions(engine.read_state(name), tables[request], len(prompt))
            norm = np.linalg.norm(want, axis=(0, 2))
            errors.append(np.linalg.norm(mine - want, axis=(0, 2)) / norm)
            torch_errors.append(np.linalg.norm(other - want, axis=(0, 2)) / norm)
        torch_logits.append(float((rounded[0] - exact[0]).norm() / exact[0].norm()))
        if request in order:  # the step that ended its prompt was the last one, which wrote the logits
            found = torch.from_numpy(engine.read_state("logits")[order.index(request)]).to(exact[0].device)
            logits.append(float((found - exact[0]).norm() / exact[0].norm()))
        noise = 2 * float((rounded[0] - exact[0]).abs().max())
        wrong += int(float(exact[0].max() - exact[0][history[request, len(prompt)]]) > noise)
    all_errors, all_torch = np.concatenate(errors), np.concatenate(torch_errors)
    return PromptAccuracy(
        sum(map(len, prompts)),
        float(all_errors.mean()),
        float(all_torch.mean()),
        float((all_errors / all_torch).max()),
        float(np.mean(logits)) if logits else float("nan"),
        float(np.mean(torch_logits)),
        wrong,
    )


def _rows_at_end(prompts: list[list[int]], rows: int) -> Iterator[int]:
    """Requests in the order of the logits, if one step takes all prompts; else none: rows of several steps mix."""
    if sum(map(len, prompts)) <= rows:
        yield from range(len(prompts))


def _forward(decoder: Decoder, tokens: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """([vocab] logits of the last token, the cache)."""
    import torch

    device, length = decoder.embedding.device, tokens.shape[1]
    cache = decoder.cache(1, length)
    with torch.inference_mode():
        positions = torch.arange(length, device=device)
        return decoder.forward(tokens.to(device), positions, cache, last_only=True)[0, -1], cache


def _caches(exact: Any, rounded: Any) -> Iterator[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    for layer in range(exact.keys.shape[0]):
        for name, part in (("k_cache", "keys"), ("v_cache", "values")):
            pair = (getattr(one, part)[layer, 0].float().cpu().numpy() for one in (exact, rounded))
            yield (f"{name}.{layer}", *pair)


def _positions(cache: np.ndarray[Any, Any], pages: np.ndarray[Any, Any], length: int) -> np.ndarray[Any, Any]:
    """[kv_heads, length, head_dim] of a paged ``cache``."""
    mine = cache[pages].transpose(1, 0, 2, 3)
    return mine.reshape(mine.shape[0], -1, mine.shape[3])[:, :length]


def baseline_ms(decoder: Decoder, prompt: list[int], names: Sequence[str]) -> dict[str, float]:
    """Milliseconds of torch from ``prompt`` to the next token: some of eager, graph, compile (in a CUDA graph)."""
    import torch

    from .timing import graph, median_ms

    device = decoder.embedding.device
    tokens, positions = torch.tensor([prompt], device=device), torch.arange(len(prompt), device=device)
    cache, chosen = decoder.cache(1, len(prompt)), torch.zeros(1, dtype=torch.long, device=device)

    def step() -> None:
        chosen.copy_(decoder.forward(tokens, positions, cache, last_only=True)[:, -1].argmax(-1))

    runs: dict[str, Callable[[], Callable[[], None]]] = {
        "eager": lambda: step,
        "graph": lambda: graph(step),
        "compile": lambda: graph(torch.compile(step)),
    }
    with torch.inference_mode():
        return {name: median_ms(runs[name](), 10) for name in names}
