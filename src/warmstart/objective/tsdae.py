"""TSDAE (Wang et al. 2021), https://arxiv.org/abs/2104.06979: reconstruct a text from the vector of a part of it."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import OpenUnitInterval, PositiveInt
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy, is_likelihood
from warmstart.objective.masked import choose_positions

HEADS = 8  # of the decoder, at most


class TSDAE(Objective, nn.Module):
    """Delete tokens, encode the others to one vector, and predict each token of the text from it and those before.

    The decoder's token embedding and output layer are the token embedding of the backbone. Of the encoder it attends to
    the pooled features only.

    Args:
        backbone: a backbone with a token embedding.
        spec: spec with a vocabulary.
        loss: loss of logits and token ids.
        delete: share of the tokens to delete; special tokens are never deleted, nor are all others.
        depth: number of layers of the decoder.
    """

    needs: ClassVar = frozenset({"token_embedding"})
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    encodes_rows: ClassVar = True

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        delete: OpenUnitInterval = 0.6,
        depth: PositiveInt = 1,
    ):
        super().__init__()
        self.loss, self.delete, self.padding = loss, delete, spec.vocabulary.padding
        width = backbone.token_embedding.embedding_dim
        self.memory = nn.Linear(backbone.width, width)
        self.position = nn.Parameter(torch.randn(spec.shape[0], width) * 0.02)
        self.embedding_norm = nn.LayerNorm(width)
        layer = nn.TransformerDecoderLayer(
            width, math.gcd(width, HEADS), 4 * width, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, depth, nn.LayerNorm(width))
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))  # as in BERT
        self.bias = nn.Parameter(torch.zeros(backbone.token_embedding.num_embeddings))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over all tokens but the first of each text, or 0 if there are none."""
        pooled = backbone(*self.corrupt(backbone, batch)).pooled
        valid = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask > 0
        labels = batch.x[:, 1:][valid[:, 1:]]
        weight = backbone.token_embedding.weight
        if not labels.numel():
            return StepOutput(pooled.sum() * 0, 0)
        outputs = self.decode(batch.x[:, :-1], pooled, weight)[valid[:, 1:]]
        values = self.loss(F.linear(outputs, weight, self.bias), labels)
        return StepOutput(values.mean(), values.numel())

    def corrupt(self, backbone: Backbone, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the tokens (B, t) that are not deleted, in order, and their mask."""
        mask = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask
        deleted = choose_positions(backbone, batch, self.delete)
        has_others = (backbone.maskable(batch.x) & (mask > 0) & ~deleted).any(1, keepdim=True)
        kept = (mask > 0) & ~(deleted & has_others)
        first = kept.int().argsort(dim=1, descending=True, stable=True)[:, : max(1, int(kept.sum(1).max()))]
        valid = kept.gather(1, first)
        return batch.x.gather(1, first).masked_fill(~valid, self.padding), mask.gather(1, first) * valid

    def decode(self, x: Tensor, pooled: Tensor, weight: Tensor) -> Tensor:
        """Map token ids (B, T) and pooled features (B, D) to the features of the next tokens (B, T, E)."""
        tokens = self.embedding_norm(F.embedding(x, weight) + self.position[: x.shape[1]])
        causal = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device, dtype=tokens.dtype)
        return self.transform(self.decoder(tokens, self.memory(pooled)[:, None], causal, tgt_is_causal=True))

    def summary(self, loss: float, spec: Spec) -> dict[str, float]:
        """Return the perplexity per token, if the loss is the negative log-likelihood."""
        return {"perplexity": math.exp(min(loss, 700))} if is_likelihood(self.loss) else {}
