"""Time per token: our kernel, and torch eager, eager in a CUDA graph, compiled in a CUDA graph, on the same weights."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from ..core.memory import Space
from ..core.requests import Int32Array, RequestColumn, assign_rows
from .reference import Decoder

if TYPE_CHECKING:
    from ..codegen.program import Program
    from ..runtime.executor import GpuExecutor

STEPS = 64
LAUNCHES = 7


def set_context(engine: GpuExecutor, context: int) -> None:
    """Put every request at ``context`` cached positions with one token to compute; caches hold random values."""
    import torch

    program = engine.program
    for buffer in program.buffers:
        if buffer.space is Space.STATE and len(buffer.shape) == 4:
            for rank in engine.ranks:
                random = torch.Generator("cuda").manual_seed(len(buffer.name) + 1000 * rank.rank)
                rank.tensor(buffer).normal_(0.0, 0.5, generator=random)
    torch.cuda.synchronize()
    for name, values in requests_at(program, context).items():
        engine.write_state(name, values)


def requests_at(program: Program, context: int) -> dict[str, Int32Array]:
    """The state of ``program``'s requests, each with ``context`` cached positions and one token to compute: random
    tokens, pages dealt in order."""
    batch, max_length = program.buffer("history").shape
    generator = np.random.default_rng(0)
    history = generator.integers(0, program.metadata["vocab_size"], (batch, max_length)).astype(np.int32)
    requests = np.zeros((batch, len(RequestColumn)), np.int32)
    requests[:, RequestColumn.CACHED] = context
    requests[:, RequestColumn.PROMPT_LENGTH] = requests[:, RequestColumn.KNOWN] = context + 1
    requests[:, RequestColumn.STOP_LENGTH] = max_length
    rows, row_count = np.zeros(program.buffer("rows").shape, np.int32), np.zeros(1, np.int32)
    assign_rows(history, requests, rows, row_count)
    table = program.buffer("page_table").shape
    pages = np.arange(np.prod(table), dtype=np.int32).reshape(table)
    return {"history": history, "requests": requests, "rows": rows, "row_count": row_count, "page_table": pages}


def kernel_ms(engine: GpuExecutor, context: int) -> list[float]:
    """Milliseconds per step of each of ``LAUNCHES`` launches of ``STEPS`` steps that start at ``context``."""
    times: list[float] = []
    for _ in range(LAUNCHES + 1):
        set_context(engine, context)
        times.append(engine.time_steps(STEPS) / STEPS)
    return times[1:]


def identical_runs(engine: GpuExecutor, context: int, runs: int, steps: int) -> bool:
    """Whether ``runs`` launches from the same state leave the same tokens and the same bits in the last logits."""
    seen: set[bytes] = set()
    for _ in range(runs):
        set_context(engine, context)
        engine.poison()
        engine.run(steps)
        seen.add(engine.read_state("history").tobytes() + engine.read_state("logits").tobytes())
    return len(seen) == 1


def _step(decoder: Decoder, batch: int, context: int) -> Callable[[], None]:
    """One decode step with its head and greedy choice, on static buffers."""
    import torch

    device = decoder.embedding.device
    tokens = torch.zeros((batch, 1), dtype=torch.long, device=device)
    positions = torch.full((1,), context, dtype=torch.long, device=device)
    cache = decoder.cache(batch, context + STEPS)

    def step() -> None:
        tokens.copy_(decoder.forward(tokens, positions, cache)[:, -1].argmax(-1, keepdim=True))

    return step


def median_ms(run: Callable[[], None], repeats: int) -> float:
    """Median milliseconds of ``run``."""
    import torch

    times: list[float] = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return median(times)


def graph(step: Callable[[], None]) -> Callable[[], None]:
    """``step`` captured in a CUDA graph."""
    import torch

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.synchronize()
    captured = torch.cuda.CUDAGraph()
    with torch.cuda.graph(captured):
        step()
    return captured.replay


def baseline_ms(decoder: Decoder, batch: int, context: int, *, compiled: bool) -> dict[str, float]:
    """Milliseconds per token of torch at ``context``: eager, graph and, if asked for, compile."""
    import torch

    results: dict[str, float] = {}
    with torch.inference_mode():
        step = _step(decoder, batch, context)
        for _ in range(3):
            step()
        results["eager"] = median_ms(step, 10)
        results["graph"] = median_ms(graph(step), 50)
        if compiled:
            torch._dynamo.reset()  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
            fast = torch.compile(step, options={"coordinate_descent_tuning": True})
            results["compile"] = median_ms(graph(fast), 50)
    return results


def read_bandwidth_tb_s() -> float:
    """What a large read-only sum reaches: the floor to compare with."""
    import torch

    data = torch.empty(4 * 2**30, dtype=torch.uint8, device="cuda").view(torch.float32)
    data.normal_()

    def read() -> None:
        data.sum()

    milliseconds = median_ms(read, 10)
    return data.numel() * 4 / milliseconds / 1e9
