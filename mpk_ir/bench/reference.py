"""A dense decoder in plain torch, written from the papers' formulas: the oracle and the baseline."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.errors import UsageError
from ..frontend import ModelConfig
from ..frontend.weights import EMBEDDING, FINAL_NORM, LM_HEAD, layer_prefix

if TYPE_CHECKING:
    import torch


@dataclass
class Cache:
    """Keys and values of all layers, [layers, batch, kv_heads, length, head_dim] each."""

    keys: torch.Tensor
    values: torch.Tensor


class Decoder:
    """``weights`` by checkpoint name, all of one dtype, which is also the dtype it computes in."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, torch.Tensor]) -> None:
        import torch

        if config.experts is not None:
            raise UsageError("the torch reference has no experts", advice="time alone: --check-steps 0, no --baselines")
        self.config = config
        self.embedding = weights[EMBEDDING]
        self.final_norm = weights[FINAL_NORM]
        self.head = weights[EMBEDDING if config.tied_embeddings else LM_HEAD]
        self.layers = [self._layer(weights, layer) for layer in range(config.num_layers)]
        inv_freq = torch.from_numpy(config.rope.inv_freq(config.head_dim).copy())
        self.inv_freq = inv_freq.to(self.embedding.device, torch.float32)

    def in_fp32(self) -> Decoder:
        """The same weights, computing in fp32."""
        wide = copy(self)
        wide.embedding = self.embedding.float()
        wide.final_norm = self.final_norm.float()
        wide.head = wide.embedding if self.head is self.embedding else self.head.float()
        wide.layers = [{name: tensor.float() for name, tensor in layer.items()} for layer in self.layers]
        return wide

    @staticmethod
    def _layer(weights: Mapping[str, torch.Tensor], layer: int) -> dict[str, torch.Tensor]:
        """A layer's tensors by short name; q, k, v and gate, up are joined, as any inference code does."""
        import torch

        prefix = layer_prefix(layer)
        own = {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}
        joined = {
            "qkv": [f"self_attn.{part}_proj.weight" for part in "qkv"],
            "qkv_bias": [f"self_attn.{part}_proj.bias" for part in "qkv"],
            "gate_up": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
        }
        for name, parts in joined.items():
            if parts[0] in own:
                own[name] = torch.cat([own.pop(part) for part in parts])
        return own

    def cache(self, batch: int, length: int) -> Cache:
        import torch

        c = self.config
        shape = (c.num_layers, batch, c.num_kv_heads, length, c.head_dim)
        keys = torch.zeros(shape, device=self.embedding.device, dtype=self.embedding.dtype)
        return Cache(keys, torch.zeros_like(keys))

    def forward(
        self, tokens: torch.Tensor, positions: torch.Tensor, cache: Cache, *, last_only: bool = False
    ) -> torch.Tensor:
        """Logits [batch, n, vocab] of ``tokens`` [batch, n] at ``positions`` [n], which the cache then holds; with
        ``last_only`` of the last token, [batch, 1, vocab]."""
        import torch

        length = cache.keys.shape[3]
        mask = torch.arange(length, device=tokens.device)[None, :] <= positions[:, None]
        angle = positions[:, None].float() * self.inv_freq[None, :]
        angle = torch.cat([angle, angle], dim=-1)
        turn = angle.cos().to(self.embedding.dtype), angle.sin().to(self.embedding.dtype)
        x = self.embedding[tokens]
        for number, layer in enumerate(self.layers):
            h = self._norm(x, layer["input_layernorm.weight"])
            x = x + self._attention(h, layer, turn, (cache.keys[number], cache.values[number], positions, mask))
            h = self._norm(x, layer["post_attention_layernorm.weight"])
            gate, up = (h @ layer["gate_up"].T).chunk(2, dim=-1)
            x = x + (torch.nn.functional.silu(gate) * up) @ layer["mlp.down_proj.weight"].T
        x = x[:, -1:] if last_only else x
        return (self._norm(x, self.final_norm) @ self.head.T).float()

    def _norm(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        scale = (wide.square().mean(-1, keepdim=True) + self.config.norm_eps).rsqrt()
        return weight * (wide * scale).to(x.dtype)

    def _attention(
        self,
        h: torch.Tensor,
        layer: dict[str, torch.Tensor],
        turn: tuple[torch.Tensor, torch.Tensor],
        memory: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        import torch

        c, (keys, values, positions, mask) = self.config, memory
        batch, n, _ = h.shape
        qkv = torch.nn.functional.linear(h, layer["qkv"], layer.get("qkv_bias"))
        q, k, v = qkv.split([c.query_size, c.kv_size, c.kv_size], dim=-1)
        q, k, v = (part.reshape(batch, n, -1, c.head_dim).transpose(1, 2) for part in (q, k, v))
        if c.qk_norm:
            q, k = self._norm(q, layer["self_attn.q_norm.weight"]), self._norm(k, layer["self_attn.k_norm.weight"])
        q, k = (_rotate(part, *turn) for part in (q, k))
        keys.index_copy_(2, positions, k)
        values.index_copy_(2, positions, v)
        out = torch.nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)
        return out.transpose(1, 2).reshape(batch, n, -1) @ layer["self_attn.o_proj.weight"].T


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    import torch

    low, high = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-high, low], dim=-1) * sin
