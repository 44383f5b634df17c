"""One transformer trunk for every modality; the stem makes the difference."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.backbone.block import LAYER_EPS, Architecture, Block, Rotary, initialise, make_norm, sight
from warmstart.backbone.heads import token_head
from warmstart.core.batch import Features
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.ranges import Count, Depth, Ratio, RightOpenUnitInterval
from warmstart.core.spec import Spec

if TYPE_CHECKING:
    pass


class Transformer(Backbone, nn.Module):
    """Stem, positions, pre-norm blocks, final norm, pooling.

    On token numbers it has the form of ModernBERT (Warner et al. 2024), whose embedding norm stands in for the first
    block's norm, or, if causal, that of Llama (Touvron et al. 2023): which classes of transformers can then load it is
    said by `exported`.

    Args:
        spec: what an example looks like.
        stem: makes tokens of it.
        width: of a token.
        depth: blocks.
        heads: of attention.
        kv_heads: of keys and values, shared by groups of `heads` (Ainslie et al. 2023); None for as many.
        mlp_ratio: inner width of the MLP in widths.
        mlp: gelu, or gated: geglu or swiglu.
        norm: layer or rms.
        bias: whether linear layers and layer norms have one.
        position: learned, or rotary.
        window: how many positions are seen on each side; None for all.
        global_every: with a window, the first of every so many blocks sees all positions.
        causal: see earlier positions only.
        tied: heads that name tokens share the embedding.
        pooling: cls (the first), mean or last of the valid positions; None for mean, or last if causal.
        dropout: after attention and MLP.
    """

    modalities: ClassVar = frozenset()  # the stem says

    def __init__(
        self,
        spec: Spec,
        stem: Callable[..., nn.Module],
        width: Count = 128,
        depth: Depth = 4,
        heads: Count = 4,
        kv_heads: Count | None = None,
        mlp_ratio: Ratio = 4.0,
        mlp: Literal["gelu", "geglu", "swiglu"] = "gelu",
        norm: Literal["layer", "rms"] = "layer",
        bias: bool = True,
        position: Literal["learned", "rotary"] = "learned",
        window: Count | None = None,
        global_every: Count = 3,
        causal: bool = False,
        tied: bool = True,
        pooling: Literal["cls", "mean", "last"] | None = None,
        dropout: RightOpenUnitInterval = 0.0,
    ):
        super().__init__()
        self.architecture = Architecture(
            width=width,
            depth=depth,
            heads=heads,
            kv_heads=heads if kv_heads is None else kv_heads,
            mlp_ratio=mlp_ratio,
            mlp=mlp,
            norm=norm,
            bias=bias,
            position=position,
            window=window,
            global_every=global_every,
            causal=causal,
            tied=tied,
            pooling=pooling or ("last" if causal else "mean"),
            dropout=dropout,
        )
        self.width = width
        self.stem = stem(spec=spec, width=width)
        named = self.stem.target_kind == "category"  # its tokens are numbers with an embedding
        self.like_modernbert = named and not causal
        self.position, self.mask_token, self.rotary, self.embedding_norm = None, None, None, None
        if position == "rotary":
            self.rotary = Rotary(self.architecture.head_width, self.stem.positions)
        else:
            self.position = nn.Parameter(torch.randn(self.stem.positions, width) * 0.02)
        if not self.stem.hides:
            self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        if self.like_modernbert:
            self.embedding_norm = make_norm(self.architecture)
        self.blocks = nn.ModuleList(
            Block(self.architecture, normed=index > 0 or not self.like_modernbert) for index in range(depth)
        )
        self.norm = make_norm(self.architecture)
        if named:
            initialise(self.blocks)

    @staticmethod
    def abilities(causal: bool = False, window: int | None = None, **settings: Any) -> frozenset[str]:
        """What an objective may ask of a trunk with these settings; a window counts positions, so none is left out."""
        if causal:
            return frozenset({"causal"})
        return frozenset({"hide"}) if window is not None else frozenset({"hide", "skip"})

    def forward(
        self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None, visible: Tensor | None = None
    ) -> Features:
        """(B, ...) to tokens (B, T, D) and pooled (B, D); with `visible` (B, V), to tokens (B, V, D) of these alone.

        Raises:
            UserError: a sequence is longer than the learned positions.
        """
        if visible is not None and self.stem.hides:  # before its convolutions can show one to another
            hidden = torch.ones_like(self.maskable(x)).scatter(1, visible, False)
        tokens = self.embed(x, mask, hidden)
        turns = None if self.rotary is None else self.rotary(tokens.shape[1])
        if visible is not None:
            tokens = tokens.take_along_dim(visible[:, :, None], 1)
            mask = None if mask is None else mask.take_along_dim(visible, 1)
            turns = None if turns is None else turns[visible]
        length, device, causal = tokens.shape[1], tokens.device, self.architecture.causal
        everywhere = sight(mask, length, device, causal)
        near = everywhere
        if self.architecture.window is not None:
            near = sight(mask, length, device, causal, self.architecture.window)
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, near if self.architecture.is_local(index) else everywhere, turns)
        tokens = self.norm(tokens)
        return Features(tokens, self.pool(tokens, mask))

    def embed(self, x: Tensor, mask: Tensor | None, hidden: Tensor | None) -> Tensor:
        """(B, ...) to the tokens (B, T, D) that the first block sees."""
        if hidden is not None and self.mask_token is None:
            x = self.stem.hide(x, hidden)
        tokens = self.stem(x, mask)
        if hidden is not None and self.mask_token is not None:
            tokens = torch.where(hidden[:, :, None], self.mask_token, tokens)
        if self.position is not None:
            if tokens.shape[1] > len(self.position):
                raise UserError(
                    f"a row has {tokens.shape[1]} positions and backbone.position=learned has {len(self.position)}: "
                    "make rows shorter or use backbone.position=rotary"
                )
            tokens = tokens + self.position[: tokens.shape[1]]
        return tokens if self.embedding_norm is None else self.embedding_norm(tokens)

    def pool(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """(B, T, D) to (B, D); like ModernBERT's classifiers, it norms the result."""
        valid = None if mask is None else mask > 0
        if self.architecture.pooling == "cls":
            pooled = tokens[:, 0]
        elif self.architecture.pooling == "last":
            if valid is None:
                pooled = tokens[:, -1]
            else:
                last = (valid.sum(1) - 1).clamp(min=0)
                pooled = tokens.take_along_dim(last[:, None, None], 1)[:, 0]
        elif valid is None:
            pooled = tokens.mean(1)
        else:
            weight = valid[:, :, None].to(tokens.dtype)
            pooled = (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)
        return F.layer_norm(pooled, (self.width,), eps=LAYER_EPS) if self.like_modernbert else pooled

    @property
    def target_kind(self) -> str:
        """Whether a hidden position is rebuilt into values or a category."""
        return self.stem.target_kind

    @property
    def target_size(self) -> int:
        """How many values a hidden position should be rebuilt into, or one of how many categories."""
        return self.stem.target_size

    def targets(self, x: Tensor) -> Tensor:
        """What each position should be rebuilt into, (B, T, P) or (B, T)."""
        return self.stem.targets(x)

    def assemble(self, targets: Tensor) -> Tensor:
        """Inputs from the targets of all positions: the inverse of `targets`."""
        return self.stem.assemble(targets)

    def maskable(self, x: Tensor) -> Tensor:
        """Which positions may be hidden, (B, T)."""
        return self.stem.maskable(x)

    def words(self, x: Tensor) -> Tensor:
        """Numbers (B, T) that are equal for the positions of one word."""
        return self.stem.words(x)

    def head(self, task: str, outputs: int) -> nn.Module:
        """From features (..., D) to (..., outputs); on token numbers in the form of transformers' heads."""
        if self.stem.target_kind != "category":
            return nn.Linear(self.width, outputs)
        return token_head(task, outputs, self.architecture, self.stem.embedding)

    def depths(self) -> dict[str, int]:
        """What makes the first tokens at 0, then one depth per block, then the final norm."""
        first = {"stem": 0}
        first |= {name: 0 for name in ("position", "mask_token", "embedding_norm") if getattr(self, name) is not None}
        blocks = {f"blocks.{index}": index + 1 for index in range(len(self.blocks))}
        return {**first, **blocks, "norm": len(self.blocks) + 1}
