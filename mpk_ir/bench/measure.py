"""`mpk bench` at work: one model after another, everything on one GPU in this process, correctness before time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from ..codegen.program import Program
from ..core.target import Target
from .floor import floor_ms, step_bytes
from .plans import Plan, compile_all
from .summary import Report, Row, Times

if TYPE_CHECKING:
    from ..runtime.executor import GpuExecutor

IDENTICAL_STEPS = 16
ENERGY_LAUNCHES = 16
SOAK_STEPS = 64
DELAY_NS = 2000


@dataclass(frozen=True)
class What:
    """What to do for each row. ``check_steps``: steps compared with an fp32 oracle first, and whether
    ``identical_runs`` launches leave the same bits; ``baselines``: some of eager, graph, compile; ``soak`` and
    ``delayed``: launches of 64 steps without and with random delays; 0 or False leaves a part out."""

    check_steps: int = 8
    timing: bool = True
    baselines: tuple[str, ...] = ()
    soak: int = 0
    delayed: int = 0
    edits: tuple[str, ...] = ()
    energy: bool = True
    identical_runs: int = 20


def measure(
    models: list[str], points: list[tuple[int, int]], target: Target, what: What, done: Callable[[Report], None]
) -> Report:
    """Every model at every (batch, context) of ``points``; ``done`` is called with the report after each row.

    Raises MpkError subclasses.
    """
    plans = [Plan(m, batch=b, context=c, target=target, edits=what.edits) for m in models for b, c in points]
    with_delays = [_delayed(plan) for plan in plans] if what.soak and what.delayed else []
    programs = compile_all([*plans, *with_delays])
    bench = Bench(what)
    for plan, program, delayed in zip_longest(plans, programs[: len(plans)], programs[len(plans) :]):
        bench.measure(plan, program, delayed)
        done(bench.report)
    return bench.report


def _delayed(plan: Plan) -> Plan:
    return replace(plan, edits=(*plan.edits, f"lower-to-cuda{{jitter_ns={DELAY_NS}}}"))


class Bench:
    """Measures row by row into ``report``, on one GPU. Weights are made once for neighbouring rows of a model."""

    def __init__(self, what: What) -> None:
        import torch

        from .timing import read_bandwidth_tb_s

        self.what = what
        self.report = Report(torch.cuda.get_device_name(), read_bandwidth_tb_s(), nominal_tb_s())
        torch.cuda.empty_cache()
        self._model, self._weights = "", dict[str, Any]()

    def measure(self, plan: Plan, program: Program, delayed: Program | None = None) -> Row:
        """The row of ``plan``, compiled to ``program``; ``delayed`` is the same with random delays, for a soak.

        Raises what running it raises.
        """
        from .shapes import random_weights, shape_config

        if plan.model != self._model:
            self._weights.clear()
            self._model, self._weights = plan.model, random_weights(shape_config(plan.model), "cuda")
        row = _row(plan, (program, delayed), self._weights, self.what, self.report)
        self.report = replace(self.report, rows=(*self.report.rows, row))
        return row


def nominal_tb_s() -> float:
    """What the memory of GPU 0 could move by its clock and bus width, 10^12 bytes a second."""
    driver: Any = import_module("cuda.bindings.driver")
    names = driver.CUdevice_attribute
    clock, width = names.CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, names.CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH
    khz, bits = (int(driver.cuDeviceGetAttribute(name, 0)[1]) for name in (clock, width))
    return 2 * khz * 1e3 * bits / 8 / 1e12


def _row(
    plan: Plan, programs: tuple[Program, Program | None], weights: dict[str, Any], what: What, report: Report
) -> Row:
    from ..runtime.executor import GpuExecutor
    from .reference import Decoder
    from .shapes import shape_config
    from .timing import LAUNCHES, STEPS, baseline_ms, kernel_ms

    config = shape_config(plan.model)
    read = step_bytes(config, plan.batch, plan.context + STEPS / 2)
    row = Row(plan.model, plan.batch, plan.context, read, floor_ms(read, report.measured_tb_s), None, None, None)
    program, delayed = programs
    engine = GpuExecutor(program, weights)
    if what.check_steps:
        row = _checked(row, engine, weights, what)
    if what.soak:
        row = replace(row, soak=_soaked(plan, engine, delayed, weights, what))
    if what.timing:
        times = Times.of(kernel_ms(engine, plan.context), STEPS)
        measured, nominal = (
            floor_ms(read, rate) / times.median_ms for rate in (report.measured_tb_s, report.nominal_tb_s)
        )
        joules = _joules_per_token(engine, plan) if what.energy else None
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


def _checked(row: Row, engine: GpuExecutor, weights: dict[str, Any], what: What) -> Row:
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
    found = check(Executable(engine.program, engine), (rounded.in_fp32(), rounded), prompts, what.check_steps)
    same = identical_runs(engine, row.context, what.identical_runs, IDENTICAL_STEPS)
    return replace(row, accuracy=asdict(found), identical=same)


def _soaked(
    plan: Plan, engine: GpuExecutor, delayed: Program | None, weights: dict[str, Any], what: What
) -> dict[str, Any]:
    """Launches as they are, then some with delays, from one state to the same bits."""
    from ..runtime.executor import GpuExecutor
    from .soak import Snapshot, soak
    from .timing import set_context

    set_context(engine, plan.context)
    start = Snapshot(engine)
    found = {"plain": asdict(soak(engine, start, what.soak, SOAK_STEPS))}
    if delayed is not None:
        end = Snapshot(engine)
        found["delayed"] = asdict(soak(GpuExecutor(delayed, weights), start, what.delayed, SOAK_STEPS, end))
    return found


def _joules_per_token(engine: GpuExecutor, plan: Plan) -> float | None:
    """Of the whole GPU while it decodes; the counter moves every 100 ms or so, short models are told coarsely, or
    not at all."""
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
    return used / (ENERGY_LAUNCHES * STEPS * plan.batch) if used else None
