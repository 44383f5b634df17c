"""What a trunk is made of: its settings, rotary positions, which positions see which, and one block.

Shapes: B batch, T positions, D width, H heads, K heads of keys and values, W width of a head, I inner width of the MLP.
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
    """The settings of a trunk, as `Transformer` explains them.

    Raises:
        UserError: two of them do not go together.
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

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"backbone.width={self.width} is not a multiple of backbone.heads={self.heads}")
        if self.heads % self.kv_heads:
            raise UserError(f"backbone.heads={self.heads} is not a multiple of backbone.kv_heads={self.kv_heads}")
        if self.position == "rotary" and self.head_width % 2:
            raise UserError(f"backbone.position=rotary needs heads of an even width, and width/heads={self.head_width}")
        if self.causal and self.pooling == "cls":
            raise UserError("backbone.pooling=cls: with causal=true the first position sees nothing else; use last")

    @property
    def head_width(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def inner(self) -> int:
        """Inner width of the MLP."""
        return int(self.width * self.mlp_ratio)

    def is_local(self, block: int) -> bool:
        """Whether a block attends within the window only; the first of every `global_every` attends globally."""
        return self.window is not None and block % self.global_every != 0


class Rotary(nn.Module):
    """Rotary positions (Su et al. 2021): pairs of neighbouring features turned by an angle that grows with position.

    A turn is one complex product, four times as fast on a CPU as the usual halves with signs swapped.
    """

    def __init__(self, width: int, length: int):
        super().__init__()
        self.width = width
        self.register_buffer("table", self._made(length, torch.device("cpu")), persistent=False)

    def forward(self, length: int) -> Tensor:
        """Unit complex numbers (T, 1, W/2), from the table as far as it goes."""
        table = self.table[:length] if length <= len(self.table) else self._made(length, self.table.device)
        return torch.view_as_complex(table[:, None].float())

    def _made(self, length: int, device: torch.device) -> Tensor:
        rates = ROTARY_BASE ** (-torch.arange(0, self.width, 2, device=device) / self.width)
        angles = torch.arange(length, device=device)[:, None] * rates
        return torch.stack([angles.cos(), angles.sin()], -1)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Queries or keys (B, T, H, W) turned by (T, 1, W/2) or (B, T, 1, W/2), in float32 whatever their type."""
    return torch.view_as_real(torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) * turns).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, seen: dict[str, Any]) -> Tensor:
    """Attention (B, H, T, W) by the result of `sight`, in the type of v; groups of heads share keys and values.

    A CPU computes in float32, which takes it a third of the time of bfloat16, backwards.
    """
    kind = torch.promote_types(v.dtype, torch.float32) if v.device.type == "cpu" else v.dtype
    with torch.autocast(v.device.type, enabled=False):
        parts = (part.to(kind) for part in (q, k, v))
        return F.scaled_dot_product_attention(*parts, **seen, enable_gqa=q.shape[1] != k.shape[1]).to(v.dtype)


def sight(
    mask: Tensor | None, length: int, device: torch.device, causal: bool = False, window: int | None = None
) -> dict[str, Any]:
    """Which positions see which, as arguments of `scaled_dot_product_attention`.

    Causal attention needs no mask against padding, which is at the end.

    Args:
        mask: valid positions (B, T), or the number of each position's document, 0 for padding.
        length: T.
        device: of the tokens.
        causal: see earlier positions only.
        window: how many positions are seen on each side; None for all.
    """
    if mask is not None and mask.dtype == torch.uint8:  # numbers of texts, which see each other
        mask = mask > 0
    separate = mask is not None and mask.dtype != torch.bool
    if window is not None and window >= length - 1:
        window = None
    if not separate and window is None:
        return {"is_causal": True} if causal else {"attn_mask": None if mask is None else mask[:, None, None]}
    place = torch.arange(length, device=device)
    ahead = place[:, None] - place
    seen = torch.ones_like(ahead, dtype=torch.bool) if not causal else ahead >= 0
    if window is not None:
        seen = seen & (ahead.abs() <= window)
    if mask is not None and (separate or not causal):  # padding sees padding, so that no row is empty
        seen = seen & (mask[:, None, :, None] == mask[:, None, None, :])
    return {"attn_mask": seen}


class RMSNorm(nn.RMSNorm):
    """Root mean square norm (Zhang and Sennrich 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same on a CPU by way of the vector norm, whose gradient takes it a third of the time."""
        if x.device.type != "cpu":
            return super().forward(x)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x * torch.rsqrt(length.square() / x.shape[-1] + self.eps) * self.weight


def make_norm(architecture: Architecture) -> nn.Module:
    """Layer norm or root mean square norm over the width."""
    if architecture.norm == "rms":
        return RMSNorm(architecture.width, eps=RMS_EPS)
    return nn.LayerNorm(architecture.width, eps=LAYER_EPS, bias=architecture.bias)


class Gate(nn.Module):
    """A gated linear unit (Shazeer 2020): the first half (..., 2I), activated, times the second."""

    def __init__(self, kind: str):
        super().__init__()
        self.activation = {"geglu": F.gelu, "swiglu": F.silu}[kind]

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2I) to (..., I)."""
        first, second = x.chunk(2, -1)
        return self.activation(first) * second


class Block(nn.Module):
    """Pre-norm attention and MLP (Xiong et al. 2020).

    Args:
        architecture: the trunk's settings.
        normed: whether the input of the attention is still to be normed.
    """

    def __init__(self, architecture: Architecture, normed: bool = True):
        super().__init__()
        width, inner, bias = architecture.width, architecture.inner, architecture.bias
        self.heads, self.kv_heads, self.head_width = architecture.heads, architecture.kv_heads, architecture.head_width
        self.norm1 = make_norm(architecture) if normed else nn.Identity()
        self.qkv = nn.Linear(width, (self.heads + 2 * self.kv_heads) * self.head_width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)
        self.norm2 = make_norm(architecture)
        if architecture.mlp == "gelu":
            layers = [nn.Linear(width, inner, bias=bias), nn.GELU()]
        else:
            layers = [nn.Linear(width, 2 * inner, bias=bias), Gate(architecture.mlp)]
        self.mlp = nn.Sequential(*layers, nn.Linear(inner, width, bias=bias))
        self.dropout = nn.Dropout(architecture.dropout)

    def forward(self, x_btd: Tensor, seen: dict[str, Any], turns: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D), with the results of `sight` and `Rotary`."""
        batch, length, _ = x_btd.shape
        qkv = self.qkv(self.norm1(x_btd)).view(batch, length, -1, self.head_width)
        qk, v = qkv.split([self.heads + self.kv_heads, self.kv_heads], 2)
        q, k = (qk if turns is None else rotate(qk, turns)).split([self.heads, self.kv_heads], 2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mixed = attend(q, k, v, seen)
        x_btd = x_btd + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, -1)))
        return x_btd + self.dropout(self.mlp(self.norm2(x_btd)))


def initialise(blocks: nn.ModuleList) -> None:
    """Normal weights, those that write to the residual smaller by the root of their number, as GPT-2's are.

    Source: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners", section 2.3.
    """
    for block in blocks:
        for part in (block.qkv, block.mlp[0], block.out, block.mlp[2]):
            residual = part is block.out or part is block.mlp[2]
            nn.init.normal_(part.weight, std=STD / (2 * len(blocks)) ** 0.5 if residual else STD)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
