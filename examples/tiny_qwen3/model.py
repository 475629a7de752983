"""The Qwen3 architecture in plain torch, small enough to read: what the trained checkpoint is a checkpoint of.

Modules are named as in Hugging Face checkpoints, so that the state dict is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class Sizes:
    """Dimensions of the model. All tensors have dimensions that are multiples of 32."""

    vocab: int = 288
    hidden: int = 192
    inner: int = 512
    layers: int = 4
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 32
    positions: int = 512
    theta: float = 10000.0
    eps: float = 1e-6


class RmsNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) * weight."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Attention(nn.Module):
    """Causal grouped-query attention; q and k are normed per head, then turned by rope."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.q_proj = nn.Linear(sizes.hidden, sizes.heads * sizes.head_dim, bias=False)
        self.k_proj = nn.Linear(sizes.hidden, sizes.kv_heads * sizes.head_dim, bias=False)
        self.v_proj = nn.Linear(sizes.hidden, sizes.kv_heads * sizes.head_dim, bias=False)
        self.o_proj = nn.Linear(sizes.heads * sizes.head_dim, sizes.hidden, bias=False)
        self.q_norm = RmsNorm(sizes.head_dim, sizes.eps)
        self.k_norm = RmsNorm(sizes.head_dim, sizes.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            linear(x).view(batch, length, -1, self.sizes.head_dim).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(attended.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.hidden, sizes.inner, bias=False)
        self.up_proj = nn.Linear(sizes.hidden, sizes.inner, bias=False)
        self.down_proj = nn.Linear(sizes.inner, sizes.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """Attention, then MLP, each on the normed input and added to it."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.input_layernorm = RmsNorm(sizes.hidden, sizes.eps)
        self.self_attn = Attention(sizes)
        self.post_attention_layernorm = RmsNorm(sizes.hidden, sizes.eps)
        self.mlp = Mlp(sizes)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, layers, final norm."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embed_tokens = nn.Embedding(sizes.vocab, sizes.hidden)
        self.layers = nn.ModuleList(Layer(sizes) for _ in range(sizes.layers))
        self.norm = RmsNorm(sizes.hidden, sizes.eps)

    def forward(self, tokens: Tensor) -> Tensor:
        cos, sin = angles(tokens.shape[1], self.sizes)
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)


class TinyQwen3(nn.Module):
    """tokens [batch, length] -> logits [batch, length, vocab]; the head is the embedding."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.model = Decoder(sizes)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
                # What is added to the residual stream by 2 * layers products starts small, so that their sum does.
                nn.init.normal_(parameter, std=0.06 / (2 * sizes.layers) ** 0.5 if into_stream else 0.06)

    def forward(self, tokens: Tensor) -> Tensor:
        return functional.linear(self.model(tokens), self.model.embed_tokens.weight)


def angles(length: int, sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's rotation: [length, head_dim] each."""
    inv_freq = sizes.theta ** -(torch.arange(0, sizes.head_dim, 2) / sizes.head_dim)
    turned = torch.arange(length)[:, None] * inv_freq
    both = torch.cat((turned, turned), dim=-1)
    return both.cos(), both.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Pairs (i, i + head_dim / 2) of ``x`` [..., length, head_dim] turned by their position."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
