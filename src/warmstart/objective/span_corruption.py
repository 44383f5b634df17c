"""Span corruption: generate the spans that are removed from a text (T5), or the complete text (BART)."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import OpenUnitInterval, PositiveInt
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy, is_likelihood
from warmstart.objective.seq2seq import NONE, shifted


class SpanCorruption(Objective, nn.Module):
    """Replace random spans of tokens by one mask token each, and generate what was removed.

    The target has the spans, each after a mask token (Raffel et al. 2020, "T5"; its mask tokens are numbered, here they
    are the same, which needs no further tokens in the vocabulary), or the complete text (Lewis et al. 2020, "BART").

    Args:
        backbone: a backbone with a decoder.
        spec: spec with a vocabulary that has a mask token and an end token.
        loss: loss of logits and token ids.
        ratio: share of the tokens to remove.
        span: length of a span in tokens.
        generate: spans, or text for the complete text.

    Raises:
        UserError: the tokenizer has no mask token or no end token.
    """

    needs: ClassVar = frozenset({"decode"})
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)
    task: ClassVar = "seq2seq_lm"
    head: ClassVar = None  # the output layer is that of the decoder

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        ratio: OpenUnitInterval = 0.15,
        span: PositiveInt = 3,
        generate: Literal["spans", "text"] = "spans",
    ):
        super().__init__()
        self.loss, self.ratio, self.span, self.generate = loss, ratio, span, generate
        self.mask, self.end = spec.vocabulary.mask, spec.vocabulary.end
        if self.mask is None or self.end is None:
            raise UserError(
                "objective=span_corruption and text_infilling need a tokenizer with a mask and an end token, which T5 "
                "has not: use a BART or a model of your own"
            )

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over the tokens of the targets."""
        valid = torch.ones_like(batch.x, dtype=torch.bool) if batch.mask is None else batch.mask > 0
        if batch.mask is not None and batch.mask.dtype == torch.int64:
            raise UserError("data.separate=true is not supported by objective=span_corruption: set it to false")
        removed = self.choose(backbone.maskable(batch.x) & valid)
        x, mask, labels = corrupted(batch.x, valid, removed, self.mask, self.end, backbone.padding)
        if self.generate == "text":
            labels = batch.x.masked_fill(~valid, NONE)
        keep = labels != NONE
        logits = backbone.decode(backbone(x, mask).tokens, mask, shifted(backbone, labels))
        losses = self.loss(logits[keep], labels[keep])
        accuracy = (logits[keep].argmax(-1) == labels[keep]).float().mean()
        return StepOutput(losses.mean(), losses.numel(), measures={} if self.training else {"token_accuracy": accuracy})

    def choose(self, maskable: Tensor) -> Tensor:
        """Return which of the maskable tokens are removed (B, T): about `ratio` of them, and at least one."""
        draws = torch.rand(maskable.shape, device=maskable.device).masked_fill(~maskable, 2.0)
        count = (maskable.sum(1) * (self.ratio / self.span)).round().clamp(min=1).long()
        starts = draws <= draws.sort(1).values.gather(1, count[:, None] - 1)
        removed = starts
        for shift in range(1, self.span):
            removed = removed | torch.cat([torch.zeros_like(starts[:, :shift]), starts[:, :-shift]], 1)
        return removed & maskable

    def summary(self, loss: float, spec: Spec) -> dict[str, float]:
        """Return the perplexity of the targets, if the loss is their negative log-likelihood."""
        return {"perplexity": math.exp(min(loss, 700))} if is_likelihood(self.loss) else {}


def corrupted(
    x: Tensor, valid: Tensor, removed: Tensor, mask: int, end: int, padding: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs (B, t), their mask, and labels (B, L), which end with the end token and are padded with -100.

    Args:
        x: token ids (B, T).
        valid: which are no padding (B, T).
        removed: which are removed (B, T).
        mask: id of the token that replaces a span.
        end: id of the end token.
        padding: id of the padding.
    """
    first = removed & ~torch.cat([torch.zeros_like(removed[:, :1]), removed[:, :-1]], 1)
    inputs, kept = compact(x.masked_fill(first, mask), valid & (first | ~removed))
    both = torch.stack([torch.full_like(x, mask), x], 2).flatten(1)  # a mask token before each token
    chosen = torch.stack([first, removed], 2).flatten(1)
    ones = torch.ones_like(first[:, :1])
    labels, is_label = compact(torch.cat([both, x.new_full((len(x), 1), end)], 1), torch.cat([chosen, ones], 1))
    return inputs.masked_fill(~kept, padding), kept, labels.masked_fill(~is_label, NONE)


def compact(values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the chosen values (B, T) of each row first, as (B, t), and which of these are chosen."""
    order = chosen.int().argsort(dim=1, descending=True, stable=True)[:, : max(1, int(chosen.sum(1).max()))]
    return values.gather(1, order), chosen.gather(1, order)
