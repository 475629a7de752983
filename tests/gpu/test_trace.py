"""A measured trace tells what the kernel did, and has the form of a prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpk_ir.bench.shapes import random_weights, shape_config
from mpk_ir.core.target import H200
from mpk_ir.timeline.analysis import Analysis, compare
from mpk_ir.timeline.record import Point, record
from mpk_ir.timeline.simulate import predict
from mpk_ir.timeline.trace import Origin, Trace

pytestmark = pytest.mark.gpu


def test_a_step_is_recorded_task_by_task(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a torch built with CUDA")
    point = Point("tiny", shape_config("tiny"), 2, 64, H200)
    trace = record(point, random_weights(point.config, "cuda"))
    assert trace.facts.origin is Origin.MEASURED
    assert trace.facts.unprofiled_us is not None
    assert 0 < trace.facts.unprofiled_us < 10 * trace.facts.step_us
    assert (trace.begin <= trace.ready).all()
    assert (trace.ready <= trace.computed).all()
    assert (trace.computed <= trace.signalled).all()
    same_sm = trace.sm[1:] == trace.sm[:-1]
    assert (trace.begin[1:] >= trace.computed[:-1])[same_sm].all()
    assert trace.computed.max() < trace.facts.step_us
    path = Analysis(trace).critical_path
    assert path[-1].task == int(np.argmax(trace.signalled))
    predicted = predict(point.program(), point.load, "tiny")
    rows = compare(predicted, trace)
    assert {row.name for row in rows if row.predicted_us} == {row.name for row in rows if row.measured_us}
    trace.save(tmp_path / "t.npz")
    assert Trace.load(tmp_path / "t.npz").facts == trace.facts
