"""Heads on text features, with the layers of the ModernBERT and Llama classes of transformers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint as recomputed

from warmstart.backbone.block import (
    LAYER_EPS,
    STD,
    Architecture,
    Block,
    Rotary,
    attention_mask,
    init_blocks,
    make_norm,
    positions_in_documents,
    zero_residuals,
)
from warmstart.core.batch import Features
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.ranges import Depth, PositiveInt, Ratio, RightOpenUnitInterval
from warmstart.core.spec import Spec

if TYPE_CHECKING:
    pass


class Tied(nn.Module):
    """Output layer whose weight is the input embedding (Press and Wolf 2017), a parameter of the backbone."""

    def __init__(self, embedding: nn.Embedding, bias: bool):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(embedding.num_embeddings)) if bias else None
        self.source = (embedding,)  # in a tuple, so that it is not registered as a submodule

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., D) to (..., V)."""
        return F.linear(x, self.source[0].weight, self.bias)


def token_head(task: str, outputs: int, architecture: Architecture, embedding: nn.Embedding) -> nn.Module:
    """Return a head that maps features (..., D) to (..., outputs).

    Args:
        task: name of the task in transformers, such as masked_lm.
        outputs: number of outputs.
        architecture: settings of the transformer.
        embedding: token embedding of the transformer.
    """
    width, causal = architecture.width, architecture.causal
    if task in ("masked_lm", "causal_lm"):
        decoder = Tied(embedding, bias=not causal) if architecture.tied else linear(width, outputs, bias=not causal)
        if causal:
            return decoder
        layers = {
            "dense": linear(width, width, bias=False),
            "act": nn.GELU(),
            "norm": nn.LayerNorm(width, eps=LAYER_EPS, bias=architecture.bias),
            "decoder": decoder,
        }
        return nn.Sequential(OrderedDict(layers))
    if task == "sequence_classification":
        return linear(width, outputs, bias=not causal)
    if causal:
        return linear(width, outputs)
    norm = nn.LayerNorm(width, eps=LAYER_EPS, elementwise_affine=False)
    return nn.Sequential(OrderedDict(norm=norm, classifier=linear(width, outputs)))


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear layer with weights from N(0, STD^2) and zero bias."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(layer.weight, std=STD)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class Transformer(Backbone, nn.Module):
    """Stem, position embedding, pre-norm blocks, final norm, pooling.

    On text it has the architecture of ModernBERT (Warner et al. 2024), whose embedding norm replaces the norm of the
    first attention layer, or, if causal, of Llama (Touvron et al. 2023), with `qk_norm` of Qwen3 (Yang et al. 2025).
    `exported` lists the classes of transformers that can load it.

    Args:
        spec: shape and type of an example.
        stem: constructor of the stem.
        width: width of a token.
        depth: number of blocks.
        heads: number of attention heads.
        kv_heads: number of key and value heads (grouped-query attention, Ainslie et al. 2023); None for `heads`.
        mlp_ratio: hidden width of the MLP, divided by `width`.
        mlp: gelu, or gated: geglu or swiglu.
        norm: layer or rms.
        bias: whether linear layers and layer norms have a bias.
        position: learned or rotary position embedding.
        window: number of positions attended to on each side; None for all.
        global_every: with a window, the first of every `global_every` blocks attends to all positions.
        causal: whether to attend to earlier positions only.
        tied: whether language-model heads share the token embedding.
        pooling: cls (the first), mean or last of the valid positions; None for mean, or last if causal.
        dropout: dropout after attention and MLP.
        qk_norm: whether to normalize queries and keys by their root mean square (Henry et al. 2020), as in Qwen3.
        zero_init: whether the last layers of attention and MLP start at 0.
        checkpoint: whether to recompute the activations of each block in the backward pass (Chen et al. 2016).
    """

    modalities: ClassVar = frozenset()  # that of the stem

    def __init__(
        self,
        spec: Spec,
        stem: Callable[..., nn.Module],
        width: PositiveInt = 128,
        depth: Depth = 4,
        heads: PositiveInt = 4,
        kv_heads: PositiveInt | None = None,
        mlp_ratio: Ratio = 4.0,
        mlp: Literal["gelu", "geglu", "swiglu"] = "gelu",
        norm: Literal["layer", "rms"] = "layer",
        bias: bool = True,
        position: Literal["learned", "rotary"] = "learned",
        window: PositiveInt | None = None,
        global_every: PositiveInt = 3,
        causal: bool = False,
        tied: bool = True,
        pooling: Literal["cls", "mean", "last"] | None = None,
        dropout: RightOpenUnitInterval = 0.0,
        qk_norm: bool = False,
        zero_init: bool = False,
        checkpoint: bool = False,
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
            qk_norm=qk_norm,
        )
        self.width, self.checkpoint = width, checkpoint
        self.stem = stem(spec=spec, width=width)
        is_text = self.stem.target_kind == "category"
        self.like_modernbert = is_text and not causal
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
            Block(self.architecture, prenorm=index > 0 or not self.like_modernbert) for index in range(depth)
        )
        self.norm = make_norm(self.architecture)
        if is_text:
            init_blocks(self.blocks)
        if zero_init:
            zero_residuals(self.blocks)

    @staticmethod
    def abilities(causal: bool = False, window: int | None = None, **settings: Any) -> frozenset[str]:
        """Return the abilities with these settings; `skip` is not possible with windowed attention."""
        if causal:
            return frozenset({"causal"})
        return frozenset({"hide"}) if window is not None else frozenset({"hide", "skip"})

    def forward(
        self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None, visible: Tensor | None = None
    ) -> Features:
        """Map (B, ...) to tokens (B, T, D) and pooled (B, D); with `visible` (B, V), only to tokens (B, V, D).

        Raises:
            UserError: a sequence is longer than the learned position embedding.
        """
        if visible is not None and self.stem.hides:  # before the convolutions of the stem mix positions
            hidden = torch.ones_like(self.maskable(x)).scatter(1, visible, False)
        tokens = self.embed(x, mask, hidden)
        rotary = None if self.rotary is None else self.rotary(tokens.shape[1])
        if visible is not None:
            tokens = tokens.take_along_dim(visible[:, :, None], 1)
            mask = None if mask is None else mask.take_along_dim(visible, 1)
            rotary = None if rotary is None else rotary[visible]
        length, device, causal = tokens.shape[1], tokens.device, self.architecture.causal
        global_mask = attention_mask(mask, length, device, causal)
        local_mask = global_mask
        if self.architecture.window is not None:
            local_mask = attention_mask(mask, length, device, causal, self.architecture.window)
        for index, block in enumerate(self.blocks):
            block_mask = local_mask if self.architecture.is_local(index) else global_mask
            if self.checkpoint and self.training and torch.is_grad_enabled():
                tokens = recomputed(block, tokens, block_mask, rotary, use_reentrant=False)
            else:
                tokens = block(tokens, block_mask, rotary)
        tokens = self.norm(tokens)
        return Features(tokens, self.pool(tokens, mask))

    def embed(self, x: Tensor, mask: Tensor | None, hidden: Tensor | None) -> Tensor:
        """Return the input of the first block (B, T, D)."""
        if hidden is not None and self.mask_token is None:
            x = self.stem.hide(x, hidden)
        tokens = self.stem(x, mask)
        if hidden is not None and self.mask_token is not None:
            tokens = torch.where(hidden[:, :, None], self.mask_token, tokens)
        if self.position is not None:
            if tokens.shape[1] > len(self.position):
                raise UserError(
                    f"an example has {tokens.shape[1]} positions; backbone.position=learned has {len(self.position)}: "
                    "use shorter examples or backbone.position=rotary"
                )
            has_documents = mask is not None and mask.dtype not in (torch.bool, torch.uint8)
            tokens = tokens + self.position[positions_in_documents(mask) if has_documents else slice(tokens.shape[1])]
        return tokens if self.embedding_norm is None else self.embedding_norm(tokens)

    def pool(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Map (B, T, D) to (B, D), normalized as in the classifiers of ModernBERT."""
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
        return self.stem.target_kind

    @property
    def target_size(self) -> int:
        return self.stem.target_size

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.stem.embedding

    def targets(self, x: Tensor) -> Tensor:
        return self.stem.targets(x)

    def assemble(self, targets: Tensor) -> Tensor:
        return self.stem.assemble(targets)

    def maskable(self, x: Tensor) -> Tensor:
        return self.stem.maskable(x)

    def word_ids(self, x: Tensor) -> Tensor:
        return self.stem.word_ids(x)

    def head(self, task: str, outputs: int) -> nn.Module:
        """Return a head that maps features (..., D) to (..., outputs); on text, as in transformers."""
        if self.stem.target_kind != "category":
            return nn.Linear(self.width, outputs)
        return token_head(task, outputs, self.architecture, self.stem.embedding)

    def depths(self) -> dict[str, int]:
        """Return depth 0 for stem and embeddings, then one depth per block, then the final norm."""
        first = {"stem": 0}
        first |= {name: 0 for name in ("position", "mask_token", "embedding_norm") if getattr(self, name) is not None}
        blocks = {f"blocks.{index}": index + 1 for index in range(len(self.blocks))}
        return {**first, **blocks, "norm": len(self.blocks) + 1}
