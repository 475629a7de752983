"""What a GPU would record."""

from __future__ import annotations

import numpy as np

from mpk_ir.timeline.trace import Trace

EPOCH_NS = 1_700_000_000_000_000_000


def profile_of(trace: Trace, step_lengths_us: list[float]) -> np.ndarray:
    """What a kernel would record that runs exactly as ``trace``, step after step."""
    times = np.stack([trace.begin, trace.ready, trace.computed, trace.signalled], axis=1)
    starts = np.concatenate([[0.0], np.cumsum(step_lengths_us)])
    nanoseconds = np.rint((starts[:, None, None] + times[None]) * 1000).astype(np.uint64)
    return nanoseconds + np.uint64(EPOCH_NS)
