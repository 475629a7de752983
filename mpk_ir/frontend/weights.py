"""The names and shapes of a checkpoint's tensors: what the graph asks for and the files are checked against."""

from __future__ import annotations

from .config import ModelConfig

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
LM_HEAD = "lm_head.weight"
ROUTER = "mlp.gate"
"""Of a layer with experts: what its logits come from."""

Shapes = dict[str, tuple[int, ...]]


def layer_prefix(layer: int) -> str:
    """What the names of a layer's tensors start with."""
    return f"model.layers.{layer}."


def expert_prefix(expert: int) -> str:
    """What, in a layer, the names of an expert's tensors start with."""
    return f"mlp.experts.{expert}."


def weight_shapes(config: ModelConfig) -> Shapes:
    """Every tensor the model reads, by its name in the checkpoint. A tied head is the embedding, not a tensor."""
    table = (config.vocab_size, config.hidden_size)
    shapes: Shapes = {EMBEDDING: table}
    for layer in range(config.num_layers):
        prefix = layer_prefix(layer)
        shapes |= {prefix + name: shape for name, shape in _layer_shapes(config).items()}
    shapes[FINAL_NORM] = (config.hidden_size,)
    if not config.tied_embeddings:
        shapes[LM_HEAD] = table
    return shapes


def _layer_shapes(config: ModelConfig) -> Shapes:
    hidden = config.hidden_size
    inner = config.intermediate_size if config.experts is None else config.experts.size
    linears = {
        "self_attn.q_proj": (config.query_size, hidden, config.qkv_bias),
        "self_attn.k_proj": (config.kv_size, hidden, config.qkv_bias),
        "self_attn.v_proj": (config.kv_size, hidden, config.qkv_bias),
        "self_attn.o_proj": (hidden, config.query_size, config.output_bias),
    }
    mlps = ["mlp."] if config.experts is None else [expert_prefix(n) for n in range(config.experts.count)]
    for mlp in mlps:
        linears[f"{mlp}gate_proj"] = linears[f"{mlp}up_proj"] = (inner, hidden, config.mlp_bias)
        linears[f"{mlp}down_proj"] = (hidden, inner, config.mlp_bias)
    if config.experts is not None:
        linears[ROUTER] = (config.experts.count, hidden, False)
    shapes: Shapes = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    if config.qk_norm:
        shapes |= {f"self_attn.{name}_norm.weight": (config.head_dim,) for name in ("q", "k")}
    for name, (rows, columns, biased) in linears.items():
        shapes[f"{name}.weight"] = (rows, columns)
        if biased:
            shapes[f"{name}.bias"] = (rows,)
    return shapes
