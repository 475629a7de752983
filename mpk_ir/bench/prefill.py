"""`mpk bench --prefill`: a prompt to its first token, checked against fp32, then timed beside torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..codegen.program import Program
from ..core.requests import Int32Array
from ..core.target import Target
from ..executable import Executable
from ..frontend import ModelConfig, StepOptions
from ..prefill import compile_prefill, rows_for, steps_of
from .plans import PAGE_SIZE, ROOM
from .reference import Decoder

if TYPE_CHECKING:
    import torch

    from ..runtime.executor import GpuExecutor

FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
LAUNCHES = 7


@dataclass(frozen=True)
class PromptAccuracy:
    """Relative errors of keys and values of all layers and positions, and of the logits of each prompt's last token,
    all against fp32; beside them those of torch in bf16. ``wrong``: first tokens that differ from fp32's by more than
    the noise of bf16 (`bench.accuracy.Accuracy`). ``logits_error``: None where prompts took several steps, of which the
    last one's logits alone are left."""

    positions: int
    mean_error: float
    mean_torch_error: float
    worst_ratio: float
    logits_error: float | None
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


@dataclass(frozen=True)
class _Errors:
    """Of one prompt: relative errors of keys and values [caches * positions], ours and torch's, and of its logits."""

    mine: FloatArray
    torch: FloatArray
    logits: float | None
    torch_logits: float
    wrong: bool


def check_prompts(
    program: Program, engine: GpuExecutor, decoders: tuple[Decoder, Decoder], prompts: list[list[int]]
) -> PromptAccuracy:
    """Take ``prompts``, scratch poisoned before, and compare with decoders of the same weights in (fp32, bf16)."""
    steps = begin(Executable(program, engine), prompts)
    engine.poison()
    engine.run(steps)
    one_step = sum(map(len, prompts)) <= int(program.metadata["rows"])
    found = [_errors(engine, decoders, prompt, request, one_step) for request, prompt in enumerate(prompts)]
    mine, torch_errors = (np.concatenate([getattr(one, name) for one in found]) for name in ("mine", "torch"))
    logits = [one.logits for one in found if one.logits is not None]
    return PromptAccuracy(
        positions=sum(map(len, prompts)),
        mean_error=float(mine.mean()),
        mean_torch_error=float(torch_errors.mean()),
        worst_ratio=float((mine / torch_errors).max()),
        logits_error=float(np.mean(logits)) if logits else None,
        torch_logits_error=float(np.mean([one.torch_logits for one in found])),
        wrong=sum(one.wrong for one in found),
    )


def _errors(
    engine: GpuExecutor, decoders: tuple[Decoder, Decoder], prompt: list[int], request: int, one_step: bool
) -> _Errors:
    """``one_step``: row ``request`` of the logits is this prompt's; else a later step may have written it."""
    import torch

    pages, chosen = engine.read_state("page_table")[request], engine.read_state("history")[request, len(prompt)]
    (exact, exact_cache), (rounded, rounded_cache) = (_forward(decoder, torch.tensor([prompt])) for decoder in decoders)
    mine, others = list[FloatArray](), list[FloatArray]()
    for name, want, other in _caches(exact_cache, rounded_cache):
        found, norm = _positions(engine.read_state(name), pages, len(prompt)), np.linalg.norm(want, axis=(0, 2))
        mine.append(np.linalg.norm(found - want, axis=(0, 2)) / norm)
        others.append(np.linalg.norm(other - want, axis=(0, 2)) / norm)
    logits = torch.from_numpy(engine.read_state("logits")[request]).to(exact.device) if one_step else None
    noise = 2 * float((rounded - exact).abs().max())
    return _Errors(
        np.concatenate(mine),
        np.concatenate(others),
        None if logits is None else float((logits - exact).norm() / exact.norm()),
        float((rounded - exact).norm() / exact.norm()),
        float(exact.max() - exact[chosen]) > noise,
    )


def _forward(decoder: Decoder, tokens: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """([vocab] logits of the last token, the cache)."""
    import torch

    device, length = decoder.embedding.device, tokens.shape[1]
    cache = decoder.cache(1, length)
    with torch.inference_mode():
        positions = torch.arange(length, device=device)
        return decoder.forward(tokens.to(device), positions, cache, last_only=True)[0, -1], cache


def _caches(exact: Any, rounded: Any) -> Iterator[tuple[str, FloatArray, FloatArray]]:
    for layer in range(exact.keys.shape[0]):
        for name, part in (("k_cache", "keys"), ("v_cache", "values")):
            pair = (getattr(one, part)[layer, 0].float().cpu().numpy() for one in (exact, rounded))
            yield (f"{name}.{layer}", *pair)


def _positions(cache: FloatArray, pages: Int32Array, length: int) -> FloatArray:
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
