"""One form for measured and predicted times; what is saved is what is loaded."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpk_ir.bench.shapes import shape_config
from mpk_ir.codegen.abi import ProfilePhase
from mpk_ir.codegen.program import Program
from mpk_ir.core.errors import UsageError
from mpk_ir.core.names import operator_name
from mpk_ir.core.target import H200
from mpk_ir.tasks.work import Load
from mpk_ir.timeline.analysis import Analysis, Cause, compare
from mpk_ir.timeline.page import write_page
from mpk_ir.timeline.perfetto import write_perfetto
from mpk_ir.timeline.record import Point
from mpk_ir.timeline.simulate import predict
from mpk_ir.timeline.trace import Origin, Trace, measured_trace
from tests.timeline.profiles import profile_of

LOAD = Load(1, 64)


@pytest.fixture(scope="module")
def program() -> Program:
    return Point("tiny", shape_config("tiny"), 1, 64, H200).program()


@pytest.fixture(scope="module")
def trace(program: Program) -> Trace:
    return predict(program, LOAD)


def test_a_measured_trace_is_the_step_of_median_length(program: Program, trace: Trace) -> None:
    least = trace.facts.step_us
    found = measured_trace(program, profile_of(trace, [9 * least, least, 3 * least, 2 * least]), "GPU", LOAD)
    assert found.facts.origin is Origin.MEASURED
    assert found.facts.step_us == pytest.approx(2 * least, abs=0.002)
    assert found.facts.steps_us == pytest.approx((least, 2 * least, 3 * least), abs=0.002)
    np.testing.assert_allclose(found.computed, trace.computed, atol=0.0011)


def test_a_profile_that_is_too_short_or_has_holes_is_refused(program: Program, trace: Trace) -> None:
    with pytest.raises(UsageError, match="3 or more steps, found 2"):
        measured_trace(program, profile_of(trace, [5.0]), "GPU", LOAD)
    holes = profile_of(trace, [5.0, 5.0, 5.0])
    holes[2, 3, ProfilePhase.READY] = 0
    name = program.grids[program.tasks["grid"][3]].name
    with pytest.raises(UsageError, match=rf"1 empty records, .* ready of task 3 of grid '{name}' .* in step 2"):
        measured_trace(program, holes, "GPU", LOAD)


def test_what_is_saved_is_loaded(trace: Trace, tmp_path: Path) -> None:
    trace.save(tmp_path / "a.npz")
    again = Trace.load(tmp_path / "a.npz")
    assert again.facts == trace.facts
    assert again.grids == trace.grids
    for name in ("grid", "index", "sm", "waits", "signals"):
        np.testing.assert_array_equal(getattr(again, name), getattr(trace, name))
    for name in ("begin", "ready", "computed", "signalled"):
        np.testing.assert_allclose(getattr(again, name), getattr(trace, name), atol=0.00051)
    again.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize("damage", ["missing", "no zip", "no trace", "version"])
def test_a_file_that_is_no_trace_is_named(damage: str, trace: Trace, tmp_path: Path) -> None:
    file = tmp_path / "x.npz"
    if damage == "no zip":
        file.write_bytes(b"hello")
    elif damage == "no trace":
        np.savez(file, a=np.zeros(3))
    elif damage == "version":
        trace.save(file)
        with np.load(file) as arrays:
            kept = dict(arrays)
        kept["text"] = np.array(re.sub('"version": [0-9]+', '"version": 999', str(kept["text"])))
        np.savez(file, **kept)
    with pytest.raises(UsageError, match="no readable trace") as caught:
        Trace.load(file)
    assert caught.value.where == str(file)


def test_operators_are_grids_without_their_layers() -> None:
    assert operator_name("layers.12.mlp.down_proj") == "layers.mlp.down_proj"
    assert operator_name("attention") == operator_name("attention.4") == "attention"
    assert operator_name("attention.4.merge") == "attention.merge"


def test_a_trace_compared_with_itself_has_no_error(trace: Trace) -> None:
    rows = compare(trace, trace)
    assert rows[-1].name == "step"
    assert all(row.error == 0.0 for row in rows if row.measured_us)
    slower = replace(trace, facts=replace(trace.facts, step_us=2 * trace.facts.step_us))
    assert compare(trace, slower)[-1].error == -0.5


def test_the_critical_path_runs_from_the_begin_to_the_last_signal(trace: Trace) -> None:
    path = Analysis(trace).critical_path
    assert path[0].cause is Cause.STEP
    assert path[-1].task == int(trace.signalled.argmax())
    assert all(link.cause is not Cause.STEP for link in path[1:])
    ends = [trace.computed[link.task] for link in path]
    assert ends == sorted(ends)


def test_exposed_waits_name_what_they_wait_for(trace: Trace) -> None:
    waits = {row.operator: row for row in Analysis(trace).exposed_waits(limit=99)}
    assert waits["select"].waits_for == "embed_tokens", "the head, whose tasks say which of their columns is largest"
    assert waits["advance"].waits_for == "select", "polled data comes by memory, though both run on one SM"
    assert "embedding" not in waits, "nothing of the step comes before it"


def test_perfetto_gets_a_track_for_each_sm_and_arrows_in_pairs(trace: Trace, tmp_path: Path) -> None:
    analysis = Analysis(trace)
    write_perfetto([analysis], tmp_path / "p.json")
    events = json.loads((tmp_path / "p.json").read_text())["traceEvents"]
    names = {event["tid"] for event in events if event.get("name") == "thread_name"}
    assert names == set(range(trace.num_sms))
    assert sum(event["ph"] == "X" and event["name"] != "wait" for event in events) == len(trace.sm)
    starts, ends = ([event["id"] for event in events if event["ph"] == phase] for phase in "sf")
    assert starts == ends == list(range(len(analysis.critical_path) - 1))
    slices = [event for event in events if event["ph"] == "X"]
    for arrow in (event for event in events if event["ph"] in "sf"):
        assert any(
            one["tid"] == arrow["tid"] and one["ts"] <= arrow["ts"] <= one["ts"] + one["dur"] for one in slices
        ), "an arrow outside every slice is not drawn"


def test_the_page_holds_its_data_and_loads_nothing(trace: Trace, tmp_path: Path) -> None:
    odd = replace(trace, facts=replace(trace.facts, program="</script><b>"))
    write_page([Analysis(odd), Analysis(trace)], tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    data = json.loads(text.split('type="application/json">')[1].split("</script>")[0])
    assert [one["title"].startswith("</script><b>") for one in data["traces"]] == [True, False]
    assert len(data["traces"][0]["begin"]) == len(trace.sm)
    assert data["traces"][1]["sm"] == sorted(data["traces"][1]["sm"]), "the page bisects each SM's tasks"
    assert not re.search(r"https?://|src=|@import", text)
