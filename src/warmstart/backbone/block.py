"""Transformer settings, rotary position embedding, attention mask and pre-norm block.

Shapes: B batch, T positions, D width, H heads, K key and value heads, W width of a head, I inner width of the MLP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.errors import UserError

LAYER_EPS, RMS_EPS = 1e-5, 1e-6
ROTARY_BASE = 10_000.0
STD = 0.02


@dataclass(frozen=True)
class Architecture:
    """Settings of a transformer; see `Transformer` for their meaning.

    Raises:
        UserError: two settings are incompatible.
    """

    width: int
    depth: int
    heads: int
    kv_heads: int
    mlp_ratio: float
    mlp: str
    norm: str
    bias: bool
    position: str
    window: int | None
    global_every: int
    causal: bool
    tied: bool
    pooling: str
    dropout: float
    qk_norm: bool

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"backbone.width={self.width} is not a multiple of backbone.heads={self.heads}")
        if self.heads % self.kv_heads:
            raise UserError(f"backbone.heads={self.heads} is not a multiple of backbone.kv_heads={self.kv_heads}")
        if self.position == "rotary" and self.head_width % 2:
            raise UserError(f"backbone.position=rotary needs an even head width, but width/heads={self.head_width}")
        if self.causal and self.pooling == "cls":
            raise UserError("backbone.pooling=cls: with causal=true its attention is limited to itself; use last")

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def inner(self) -> int:
        return int(self.width * self.mlp_ratio)

    def is_local(self, block: int) -> bool:
        """Return whether a block uses windowed attention; the first of every `global_every` blocks attends globally."""
        return self.window is not None and block % self.global_every != 0


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021), as complex numbers with unit modulus.

    Pairs of adjacent features are rotated by a complex product, which is four times as fast on a CPU as the usual
    `rotate_half`.
    """

    def __init__(self, width: int, length: int):
        super().__init__()
        self.width = width
        self.register_buffer("table", self._compute_table(length, torch.device("cpu")), persistent=False)

    def forward(self, length: int) -> Tensor:
        """Return the rotations (T, 1, W/2) of the first T positions; positions beyond the table are computed."""
        table = self.table[:length] if length <= len(self.table) else self._compute_table(length, self.table.device)
        return torch.view_as_complex(table[:, None].float())

    def _compute_table(self, length: int, device: torch.device) -> Tensor:
        frequencies = ROTARY_BASE ** (-torch.arange(0, self.width, 2, device=device) / self.width)
        angles = torch.arange(length, device=device)[:, None] * frequencies
        return torch.stack([angles.cos(), angles.sin()], -1)


def apply_rotary(x: Tensor, rotary: Tensor) -> Tensor:
    """Rotate queries or keys (B, T, H, W) by (T, 1, W/2) or (B, T, 1, W/2); the result is float32."""
    return torch.view_as_real(torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) * rotary).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask_arguments: dict[str, Any]) -> Tensor:
    """Compute grouped-query attention (B, H, T, W) with the result of `attention_mask`; return the dtype of v.

    On a CPU it is computed in float32, because the backward pass in bfloat16 takes three times as long.
    """
    dtype = torch.promote_types(v.dtype, torch.float32) if v.device.type == "cpu" else v.dtype
    with torch.autocast(v.device.type, enabled=False):
        qkv = (tensor.to(dtype) for tensor in (q, k, v))
        return F.scaled_dot_product_attention(*qkv, **mask_arguments, enable_gqa=q.shape[1] != k.shape[1]).to(v.dtype)


def attention_mask(
    mask: Tensor | None, length: int, device: torch.device, causal: bool = False, window: int | None = None
) -> dict[str, Any]:
    """Return the attention mask, as keyword arguments of `scaled_dot_product_attention`.

    Causal attention needs no padding mask, because padding is at the end.

    Args:
        mask: valid positions (B, T), or the document number of each position, 0 for padding.
        length: T.
        device: device of the tokens.
        causal: whether to attend to earlier positions only.
        window: number of positions attended to on each side; None for all.
    """
    if mask is not None and mask.dtype == torch.uint8:  # token types, which attend to each other
        mask = mask > 0
    has_documents = mask is not None and mask.dtype != torch.bool
    if window is not None and window >= length - 1:
        window = None
    if not has_documents and window is None:
        return {"is_causal": True} if causal else {"attn_mask": None if mask is None else mask[:, None, None]}
    position = torch.arange(length, device=device)
    distance = position[:, None] - position
    allowed = torch.ones_like(distance, dtype=torch.bool) if not causal else distance >= 0
    if window is not None:
        allowed = allowed & (distance.abs() <= window)
    if mask is not None and (has_documents or not causal):  # padding attends to padding, so that no row is fully masked
        allowed = allowed & (mask[:, None, :, None] == mask[:, None, None, :])
    return {"attn_mask": allowed}


def positions_in_documents(documents: Tensor) -> Tensor:
    """Return the position of each token in its document (B, T), from 0, given document numbers (B, T)."""
    position = torch.arange(documents.shape[1], device=documents.device)
    starts = documents[:, 1:] != documents[:, :-1]
    first = torch.where(F.pad(starts, (1, 0)), position, 0).cummax(1).values
    return position - first


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """Map (..., D) to (..., 1): the inverse root mean square, by the vector norm."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return torch.rsqrt(norm.square() / x.shape[-1] + eps)


class RMSNorm(nn.RMSNorm):
    """Root mean square layer normalization (Zhang and Sennrich 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (..., D); on a CPU by the vector norm, whose gradient takes a third of the time."""
        if x.device.type != "cpu":
            return super().forward(x)
        return x * inverse_rms(x, self.eps) * self.weight


class QueryKeyNorm(nn.Module):
    """Root mean square normalization of queries and keys, each with a weight that their heads share.

    Args:
        heads: numbers of query heads and of key heads.
        width: width of a head.
    """

    def __init__(self, heads: tuple[int, int], width: int):
        super().__init__()
        self.heads = heads
        self.query, self.key = (nn.Parameter(torch.ones(width)) for _ in range(2))

    def forward(self, qk: Tensor) -> Tensor:
        """Normalize queries and keys (B, T, H + K, W); the result is float32."""
        qk = qk.float()
        weight = torch.cat([w.expand(count, -1) for w, count in zip((self.query, self.key), self.heads)])
        return qk * inverse_rms(qk, RMS_EPS) * weight


def make_norm(architecture: Architecture) -> nn.Module:
    """Return a layer norm or root mean square norm over the width."""
    if architecture.norm == "rms":
        return RMSNorm(architecture.width, eps=RMS_EPS)
    return nn.LayerNorm(architecture.width, eps=LAYER_EPS, bias=architecture.bias)


class Gate(nn.Module):
    """Gated linear unit (Shazeer 2020): the activation of the first half of (..., 2I), times the second half."""

    def __init__(self, kind: str):
        super().__init__()
        self.activation = {"geglu": F.gelu, "swiglu": F.silu}[kind]

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., 2I) to (..., I)."""
        gate, value = x.chunk(2, -1)
        return self.activation(gate) * value


class Block(nn.Module):
    """Pre-norm attention and MLP (Xiong et al. 2020).

    Args:
        architecture: settings of the transformer.
        prenorm: whether to normalize the input of the attention.
    """

    def __init__(self, architecture: Architecture, prenorm: bool = True):
        super().__init__()
        width, inner, bias = architecture.width, architecture.inner, architecture.bias
        self.heads, self.kv_heads, self.head_width = architecture.heads, architecture.kv_heads, architecture.head_width
        self.norm1 = make_norm(architecture) if prenorm else nn.Identity()
        self.qkv = nn.Linear(width, (self.heads + 2 * self.kv_heads) * self.head_width, bias=bias)
        heads = (self.heads, self.kv_heads)
        self.qk_norm = QueryKeyNorm(heads, self.head_width) if architecture.qk_norm else None
        self.out = nn.Linear(width, width, bias=bias)
        self.norm2 = make_norm(architecture)
        if architecture.mlp == "gelu":
            layers = [nn.Linear(width, inner, bias=bias), nn.GELU()]
        else:
            layers = [nn.Linear(width, 2 * inner, bias=bias), Gate(architecture.mlp)]
        self.mlp = nn.Sequential(*layers, nn.Linear(inner, width, bias=bias))
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(self, x_btd: Tensor, mask_arguments: dict[str, Any], rotary: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, T, D), given the results of `attention_mask` and `Rotary`."""
        return self.feed_forward(self.self_attend(x_btd, mask_arguments, rotary))

    def self_attend(self, x_btd: Tensor, mask_arguments: dict[str, Any], rotary: Tensor | None = None) -> Tensor:
        """Return the sum of (B, T, D) and its self-attention."""
        batch, length, _ = x_btd.shape
        qkv = self.qkv(self.norm1(x_btd)).view(batch, length, -1, self.head_width)
        qk, v = qkv.split([self.heads + self.kv_heads, self.kv_heads], 2)
        if self.qk_norm is not None:
            qk = self.qk_norm(qk)
        q, k = (qk if rotary is None else apply_rotary(qk, rotary)).split([self.heads, self.kv_heads], 2)
        q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
        attended = attend(q, k, v, mask_arguments)
        return x_btd + self.dropout(self.out(attended.transpose(1, 2).reshape(batch, length, -1)))

    def feed_forward(self, x_btd: Tensor) -> Tensor:
        """Return the sum of (B, T, D) and its MLP."""
        return x_btd + self.dropout(self.mlp(self.norm2(x_btd)))


def init_blocks(blocks: nn.ModuleList) -> None:
    """Draw normal weights; scale those of residual projections by 1 / sqrt(number of residual layers), as in GPT-2.

    Source: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners", section 2.3.
    """
    for block in blocks:
        for layer in (block.qkv, block.mlp[0], block.out, block.mlp[2]):
            residual = layer is block.out or layer is block.mlp[2]
            nn.init.normal_(layer.weight, std=STD / (2 * len(blocks)) ** 0.5 if residual else STD)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def zero_residuals(blocks: nn.ModuleList) -> None:
    """Set the residual projections to 0, so that each block starts as the identity (Goyal et al. 2017)."""
    for block in blocks:
        for layer in (block.out, block.mlp[2]):
            nn.init.zeros_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
