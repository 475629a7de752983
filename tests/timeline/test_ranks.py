"""Ranks on one GPU in one trace: a track for each SM of each rank."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mpk_ir.codegen.abi import ProfilePhase
from mpk_ir.core.errors import UsageError
from mpk_ir.tasks.work import Load
from mpk_ir.timeline.analysis import Analysis, compare
from mpk_ir.timeline.page import write_page
from mpk_ir.timeline.perfetto import write_perfetto
from mpk_ir.timeline.picture import draw_png
from mpk_ir.timeline.simulate import predict
from mpk_ir.timeline.tables import print_comparison
from mpk_ir.timeline.trace import Trace, measured_ranks
from tests.codegen.ranked import ranked_program

RANKS, LOAD, STEPS, DRIFT_US = 4, Load(2, 32), 5, 1.5
PROGRAM = ranked_program(RANKS, "h200", 2, "push")


def profiles() -> np.ndarray:
    """What ranks would record that run as predicted, each rank ``DRIFT_US`` behind the one before."""
    trace = predict(PROGRAM, LOAD)
    times = np.stack([trace.begin, trace.ready, trace.computed, trace.signalled], axis=1)
    late = (np.arange(RANKS) * DRIFT_US)[:, None, None, None] + (np.arange(STEPS) * 1000.0)[None, :, None, None]
    return np.rint((times[None, None] + late) * 1000).astype(np.uint64) + np.uint64(10**18)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return measured_ranks(PROGRAM, profiles(), "GPU", LOAD, "model")


def test_every_rank_has_its_sms_and_all_have_one_clock(trace: Trace) -> None:
    tasks, sms = len(PROGRAM.tasks), PROGRAM.target.num_sms
    assert len(trace.sm) == RANKS * tasks
    assert trace.num_sms == 132
    for rank in range(RANKS):
        mine = slice(rank * tasks, (rank + 1) * tasks)
        np.testing.assert_array_equal(trace.sm[mine], PROGRAM.tasks["sm"] + rank * sms)
        np.testing.assert_allclose(trace.begin[mine] - trace.begin[:tasks], rank * DRIFT_US, atol=0.0011)
    assert trace.sm_name(2 * sms + 5) == "rank 2 SM 5"


def test_a_wait_may_end_on_another_rank_and_only_for_what_ranks_share(trace: Trace) -> None:
    tasks = len(PROGRAM.tasks)
    awaited = Analysis(trace).awaited
    waiting = np.flatnonzero(awaited >= 0)
    crossing = waiting[awaited[waiting] // tasks != waiting // tasks]
    assert len(crossing) > 0, "the last rank is late: the others wait for it"
    shared = np.append(PROGRAM.event_shared, False)
    assert all(
        shared[PROGRAM.tasks["wait_event"][t % tasks, : PROGRAM.tasks["num_waits"][t % tasks]]].any() for t in crossing
    )


def test_viewers_name_ranks(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "t.npz")
    again = Analysis(Trace.load(tmp_path / "t.npz"))
    assert again.trace.facts == trace.facts
    write_perfetto([again], tmp_path / "p.json")
    events = json.loads((tmp_path / "p.json").read_text())["traceEvents"]
    tracks = {(e["pid"], e["args"]["name"]) for e in events if e["name"] == "thread_name"}
    assert tracks == {(r, f"rank {r} SM {s}") for r in range(RANKS) for s in range(33)}
    slices = [e for e in events if e["ph"] == "X"]
    assert all(e["tid"] // 33 == e["pid"] for e in slices)
    write_page([again], tmp_path / "page.html")
    assert '"rank 3 SM 32"' in (tmp_path / "page.html").read_text()


def test_two_measured_traces_are_not_called_predicted(trace: Trace) -> None:
    shown = StringIO()
    print_comparison(Console(file=shown, width=100), compare(trace, trace), trace.facts.origin)
    assert "compared us" in shown.getvalue()
    assert "redicted" not in shown.getvalue()


def test_a_picture_has_all_ranks_of_all_traces(trace: Trace, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture needs the extra `plot`")
    draw_png([Analysis(trace), Analysis(trace)], tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_overlap_on_and_off_stand_in_one_trace(tmp_path: Path) -> None:
    """A group of tracks for each rank of each; without overlap the ranks wait, which is drawn."""
    analyses = [Analysis(predict(ranked_program(2, "h200", 2, one), LOAD, f"overlap {one}")) for one in ("push", "off")]
    joined = [replace(one.trace, facts=replace(one.trace.facts, ranks=2)) for one in analyses]
    write_perfetto([Analysis(one) for one in joined], tmp_path / "p.json")
    events = json.loads((tmp_path / "p.json").read_text())["traceEvents"]
    named = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert [named[pid].split(" on ")[0] for pid in range(4)] == [
        f"rank {rank}: overlap {one}" for one in ("push", "off") for rank in range(2)
    ]
    waits = [sum(e["dur"] for e in events if e["name"] == "wait" and e["pid"] // 2 == which) for which in range(2)]
    assert waits[0] < waits[1]
    arrows = [(e["id"], e["ph"]) for e in events if e["ph"] in "sf"]
    assert len(set(arrows)) == len(arrows)


def test_a_hole_is_told_with_its_rank() -> None:
    holes = profiles()
    holes[2, 1, 0, ProfilePhase.READY] = 0
    with pytest.raises(UsageError, match="of rank 2 has 1 empty records"):
        measured_ranks(PROGRAM, holes, "GPU", LOAD)
