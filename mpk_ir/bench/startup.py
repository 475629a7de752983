"""`python -m mpk_ir.bench.startup`: from a config to a kernel that is loaded, with empty caches and with full ones, and
how weights are packed. Each time in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from ..core.errors import DeviceError, MpkError
from .shapes import shape_config

if TYPE_CHECKING:
    from collections.abc import Generator

    from ..codegen.program import Program
    from ..runtime.executor import GpuExecutor
    from ..runtime.weights import Parameters

LENGTH, PAGE_SIZE, ROWS = 640, 64, 8
PACKINGS = 3
TIMEOUT_S = 300
COLUMNS = ("model", "caches", "imports s", "plan s", "kernel s", "load s", "config to kernel s", "process to kernel s")
PACKING = ("model", "weights from", "GB", "seconds", "GB/s", "more memory at most GB", "of the weights")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Started:
    """Seconds of one process: ``imports``, from its start until all that it needs is imported, torch too; ``context``:
    the GPU's; ``plan``: from config to tables, proof included; ``kernel``: machine code; ``load``: into the GPU;
    ``since_start``: all of that. ``resources`` are those that the assembler tells, and the launch's shared memory."""

    model: str
    caches: str
    imports: float
    context: float
    plan: float
    kernel: float
    load: float
    since_start: float
    tasks: int
    resources: dict[str, int]

    @property
    def config_to_kernel(self) -> float:
        return self.plan + self.kernel + self.load

    def cells(self) -> list[str]:
        """Of `COLUMNS`."""
        seconds = (self.imports, self.plan, self.kernel, self.load, self.config_to_kernel, self.since_start)
        return [self.model, self.caches, *(f"{one:.2f}" for one in seconds)]


@dataclass(frozen=True)
class Packed:
    """Weights brought into the kernel's layout: the least of ``PACKINGS`` times, and by how much the memory of the GPU
    in use grew beyond that of the weights."""

    model: str
    origin: str
    bytes: int
    seconds: float
    peak_bytes: int

    def cells(self) -> list[str]:
        """Of `PACKING`."""
        rate, share = self.bytes / self.seconds / 1e9, self.peak_bytes / self.bytes
        sizes = [f"{self.bytes / 1e9:.2f}", f"{self.seconds:.3f}", f"{rate:.0f}", f"{self.peak_bytes / 1e9:.2f}"]
        return [self.model, self.origin, *sizes, f"{share:.0%}"]


def started(model: str, caches: str, process_start: float) -> tuple[Started, Program]:
    """Config to loaded kernel in this process, which began at ``process_start``. Raises DeviceError without a GPU."""
    import torch

    from ..cli.run_command import choose_target
    from ..frontend import StepOptions
    from ..program_cache import ProgramCache
    from ..runtime.cache import KernelCache
    from ..runtime.driver import Kernel

    imports = time.time() - process_start

    def context() -> Any:
        choice = choose_target("auto")
        if choice.device is None:
            raise DeviceError(f"a kernel is loaded on a GPU; {choice.reason}")
        choice.device.make_current()
        torch.zeros(1, device="cuda")
        return choice

    choice, context_s = _timed(context)
    config, options = shape_config(model), StepOptions(1, ROWS, LENGTH, PAGE_SIZE)
    program, plan = _timed(lambda: ProgramCache().step(config, choice.target, options))
    compiled, kernel = _timed(lambda: KernelCache().compile(program.source, program.headers, program.target.arch))
    shape = program.launch
    _, load = _timed(lambda: Kernel(compiled.cubin, shape.kernel, shape.shared_bytes))
    resources = asdict(compiled.resources[shape.kernel]) | {"dynamic_shared_bytes": shape.shared_bytes}
    since = time.time() - process_start
    seconds = (imports, context_s, plan, kernel, load, since)
    return Started(model, caches, *seconds, len(program.tasks), resources), program


def packed(model: str, program: Program, *, from_host: bool) -> list[Packed]:
    """Random weights packed from the GPU's memory, with ``from_host`` from the host's too, as a checkpoint's are."""
    from ..runtime.executor import GpuExecutor
    from .shapes import random_weights

    weights: dict[str, Any] = random_weights(shape_config(model), "cuda")
    engine = GpuExecutor(program, weights)
    engine.run(1)
    engine.synchronize()
    found = [_packed(model, "GPU", engine, weights)]
    if from_host:
        for name in list(weights):
            weights[name] = weights[name].cpu()
        found.append(_packed(model, "host", engine, weights))
    return found


def _packed(model: str, origin: str, engine: GpuExecutor, weights: Parameters) -> Packed:
    import torch

    from ..runtime.weights import weights_of

    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    seconds = min(_timed(lambda: engine.bind_weights(weights))[1] for _ in range(PACKINGS))
    size = sum(buffer.bytes for buffer in weights_of(engine.program))
    return Packed(model, origin, size, seconds, torch.cuda.max_memory_reserved() - before)


def _timed(work: Callable[[], Result]) -> tuple[Result, float]:
    begin = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begin


def child(model: str, caches: str, process_start: float, *, from_host: bool) -> dict[str, Any]:
    """What one process finds, as plain data."""
    row, program = started(model, caches, process_start)
    packings = packed(model, program, from_host=from_host) if caches == "full" else []
    return {"started": asdict(row), "packed": [asdict(one) for one in packings]}


def measure(model: str, *, from_host: bool) -> tuple[list[Started], list[Packed]]:
    """With empty caches, then with those that this left. Raises DeviceError if a process fails, with what it said."""
    rows: list[Started] = []
    packings: list[Packed] = []
    with _empty_caches() as environment:
        for caches in ("empty", "full"):
            given = ["--child", caches, "--models", model, *(["--from-host"] if from_host else [])]
            command = [sys.executable, "-m", "mpk_ir.bench.startup", *given]
            begin = str(time.time())
            done = subprocess.run(
                [*command, "--process-start", begin],
                env=environment,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
            if done.returncode:
                raise DeviceError(f"{model} with {caches} caches: {done.stderr.strip() or done.returncode}")
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append(Started(**found["started"]))
            packings += [Packed(**one) for one in found["packed"]]
    return rows, packings


@contextmanager
def _empty_caches() -> Generator[dict[str, str]]:
    """An environment whose caches are empty, also the driver's own."""
    with TemporaryDirectory() as folder:
        yield os.environ | {"XDG_CACHE_HOME": folder, "CUDA_CACHE_PATH": str(Path(folder, "driver"))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.startup", description=__doc__)
    parser.add_argument("--models", default="qwen3-0.6b,llama-3.2-1b,qwen3-8b")
    parser.add_argument("--from-host", action="store_true", help="pack weights from host memory too")
    parser.add_argument("--json", type=Path, help="write all rows to this file, after each model")
    parser.add_argument("--child", choices=("empty", "full"), help=argparse.SUPPRESS)
    parser.add_argument("--process-start", type=float, default=time.time(), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    rows: list[Started] = []
    packings: list[Packed] = []
    try:
        if options.child:
            print(json.dumps(child(options.models, options.child, options.process_start, from_host=options.from_host)))
            return 0
        for model in options.models.split(","):
            shape_config(model)
        for model in options.models.split(","):
            found = measure(model, from_host=options.from_host)
            rows, packings = rows + found[0], packings + found[1]
            if options.json:
                data = {"started": [asdict(row) for row in rows], "packed": [asdict(row) for row in packings]}
                options.json.write_text(json.dumps(data, indent=1) + "\n")
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(_table(COLUMNS, [row.cells() for row in rows]))
    print(_table(PACKING, [row.cells() for row in packings]))
    for row in rows:
        print(f"{row.model}: {row.tasks} tasks, {', '.join(f'{n} {v}' for n, v in row.resources.items())}")
    return 0


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


if __name__ == "__main__":
    sys.exit(main())
