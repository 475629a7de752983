"""`mpk bench` at work: one model after another, everything on one GPU in this process, correctness before time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..codegen.program import Program
from ..core.target import Target
from .floor import floor_ms, step_bytes
from .plans import Plan, compile_all
from .summary import Report, Row, Times

if TYPE_CHECKING:
    from ..runtime.executor import GpuExecutor

IDENTICAL_RUNS, IDENTICAL_STEPS = 20, 16
ENERGY_LAUNCHES = 16
SOAK_STEPS = 64
DELAY_NS = 2000


@dataclass(frozen=True)
class What:
    """What to do for each row. ``check_steps``: steps compared with an fp32 oracle first; ``baselines``: some of
    eager, graph, compile; ``soak`` and ``delayed``: launches of 64 steps without and with random delays; 0 leaves a
    part out."""

    check_steps: int = 8
    timing: bool = True
    baselines: tuple[str, ...] = ()
    soak: int = 0
    delayed: int = 0
    edits: tuple[str, ...] = ()


def measure(
    models: list[str], points: list[tuple[int, int]], target: Target, what: What, done: Callable[[Report], None]
) -> Report:
    """Every model at every (batch, context) of ``points``; ``done`` is called with the report after each row.

    Raises MpkError subclasses.
    """
    import torch

    from .timing import read_bandwidth_tb_s

    plans = [Plan(m, batch=b, context=c, target=target, edits=what.edits) for m in models for b, c in points]
    programs = compile_all(plans)
    report = Report(torch.cuda.get_device_name(), read_bandwidth_tb_s(), nominal_tb_s())
    torch.cuda.empty_cache()
    for row in _rows(list(zip(plans, programs, strict=True)), what, report):
        report = replace(report, rows=(*report.rows, row))
        done(report)
    return report


def nominal_tb_s() -> float:
    """What the memory of GPU 0 could move by its clock and bus width, 10^12 bytes a second."""
    driver: Any = import_module("cuda.bindings.driver")
    names = driver.CUdevice_attribute
    clock, width = names.CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, names.CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH
    khz, bits = (int(driver.cuDeviceGetAttribute(name, 0)[1]) for name in (clock, width))
    return 2 * khz * 1e3 * bits / 8 / 1e12


def _rows(pairs: list[tuple[Plan, Program]], what: What, report: Report) -> Iterator[Row]:
    """Weights are made once for all rows of a model."""
    from .shapes import random_weights, shape_config

    model, weights = "", dict[str, Any]()
    for plan, program in pairs:
        if plan.model != model:
            weights.clear()
            model, weights = plan.model, random_weights(shape_config(plan.model), "cuda")
        yield _row(plan, program, weights, what, report)


def _row(plan: Plan, program: Program, weights: dict[str, Any], what: What, report: Report) -> Row:
    from ..runtime.executor import GpuExecutor
    from .reference import Decoder
    from .shapes import shape_config
    from .timing import LAUNCHES, STEPS, baseline_ms, kernel_ms

    config = shape_config(plan.model)
    read = step_bytes(config, plan.batch, plan.context + STEPS / 2)
    row = Row(plan.model, plan.batch, plan.context, read, floor_ms(read, report.measured_tb_s), None, None, None)
    engine = GpuExecutor(program, weights)
    if what.check_steps:
        row = _checked(row, engine, weights, what.check_steps)
    if what.soak:
        row = replace(row, soak=_soaked(plan, engine, weights, what))
    if what.timing:
        times = Times.of(kernel_ms(engine, plan.context), STEPS)
        measured, nominal = (
            floor_ms(read, rate) / times.median_ms for rate in (report.measured_tb_s, report.nominal_tb_s)
        )
        joules = _joules_per_token(engine, plan)
        row = replace(
            row, mpk=times, fraction_of_measured=measured, fraction_of_nominal=nominal, joules_per_token=joules
        )
    resources = {name: asdict(one) for name, one in engine.compiled.resources.items()}
    facts = {"resources": resources, "tasks": len(program.tasks), "launches_a_row": LAUNCHES, "edits": plan.edits}
    del engine
    if what.baselines:
        found = baseline_ms(Decoder(config, weights), plan.batch, plan.context, compiled="compile" in what.baselines)
        row = replace(row, baselines_ms={name: found[name] for name in what.baselines})
    return replace(row, facts=facts)


def _checked(row: Row, engine: GpuExecutor, weights: dict[str, Any], steps: int) -> Row:
    """With errors against an fp32 oracle, and whether runs from one state leave the same bits."""
    import torch

    from ..executable import Executable
    from .accuracy import check
    from .reference import Decoder
    from .shapes import shape_config
    from .timing import identical_runs

    config = shape_config(row.model)
    generator = torch.Generator().manual_seed(row.batch)
    lengths = range(5, 5 + 3 * row.batch, 3)
    prompts = [torch.randint(0, config.vocab_size, (n,), generator=generator).tolist() for n in lengths]
    rounded = Decoder(config, weights)
    found = check(Executable(engine.program, engine), (rounded.in_fp32(), rounded), prompts, steps)
    same = identical_runs(engine, row.context, IDENTICAL_RUNS, IDENTICAL_STEPS)
    return replace(row, accuracy=asdict(found), identical=same)


def _soaked(plan: Plan, engine: GpuExecutor, weights: dict[str, Any], what: What) -> dict[str, Any]:
    """Launches as they are, then some with delays, from one state to the same bits."""
    from ..runtime.executor import GpuExecutor
    from .soak import Snapshot, soak
    from .timing import set_context

    set_context(engine, plan.context)
    start = Snapshot(engine)
    found = {"plain": asdict(soak(engine, start, what.soak, SOAK_STEPS))}
    end = Snapshot(engine)
    if what.delayed:
        jitter = f"lower-to-cuda{{jitter_ns={DELAY_NS}}}"
        delayed = GpuExecutor(replace(plan, edits=(*plan.edits, jitter)).compile(), weights)
        found["delayed"] = asdict(soak(delayed, start, what.delayed, SOAK_STEPS, end))
    return found


def _joules_per_token(engine: GpuExecutor, plan: Plan) -> float | None:
    """Of the whole GPU while it decodes; the counter moves every 100 ms or so, short models are told coarsely."""
    import torch

    from .energy import energy_counter
    from .timing import STEPS, set_context

    joules = energy_counter(str(torch.cuda.get_device_properties(0).uuid))
    if joules is None:
        return None
    used = 0.0
    for _ in range(ENERGY_LAUNCHES):
        set_context(engine, plan.context)
        before = joules()
        engine.time_steps(STEPS)
        used += joules() - before
    return used / (ENERGY_LAUNCHES * STEPS * plan.batch)
