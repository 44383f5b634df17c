"""Encoder-decoder transformer for texts, with the layers of the MBart class of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.backbone.block import STD, Architecture, Block, attend, attention_mask, init_blocks, make_norm
from warmstart.backbone.mbart import to_mbart
from warmstart.core.batch import Features
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.ranges import Depth, PositiveInt, Ratio, RightOpenUnitInterval
from warmstart.core.spec import Spec


class DecoderBlock(Block):
    """Pre-norm self-attention, attention to the features of the encoder, and MLP."""

    def __init__(self, architecture: Architecture):
        super().__init__(architecture)
        self.norm_cross = make_norm(architecture)
        self.cross_q = nn.Linear(architecture.width, architecture.width)
        self.cross_kv = nn.Linear(architecture.width, 2 * architecture.width)
        self.cross_out = nn.Linear(architecture.width, architecture.width)

    def cross_attend(self, x_bld: Tensor, features: Tensor, mask_arguments: dict[str, Any]) -> Tensor:
        """Return the sum of (B, L, D) and its attention to features (B, T, D)."""
        q = self.cross_q(self.norm_cross(x_bld))
        k, v = self.cross_kv(features).chunk(2, -1)
        q, k, v = (tensor.unflatten(-1, (self.heads, -1)).transpose(1, 2) for tensor in (q, k, v))
        attended = attend(q, k, v, mask_arguments).transpose(1, 2).flatten(2)
        return x_bld + self.dropout(self.cross_out(attended))


class EncoderDecoder(Backbone, nn.Module):
    """Encoder and decoder with pre-norm blocks, learned positions and one token embedding.

    The features are those of the encoder. The input of the decoder starts with the end token, as in BART (Lewis et al.
    2020), and its output layer is the token embedding. `exported` gives an MBart of transformers (Liu et al. 2020).

    Args:
        spec: spec with a vocabulary.
        stem: constructor of the stem of texts.
        width: width of a token.
        depth: number of blocks of the encoder and of the decoder.
        heads: number of attention heads.
        mlp_ratio: hidden width of the MLP, divided by `width`.
        dropout: dropout after attention and MLP.
    """

    modalities: ClassVar = frozenset()  # that of the stem
    abilities: ClassVar = frozenset({"decode", "hide"})

    def __init__(
        self,
        spec: Spec,
        stem: Callable[..., nn.Module],
        width: PositiveInt = 128,
        depth: Depth = 2,
        heads: PositiveInt = 4,
        mlp_ratio: Ratio = 4.0,
        dropout: RightOpenUnitInterval = 0.0,
    ):
        super().__init__()
        self.architecture = Architecture(
            width=width,
            depth=depth,
            heads=heads,
            kv_heads=heads,
            mlp_ratio=mlp_ratio,
            mlp="gelu",
            norm="layer",
            bias=True,
            position="learned",
            window=None,
            global_every=1,
            causal=False,
            tied=True,
            pooling="mean",
            dropout=dropout,
            qk_norm=False,
        )
        self.width, self.padding, self.start = width, spec.vocabulary.padding, spec.vocabulary.end
        if self.start is None:
            raise UserError("backbone=encoder_decoder needs a tokenizer with an end token")
        self.stem = stem(spec=spec, width=width)
        self.encoder, self.decoder = (
            Half(self.architecture, self.stem.positions, block) for block in (Block, DecoderBlock)
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Map token ids (B, T) to features of the encoder (B, T, D) and their mean over valid positions (B, D)."""
        if hidden is not None:
            x = self.stem.hide(x, hidden)
        arguments = attention_mask(mask, x.shape[1], x.device)
        tokens = self.encoder.embed(self.stem(x, mask))
        for block in self.encoder.blocks:
            tokens = block(tokens, arguments)
        tokens = self.encoder.norm(tokens)
        if mask is None:
            return Features(tokens, tokens.mean(1))
        weight = (mask > 0)[:, :, None].to(tokens.dtype)
        return Features(tokens, (tokens * weight).sum(1) / weight.sum(1).clamp(min=1))

    def decode(self, features: Tensor, mask: Tensor | None, ids: Tensor) -> Tensor:
        """Map features (B, T, D), their mask and the token ids before each position (B, L) to logits (B, L, V)."""
        x = self.decoder.embed(self.stem(ids))
        cross = {"attn_mask": None if mask is None else (mask > 0)[:, None, None]}
        for block in self.decoder.blocks:
            x = block.self_attend(x, {"is_causal": True})
            x = block.feed_forward(block.cross_attend(x, features, cross))
        return F.linear(self.decoder.norm(x), self.stem.embedding.weight)

    def halves(self) -> dict[str, list[nn.Module]]:
        return {"encoder": [self.stem, self.encoder], "decoder": [self.stem, self.decoder]}

    @property
    def decoder_positions(self) -> int:
        return len(self.decoder.position)

    def generator(self) -> Any:
        """Return a model of transformers with copies of the weights, on their device."""
        return to_mbart(self)

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> Any:
        """Return an equivalent model of transformers, on the CPU and in evaluation mode.

        Raises:
            UserError: the model has a head for another task.
        """
        if task not in (None, "seq2seq_lm"):
            raise UserError(
                f"transformers has no equivalent of backbone=encoder_decoder for {task}: the model was not exported"
            )
        model = to_mbart(self).cpu()
        return model.model if task is None else model

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
        return x

    def assemble(self, targets: Tensor) -> Tensor:
        return targets

    def maskable(self, x: Tensor) -> Tensor:
        return self.stem.maskable(x)

    def word_ids(self, x: Tensor) -> Tensor:
        return self.stem.word_ids(x)

    def depths(self) -> dict[str, int]:
        """Return depth 0 for embeddings, then one depth per block of the encoder, and one per block of the decoder."""
        depth = self.architecture.depth
        found = {"stem": 0, "encoder.norm": depth, "decoder.norm": 2 * depth + 1}
        for name, first in (("encoder", 1), ("decoder", depth + 1)):
            found |= {f"{name}.position": 0, f"{name}.embedding_norm": 0}
            found |= {f"{name}.blocks.{index}": first + index for index in range(depth)}
        return found


class Half(nn.Module):
    """Position embedding, blocks and norms of an encoder or of a decoder.

    Args:
        architecture: settings of the transformer.
        positions: maximum number of positions.
        block: class of the blocks.
    """

    def __init__(self, architecture: Architecture, positions: int, block: type[Block]):
        super().__init__()
        self.position = nn.Parameter(torch.randn(positions, architecture.width) * STD)
        self.embedding_norm = make_norm(architecture)
        self.blocks = nn.ModuleList(block(architecture) for _ in range(architecture.depth))
        self.norm = make_norm(architecture)
        init_blocks(self.blocks)

    def embed(self, tokens: Tensor) -> Tensor:
        """Add positions to embedded tokens (B, T, D), and normalize.

        Raises:
            UserError: there are more tokens than positions.
        """
        length = tokens.shape[1]
        if length > len(self.position):
            raise UserError(f"a text has {length} tokens; backbone=encoder_decoder has {len(self.position)} positions")
        return self.embedding_norm(tokens + self.position[:length])
