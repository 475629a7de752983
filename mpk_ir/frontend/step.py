"""One step of a decoder as a tensor graph: unfused, in the order a paper would write it."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp, f32, i32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from ..core.errors import UsageError
from ..core.requests import RequestColumn, RowColumn
from ..dialects import tg
from .config import Experts, ModelConfig
from .options import StepOptions
from .weights import EMBEDDING, FINAL_NORM, LM_HEAD, ROUTER, expert_prefix, layer_prefix, weight_shapes


def build_step(config: ModelConfig, options: StepOptions) -> ModuleOp:
    """The module whose `func.func @step` computes one step of the model.

    Its params are named as in the checkpoint. Its states are those of `mpk_ir.core.requests`, `k_cache.{layer}` and
    `v_cache.{layer}` [pages, kv_heads, page_size, head_dim], and `logits` [rows, vocab] f32. Raises UsageError if
    ``options`` exceed what the model was made for.
    """
    if options.max_length > config.max_positions:
        raise UsageError(
            f"max_length: found {options.max_length}, expected at most {config.max_positions}, the model's"
        )
    block = Block()
    _StepBuilder(config, options, block).build()
    function = FuncOp("step", ((), ()), Region(block))
    return ModuleOp([function])


class _StepBuilder:
    """Appends a step's ops to ``block``; holds the values every layer reads."""

    def __init__(self, config: ModelConfig, options: StepOptions, block: Block) -> None:
        self.config = config
        self.options = options
        self.block = block
        self.shapes = weight_shapes(config)
        self.params: dict[str, SSAValue] = {}
        self.element = tg.element_type(config.dtype)
        batch, rows = options.batch, options.rows
        self.history = self._state("history", (batch, options.max_length), i32)
        self.requests = self._state("requests", (batch, len(RequestColumn)), i32)
        self.rows = self._state("rows", (rows, len(RowColumn)), i32)
        self.row_count = self._state("row_count", (1,), i32)
        self.page_table = self._state("page_table", (batch, options.pages_per_request), i32)
        self.inv_freq = self._emit(tg.ConstantOp.of(config.rope.inv_freq(config.head_dim)), "inv_freq")

    def build(self) -> None:
        hidden = self._emit(tg.EmbeddingOp(self._param(EMBEDDING), self.rows), "hidden")
        for layer in range(self.config.num_layers):
            hidden = self._attention_block(hidden, layer)
            hidden = self._mlp_block(hidden, layer)
        if self.options.last_rows:
            hidden = self._emit(tg.LastRowsOp(hidden, self.requests), "hidden")
        final = self._norm(hidden, FINAL_NORM)
        head = self._param(EMBEDDING if self.config.tied_embeddings else LM_HEAD)
        logits = self._emit(tg.LinearOp(final, head, element=f32), "logits")
        self._add(tg.UpdateOp("logits", logits))
        self._finish(self._emit(tg.ArgmaxOp(logits), "sampled"))

    def _finish(self, sampled: SSAValue) -> None:
        names = ("history", "requests", "rows", "row_count")
        state = (self.history, self.requests, self.rows, self.row_count)
        stops, by_request = self.options.stop_tokens, self.options.last_rows
        advance = tg.AdvanceOp(sampled, state, stops, by_request=by_request)
        self._add(advance)
        for name, value in zip(names, advance.results, strict=True):
            value.name_hint = f"next_{name}"
            self._add(tg.UpdateOp(name, value))
        self._add(ReturnOp())

    def _attention_block(self, hidden: SSAValue, layer: int) -> SSAValue:
        config, prefix = self.config, layer_prefix(layer)
        x = self._norm(hidden, prefix + "input_layernorm.weight")
        q, k, v = (self._heads(x, f"{prefix}self_attn.", name) for name in "qkv")
        if config.qk_norm:
            q = self._norm(q, f"{prefix}self_attn.q_norm.weight")
            k = self._norm(k, f"{prefix}self_attn.k_norm.weight")
        q, k = (self._emit(tg.RopeOp(value, self.rows, self.inv_freq), "rope") for value in (q, k))
        caches = [self._append(f"{name}_cache.{layer}", new) for name, new in (("k", k), ("v", v))]
        states = (self.rows, self.requests, self.page_table)
        attended = self._emit(tg.AttentionOp(q, caches, states, config.head_dim**-0.5), "attended")
        flat = self._emit(tg.ReshapeOp(attended, (self.options.rows, config.query_size)), "attended")
        return self._emit(tg.AddOp(hidden, self._linear(flat, prefix + "self_attn.o_proj")), "hidden")

    def _heads(self, x: SSAValue, prefix: str, name: str) -> SSAValue:
        """q, k or v of ``x`` as [rows, heads, head_dim]."""
        count = self.config.num_heads if name == "q" else self.config.num_kv_heads
        flat = self._linear(x, f"{prefix}{name}_proj")
        return self._emit(tg.ReshapeOp(flat, (self.options.rows, count, self.config.head_dim)), name)

    def _append(self, name: str, new: SSAValue) -> SSAValue:
        """The named cache with ``new`` appended; also what the next step starts with."""
        config, options = self.config, self.options
        shape = (options.pages, config.num_kv_heads, options.page_size, config.head_dim)
        cache = self._state(name, shape, self.element)
        appended = self._emit(tg.KvAppendOp(cache, new, self.rows, self.page_table), name.partition(".")[0])
        self._add(tg.UpdateOp(name, appended))
        return appended

    def _mlp_block(self, hidden: SSAValue, layer: int) -> SSAValue:
        prefix = layer_prefix(layer)
        x = self._norm(hidden, prefix + "post_attention_layernorm.weight")
        if self.config.experts is not None:
            return self._emit(tg.AddOp(hidden, self._experts(x, prefix, self.config.experts)), "hidden")
        gate, up = (self._linear(x, f"{prefix}mlp.{name}_proj") for name in ("gate", "up"))
        inner = self._emit(tg.SiluMulOp(gate, up), "inner")
        return self._emit(tg.AddOp(hidden, self._linear(inner, prefix + "mlp.down_proj")), "hidden")

    def _experts(self, x: SSAValue, prefix: str, experts: Experts) -> SSAValue:
        """The weighted sum of the experts that each row of ``x`` chooses."""
        router = self._param(f"{prefix}{ROUTER}.weight")
        gate = tg.TopKGateOp(self._emit(tg.LinearOp(x, router, element=f32), "router"), experts.used)
        self._add(gate)
        gate.weights.name_hint, gate.experts.name_hint = "weights", "experts"
        both = self._stacked(prefix, experts, "gate", "up")
        inner = self._emit(tg.GroupedLinearOp(x, both, gate.experts, experts.count, gated=True), "inner")
        down = self._stacked(prefix, experts, "down")
        parts = self._emit(tg.GroupedLinearOp(inner, down, gate.experts, experts.count), "parts")
        return self._emit(tg.ExpertSumOp(parts, gate.weights), "mixed")

    def _stacked(self, prefix: str, experts: Experts, *names: str) -> SSAValue:
        """The weights called ``names`` of each expert of a layer, one below the other."""
        sources = [f"{prefix}{expert_prefix(n)}{name}_proj.weight" for n in range(experts.count) for name in names]
        rows, columns = self.shapes[sources[0]]
        symbol = f"{prefix.removeprefix('model.')}mlp.experts.{'+'.join(f'{name}_proj' for name in names)}"
        type_ = tg.tensor((rows * len(sources), columns), self.element)
        return self._emit(tg.ParamOp(symbol, type_, sources), "w")

    def _linear(self, x: SSAValue, name: str) -> SSAValue:
        weight = self._param(f"{name}.weight")
        bias = self._param(f"{name}.bias") if f"{name}.bias" in self.shapes else None
        return self._emit(tg.LinearOp(x, weight, bias), name.rpartition(".")[2].removesuffix("_proj"))

    def _norm(self, x: SSAValue, weight: str) -> SSAValue:
        return self._emit(tg.RmsNormOp(x, self._param(weight), self.config.norm_eps), "normed")

    def _param(self, name: str) -> SSAValue:
        if name not in self.params:
            self.params[name] = self._emit(tg.ParamOp(name, tg.tensor(self.shapes[name], self.element)), "w")
        return self.params[name]

    def _state(self, name: str, shape: tuple[int, ...], element: Attribute) -> SSAValue:
        return self._emit(tg.StateOp(name, tg.tensor(shape, element)), name.partition(".")[0])

    def _emit(self, op: Operation, hint: str) -> SSAValue:
        self._add(op)
        op.results[0].name_hint = hint
        return op.results[0]

    def _add(self, op: Operation) -> None:
        self.block.add_op(op)
