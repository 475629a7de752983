"""The meaning of `tg`, in numpy: float arithmetic in f32, one rule an op. What every other level is compared with."""

from .evaluate import evaluate, initial_state, run_step
from .values import UNSPECIFIED, assemble_param

__all__ = ["UNSPECIFIED", "assemble_param", "evaluate", "initial_state", "run_step"]
