"""The task kinds, one file each; another package adds its own through the entry point group `mpk_ir.extensions`."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points
from typing import Any

from ..core.errors import PlanError, UnsupportedError, did_you_mean
from .advance import Advance
from .argmax import Argmax
from .attention import Attention
from .attention_merge import AttentionMerge
from .base import TaskKind
from .block_rows import BlockRows
from .elementwise import Elementwise
from .embedding import Embedding
from .expert_sum import ExpertSum
from .gather import Gather
from .grouped_linear import GroupedLinear
from .index_copy import IndexCopy
from .join import Join
from .kv_append import KvAppend
from .last_rows import LastRows
from .linear import Linear
from .map import Map
from .matmul import Matmul
from .normalize import Normalize
from .prompt_attention import PromptAttention
from .push import Push
from .rank_sum import RankSum
from .reduce import Reduce
from .rms_norm import RmsNorm
from .rope import Rope
from .rope_append import RopeAppend
from .select import Select
from .shard_embedding import ShardEmbedding
from .top_k_gate import TopKGate
from .wide_linear import WideLinear

EXTENSION_GROUP = "mpk_ir.extensions"

BUILTIN_KINDS: tuple[TaskKind[Any], ...] = (
    Linear(),
    Attention(),
    AttentionMerge(),
    Embedding(),
    RmsNorm(),
    Rope(),
    KvAppend(),
    Elementwise(),
    Argmax(),
    Select(),
    Advance(),
    Join(),
    Map(),
    Reduce(),
    Normalize(),
    Matmul(),
    Gather(),
    IndexCopy(),
    Push(),
    RankSum(),
    ShardEmbedding(),
    TopKGate(),
    GroupedLinear(),
    ExpertSum(),
    WideLinear(),
    BlockRows(),
    RopeAppend(),
    PromptAttention(),
    LastRows(),
)

_registered: dict[str, TaskKind[Any]] = {kind.name: kind for kind in BUILTIN_KINDS}


def register(kind: TaskKind[Any]) -> TaskKind[Any]:
    """Make ``kind`` known. Raises PlanError if another kind has its name."""
    if type(_registered.setdefault(kind.name, kind)) is not type(kind):
        raise PlanError(f"task kind '{kind.name}' is registered twice")
    return kind


def registered_kinds() -> tuple[TaskKind[Any], ...]:
    """Every kind known so far."""
    return tuple(_registered.values())


@cache
def load_extensions() -> None:
    """Call the function behind each `mpk_ir.extensions` entry point once: it registers kinds and tile rules."""
    for entry in entry_points(group=EXTENSION_GROUP):
        entry.load()()


def task_kind(name: str) -> TaskKind[Any]:
    """The kind called ``name``. Raises UnsupportedError with a guess if there is none."""
    if name not in _registered:
        load_extensions()
    if name not in _registered:
        raise UnsupportedError(f"no task kind '{name}'", advice=did_you_mean(name, _registered))
    return _registered[name]


def all_kinds() -> tuple[TaskKind[Any], ...]:
    """Every kind known, extensions included."""
    load_extensions()
    return registered_kinds()
