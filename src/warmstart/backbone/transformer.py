"""One transformer trunk for every modality; the stem makes the difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.contracts import Features, Spec, UserError


class Block(nn.Module):
    """Pre-norm attention and MLP (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        inner = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_btd: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, T, D); positions where mask (B, T) is False are not attended to."""
        batch, length, width = x_btd.shape
        qkv = self.qkv(self.norm1(x_btd)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
        x_btd = x_btd + self.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, width)))
        return x_btd + self.dropout(self.mlp(self.norm2(x_btd)))


class Transformer(nn.Module):
    """Stem, learned positions, blocks, final norm; pooled by the mean over valid positions."""

    modalities: ClassVar = frozenset()  # the stem says
    abilities: ClassVar = frozenset({"hide"})

    def __init__(
        self,
        spec: Spec,
        stem: Callable[..., nn.Module],
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        if min(width, depth, heads) < 1 or mlp_ratio <= 0 or not 0 <= dropout < 1:
            raise UserError("backbone: width, depth, heads, mlp_ratio must be above 0, dropout 0 or more and below 1")
        if width % heads:
            raise UserError(f"backbone.width={width} is not a multiple of backbone.heads={heads}")
        self.width = width
        self.stem = stem(spec=spec, width=width)
        self.position = nn.Parameter(torch.randn(self.stem.positions, width) * 0.02)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """(B, ...) to tokens (B, T, D) and pooled (B, D)."""
        tokens = self.stem(x)
        if hidden is not None:
            tokens = torch.where(hidden[:, :, None], self.mask_token, tokens)
        tokens = tokens + self.position
        for block in self.blocks:
            tokens = block(tokens, mask)
        tokens = self.norm(tokens)
        if mask is None:
            return Features(tokens, tokens.mean(1))
        weight = mask[:, :, None].to(tokens.dtype)
        return Features(tokens, (tokens * weight).sum(1) / weight.sum(1).clamp(min=1))

    @property
    def target_size(self) -> int:
        """How many numbers a hidden position should be rebuilt into."""
        return self.stem.target_size

    def assemble(self, targets: Tensor) -> Tensor:
        """Inputs from the targets of all positions: the inverse of `targets`."""
        return self.stem.assemble(targets)

    def targets(self, x: Tensor) -> Tensor:
        """What each position should be rebuilt into, (B, T, P)."""
        return self.stem.targets(x)

    def depths(self) -> dict[str, int]:
        """Stem, positions and mask token at 0, then one depth per block, then the final norm."""
        blocks = {f"blocks.{index}": index + 1 for index in range(len(self.blocks))}
        return {"stem": 0, "position": 0, "mask_token": 0, **blocks, "norm": len(self.blocks) + 1}
