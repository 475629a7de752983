"""The meaning of `tg`, in numpy: float arithmetic in f32, one rule an op. What every other level is compared with."""

from .evaluate import evaluate, evaluate_ranks, initial_state, run_step, shard_state
from .values import UNSPECIFIED, assemble_param

__all__ = ["UNSPECIFIED", "assemble_param", "evaluate", "evaluate_ranks", "initial_state", "run_step", "shard_state"]
