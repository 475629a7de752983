"""What a task costs on one SM: the model that tiling, scheduling and the timeline share.

A kind that is not named here (an extension's, or one of general graphs) costs what its `cost_us` says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.memory import STAGE_BYTES
from ..core.target import Costs, Target
from .argmax import ArgmaxParams
from .attention import MMA_HEADS, SPLIT_BLOCK, AttentionParams
from .attention_merge import AttentionMergeParams
from .base import Array, TaskKind
from .block_rows import BlockRowsParams
from .elementwise import ElementwiseParams
from .embedding import EmbeddingParams
from .expert_sum import ExpertSumParams
from .grouped_linear import GroupedLinearParams
from .kv_append import KvAppendParams
from .last_rows import LastRowsParams
from .linear import TILE_ROWS, LinearParams, x_segments
from .prompt_attention import TASK_ROWS, PromptAttentionParams
from .push import PushParams
from .rank_sum import RankSumParams
from .rms_norm import RmsNormParams
from .rope import RopeParams
from .rope_append import RopeAppendParams
from .shard_embedding import ShardEmbeddingParams
from .top_k_gate import TopKGateParams
from .wide_linear import WideLinearParams, wide_linear_us

BF16_BYTES = 2
F32_BYTES = 4


@dataclass(frozen=True)
class Load:
    """What the requests ask of a step: ``rows`` token positions computed, ``context`` positions in each cache."""

    rows: int = 1
    context: int = 512


@dataclass(frozen=True)
class Work:
    """Costs of the tasks of a grid; numbers, or arrays [tasks] where tasks differ.

    ``activation_us``: from when a task may load its activations until it has the first of them; it counts as waiting.
    ``compute_us``: what follows, if all weights are in shared memory, of which ``tail_us`` comes after the last of
    them. ``cache_bytes``: device memory read besides boxes of weights: caches, and weights of experts. They are read
    after the wait, or if ``prefetched`` by the loader ahead of it, though not before the step begins.
    ``reread_bytes``: activations that are loaded again, from the second-level cache, while weights stream.
    """

    compute_us: Array | float
    activation_us: float = 0.0
    cache_bytes: Array | float = 0.0
    tail_us: float = 0.0
    prefetched: bool = False
    reread_bytes: Array | float = 0.0


def work_of(kind: TaskKind[Any], params: Any, indices: Array, load: Load, target: Target) -> Work:
    """The work of the tasks at ``indices`` [tasks, dims] of a grid."""
    if kind.name in _MODELS:
        return _MODELS[kind.name](params, indices, load, target.costs)
    return Work(kind.cost_us(params, target))


@dataclass(frozen=True)
class CommunicationCosts:
    """Microseconds that a sum over ranks takes beyond its producer, if nothing hides it."""

    one_shot_us: float
    two_shot_us: float
    multicast_us: float


def communication_costs(target: Target, ranks: int, size_bytes: int) -> CommunicationCosts:
    """Of ``size_bytes`` on each of ``ranks``: one-shot sends all of it to each other rank, two-shot a piece there and a
    piece of the sum back, with another trip and another task on the way. Multicast stores once what one-shot stores for
    each rank; what arrives at a GPU, and so the time on its link, is the same."""
    link, costs = target.link, target.costs
    trip_us = link.latency_us + costs.small_us
    all_us = (ranks - 1) * size_bytes / link.bytes_per_us  # into each GPU
    touch_us = size_bytes / (target.num_sms * costs.small_bytes_per_us)  # to store it once, or to read it
    two_trips_us = 2 * trip_us - costs.small_us + costs.handoff_us
    return CommunicationCosts(
        one_shot_us=trip_us + all_us + 2 * ranks * touch_us,
        two_shot_us=two_trips_us + 2 / ranks * all_us + 3 * touch_us,
        multicast_us=trip_us + all_us + (1 + ranks) * touch_us,
    )


def _ceil(value: int, divisor: int) -> int:
    return -(-value // divisor)


def _linear(params: LinearParams, indices: Array, load: Load, costs: Costs) -> Work:
    rows = min(load.rows, params.rows)
    tiles = np.minimum(params.tiles, _ceil(params.n, TILE_ROWS) - indices[:, 0] * params.tiles)
    weights_us = BF16_BYTES * TILE_ROWS * params.k / costs.weights_bytes_per_us
    tail_us = costs.pass_us + costs.tile_us + rows * costs.tile_row_us
    passes, segments = -(-tiles // params.pass_tiles), x_segments(params)
    load_bytes = BF16_BYTES * rows * params.k / segments
    load_us = costs.activation_us + load_bytes / costs.activation_bytes_per_us
    loads_again = passes * segments - 1 if segments > 1 else 0 * tiles
    tiles_us = tiles * (weights_us + costs.tile_us + rows * costs.tile_row_us)
    return Work(
        passes * costs.pass_us + tiles_us + loads_again * load_us,
        activation_us=load_us,
        tail_us=tail_us,
        reread_bytes=loads_again * load_bytes,
    )


def _attention(params: AttentionParams, indices: Array, load: Load, costs: Costs) -> Work:
    length = min(load.context, params.max_pages * params.page_size - 1) + 1
    chunk = _ceil(_ceil(length, params.splits), SPLIT_BLOCK) * SPLIT_BLOCK
    positions = np.clip(length - indices[:, 2] * chunk, 0, chunk)
    cache_bytes = 2.0 * BF16_BYTES * positions * params.head_dim
    passes = _ceil(params.group, MMA_HEADS)
    return Work(
        np.where(positions > 0, costs.attention_us, costs.small_us)
        + passes * cache_bytes / costs.attention_bytes_per_us,
        cache_bytes=cache_bytes,
        tail_us=STAGE_BYTES / costs.attention_bytes_per_us,
        prefetched=passes == 1,
    )


def _small(costs: Costs, moved_bytes: float, cache_bytes: float = 0.0) -> Work:
    return Work(costs.small_us + moved_bytes / costs.small_bytes_per_us, cache_bytes=cache_bytes)


def _attention_merge(params: AttentionMergeParams, indices: Array, load: Load, costs: Costs) -> Work:
    """A row after another, each with its own trip to memory."""
    return Work(min(load.rows, params.rows) * costs.small_us)


def _embedding(params: EmbeddingParams | ShardEmbeddingParams, indices: Array, load: Load, costs: Costs) -> Work:
    """All rows at once."""
    moved = BF16_BYTES * min(load.rows, params.rows) * params.columns
    return _small(costs, 2 * moved, cache_bytes=moved)


def _argmax(params: ArgmaxParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, F32_BYTES * min(load.rows, params.rows) * params.chunk)


def _rms_norm(params: RmsNormParams, indices: Array, load: Load, costs: Costs) -> Work:
    operands = 3 if params.residual else 2
    return _small(costs, operands * BF16_BYTES * min(load.rows, params.rows) * params.width * params.groups)


def _elementwise(params: ElementwiseParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, 3 * BF16_BYTES * min(load.rows, params.rows) * params.columns)


def _rope(params: RopeParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, 2 * BF16_BYTES * min(load.rows, params.rows) * params.heads * params.head_dim)


def _kv_append(params: KvAppendParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, 2 * BF16_BYTES * min(load.rows, params.rows) * params.head_dim)


def _push(params: PushParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, 2 * params.element_bytes * min(load.rows, params.rows) * params.columns)


def _rank_sum(params: RankSumParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, (params.ranks + 1) * BF16_BYTES * min(load.rows, params.rows) * params.columns)


def _top_k_gate(params: TopKGateParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, F32_BYTES * min(load.rows, params.rows) * params.experts)


def _grouped_linear(params: GroupedLinearParams, indices: Array, load: Load, costs: Costs) -> Work:
    """As if rows chose experts at random, each as likely as any other."""
    rows = min(load.rows, params.rows)
    missed = (1.0 - params.slots / params.experts) ** rows
    items = round(params.experts * (1.0 - missed)) * params.blocks
    mine = np.maximum(0, -(-(items - indices[:, 0]) // params.takers))
    moved = mine * (BF16_BYTES * params.k * params.columns * (2 if params.gated else 1))
    input_bytes = BF16_BYTES * rows * params.k * (params.slots if params.per_slot else 1)
    return Work(
        compute_us=costs.small_us + moved / costs.weights_bytes_per_us,
        activation_us=costs.activation_us + input_bytes / costs.activation_bytes_per_us,
        cache_bytes=moved,
    )


def _expert_sum(params: ExpertSumParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, (params.slots + 1) * BF16_BYTES * min(load.rows, params.rows) * params.columns)


def _wide_linear(params: WideLinearParams, indices: Array, load: Load, costs: Costs) -> Work:
    """Of the tasks that have active rows."""
    active = indices[:, 1] * params.rows < load.rows
    return Work(np.where(active, wide_linear_us(params.k, params.rows, params.total_rows), costs.small_us))


def _block_rows(params: BlockRowsParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, 2 * BF16_BYTES * min(load.rows, params.rows) * params.columns)


def _rope_append(params: RopeAppendParams, indices: Array, load: Load, costs: Costs) -> Work:
    columns = (params.heads + 2 * params.kv_heads) * params.head_dim
    return _small(costs, 2 * BF16_BYTES * min(load.rows, params.rows) * columns)


def _prompt_attention(params: PromptAttentionParams, indices: Array, load: Load, costs: Costs) -> Work:
    """As if the step's rows were the latest of one request's ``context`` positions."""
    end = np.minimum((params.blocks - indices[:, 0]) * params.rows, load.rows)
    positions = np.maximum(0, load.context - load.rows + end)
    active = end > (params.blocks - 1 - indices[:, 0]) * params.rows
    flops = np.where(active, 4.0 * TASK_ROWS * params.head_dim * positions, 0.0)
    return Work(costs.small_us + flops / costs.prompt_attention_flops_per_us)


def _last_rows(params: LastRowsParams, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, 2 * BF16_BYTES * params.batch * params.columns)


def _fixed(params: Any, indices: Array, load: Load, costs: Costs) -> Work:
    return _small(costs, 0.0)


def _nothing(params: Any, indices: Array, load: Load, costs: Costs) -> Work:
    return Work(0.0)


_MODELS: dict[str, Callable[[Any, Array, Load, Costs], Work]] = {
    "linear": _linear,
    "attention": _attention,
    "attention_merge": _attention_merge,
    "embedding": _embedding,
    "argmax": _argmax,
    "rms_norm": _rms_norm,
    "elementwise": _elementwise,
    "rope": _rope,
    "kv_append": _kv_append,
    "push": _push,
    "rank_sum": _rank_sum,
    "shard_embedding": _embedding,
    "top_k_gate": _top_k_gate,
    "grouped_linear": _grouped_linear,
    "expert_sum": _expert_sum,
    "wide_linear": _wide_linear,
    "block_rows": _block_rows,
    "rope_append": _rope_append,
    "prompt_attention": _prompt_attention,
    "last_rows": _last_rows,
    "select": _fixed,
    "advance": _fixed,
    "join": _nothing,
}
