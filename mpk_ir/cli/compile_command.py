"""`mpk compile`: any level of a model's compilation, to a file. Needs no GPU and, given a config, no weights."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import UsageError
from ..core.target import TARGETS, target_of
from .arguments import Parser, add_capacity, one_of, positive_int, target_name

if TYPE_CHECKING:
    from ..compiler import Compilation
    from ..runtime.nvrtc import CompiledKernel

SUMMARY = "compile a checkpoint, or a config alone, and write any level of it"
PLAN_LEVELS = ("tg", "sm")
EMITS = (*PLAN_LEVELS, "cuda", "cu", "cubin", "program")
DEFAULT_LENGTH = 2048
SEARCH_CONTEXT = 512
"""Positions in each cache for which a search ranks plans."""


def parser() -> Parser:
    """The command's options."""
    parser = Parser(prog="mpk compile", description=SUMMARY)
    parser.add_argument("model", type=Path, help="checkpoint folder, or a config.json")
    parser.add_argument("--target", type=target_name, default="h200", help=f"{', '.join(TARGETS)} (default: h200)")
    parser.add_argument(
        "--emit",
        type=one_of("--emit", *EMITS),
        default="program",
        help=f"{', '.join(EMITS)} (default: program, a folder that holds all)",
    )
    parser.add_argument("-o", "--output", type=Path, help="where to write; text goes to stdout without it")
    parser.add_argument("--stats", type=Path, metavar="FILE", help="write counts and seconds as one JSON object")
    parser.add_argument("--batch", type=positive_int, default=1, metavar="N", help="requests served at once (1)")
    parser.add_argument(
        "--max-length", type=positive_int, metavar="N", help="positions of a request (2048 or the model's)"
    )
    parser.add_argument("--search", action="store_true", help="search for tiles on the timeline simulator (a minute)")
    add_capacity(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Compile and write. Raises MpkError subclasses."""
    if arguments.output is None and arguments.emit in ("cubin", "program"):
        raise UsageError(f"--emit {arguments.emit} writes no text", advice="say where with -o")
    target = target_of(arguments.target)
    if arguments.emit not in PLAN_LEVELS or arguments.stats:
        target.require_kernel()
    from ..compiler import compile_model
    from ..frontend import StepOptions, load_config
    from ..tasks.work import Load
    from .progress import Progress

    progress = Progress()
    length = arguments.max_length or min(DEFAULT_LENGTH, load_config(arguments.model).max_positions)
    rows = arguments.rows or max(8, arguments.batch)
    options = StepOptions(arguments.batch, rows, length, arguments.page_size)
    search = Load(arguments.batch, min(SEARCH_CONTEXT, length - 1)) if arguments.search else None
    with progress.stage("plan", "planning"):
        compilation = compile_model(arguments.model, target, options, search)
    kernel, nvrtc_seconds = None, 0.0
    if arguments.emit == "cubin" or arguments.stats:
        with progress.stage("nvrtc", "compiling the kernel"):
            kernel, nvrtc_seconds = _compile_kernel(compilation)
    _write(compilation, kernel, arguments.emit, arguments.output)
    if kernel is not None:
        resources = _resources(compilation, kernel)
        progress.say(", ".join(f"{name.replace('_', ' ')} {value:,}" for name, value in resources.items()))
        if arguments.stats:
            stats = compilation.stats() | {"resources": resources}
            stats["seconds"] = {**stats["seconds"], "nvrtc": nvrtc_seconds}
            arguments.stats.write_text(json.dumps(stats, indent=1) + "\n")
    return 0


def _resources(compilation: Compilation, kernel: CompiledKernel) -> dict[str, int]:
    """What the kernel uses: registers of a thread, bytes that it spills, shared memory of a block."""
    launch = compilation.program.launch
    return asdict(kernel.resources[launch.kernel]) | {"dynamic_shared_bytes": launch.shared_bytes}


def _compile_kernel(compilation: Compilation) -> tuple[CompiledKernel, float]:
    from ..runtime.cache import KernelCache

    program, begin = compilation.program, time.perf_counter()
    kernel = KernelCache().compile(program.source, program.headers, program.target.arch)
    return kernel, time.perf_counter() - begin


def _write(compilation: Compilation, kernel: CompiledKernel | None, emit: str, output: Path | None) -> None:
    if emit == "program":
        assert output is not None, "checked before compiling"
        compilation.program.save(output)
    elif emit == "cubin":
        assert output is not None, "checked before compiling"
        assert kernel is not None, "compiled for this emit"
        output.write_bytes(kernel.cubin)
    else:
        text = compilation.program.source if emit == "cu" else compilation.module_text(emit).rstrip("\n") + "\n"
        if output is None:
            sys.stdout.write(text)
        else:
            output.write_text(text)
