"""`python -m mpk_ir.bench.schedules`: the step's predicted time by scheduling pass; needs no GPU."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from xdsl.context import Context
from xdsl.passes import ModulePass

from ..codegen.emit import emit
from ..compiler import attach_metadata
from ..core.dtype import BF16
from ..core.errors import MpkError
from ..core.target import target_of
from ..frontend import StepOptions, build_step
from ..passes.sm.schedule import Schedule
from ..passes.sm.schedule_list import ScheduleList
from ..pipeline import lowering_passes, plan_passes, tensor_passes
from ..tasks.work import Load
from ..timeline.record import PAGE_SIZE, ROOM, Point
from ..timeline.simulate import predict
from .shapes import shape_config


def step_us(point: Point, schedule: ModulePass) -> float:
    """The predicted step of ``point``, its tasks placed by ``schedule``."""
    config = replace(point.config, dtype=BF16)
    options = StepOptions(point.batch, max(8, point.batch), point.context + ROOM, PAGE_SIZE)
    module = build_step(config, options)
    attach_metadata(module, options, config.vocab_size)
    for one in (*tensor_passes(), *plan_passes(point.target), *lowering_passes()):
        (schedule if isinstance(one, Schedule) else one).apply(Context(), module)
    return predict(emit(module), Load(point.batch, point.context)).facts.step_us


def main() -> int:
    """Exit code 0, or the error's."""
    parser = argparse.ArgumentParser(prog="python -m mpk_ir.bench.schedules", description=__doc__)
    parser.add_argument("--models", default="llama-3.2-1b,qwen3-0.6b,qwen3-8b")
    parser.add_argument("--batches", default="1,4,16")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--target", default="h200")
    options = parser.parse_args()
    print("| model | batch | sm-schedule | without rotation | sm-schedule-list |\n" + "| --- " * 5 + "|")
    try:
        for name in options.models.split(","):
            for batch in map(int, options.batches.split(",")):
                point = Point(name, shape_config(name), batch, options.context, target_of(options.target))
                times = [
                    step_us(point, one) for one in (Schedule(), Schedule(rotate=False), ScheduleList(options.context))
                ]
                cells = [f"{times[0]:.0f}", *(f"{time:.0f} ({time / times[0] - 1:+.1%})" for time in times[1:])]
                print(f"| {name} | {batch} | {' | '.join(cells)} |", flush=True)
    except MpkError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
