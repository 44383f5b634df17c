"""Rebuild hidden positions by a light decoder, while the backbone computes the visible ones alone (He et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import Count, Depth, OpenUnitInterval
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse

EPSILON = 1e-6


class MaskedAutoencoder(Objective, nn.Module):
    """A share `ratio` of each example's positions is hidden anew every step; the loss is over the hidden ones alone.

    Source: He et al. (2022), "Masked Autoencoders Are Scalable Vision Learners", https://arxiv.org/abs/2111.06377;
    positions are learned in place of fixed waves.

    Shapes: B batch, T positions, V visible ones of them, P values of a position, D' width of the decoder.

    Args:
        backbone: one that can leave positions out.
        spec: what an example looks like.
        loss: between rebuilt and true values of a position.
        ratio: share of the positions that is hidden; at least one of each example stays visible.
        depth: blocks of the decoder.
        width: of the decoder.
        heads: of the decoder's attention.
        normalise: rebuild a position's values less their mean and divided by their standard deviation.

    Raises:
        UserError: the width is not a multiple of the heads, or positions of one value are to be normalised.
    """

    predicts: ClassVar = "value"
    needs: ClassVar = frozenset({"skip"})
    default_loss: ClassVar = staticmethod(mse)
    abilities: ClassVar = frozenset({"pictures"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        ratio: OpenUnitInterval = 0.75,
        depth: Depth = 2,
        width: Count = 64,
        heads: Count = 4,
        normalise: bool = True,
    ):
        super().__init__()
        if width % heads:
            raise UserError(f"objective.width={width} is not a multiple of objective.heads={heads}")
        if normalise and backbone.target_size == 1:
            raise UserError("objective.normalise=true: positions hold one value each; set objective.normalise=false")
        self.loss = loss
        self.ratio, self.normalise = ratio, normalise
        positions = backbone.targets(torch.zeros(1, *spec.shape)).shape[1]
        self.bridge = nn.Linear(backbone.width, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.position = nn.Parameter(torch.randn(positions, width) * 0.02)
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerEncoder(block, depth, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, backbone.target_size)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """One loss value per hidden position; the head is computed there only. Where none is hidden, the loss is 0."""
        visible, shown, hidden = self.choose(backbone, batch)
        outputs = self.head(self.decode(backbone, batch, visible, shown)[hidden])
        wanted = backbone.targets(batch.x)[hidden]
        if self.normalise:
            center, deviation = moments(wanted)
            wanted = (wanted - center) / deviation
        values = self.loss(outputs, wanted)
        return StepOutput(values.mean() if values.numel() else values.sum(), values.numel())

    def choose(self, backbone: Backbone, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Numbers (B, V) of the positions that the backbone computes, which are shown (B, T), and hidden (B, T).

        Where padding leaves an example fewer than V to show, others fill its row up, which nothing then looks at.
        """
        able = backbone.maskable(batch.x)
        if batch.mask is not None:
            able = able & (batch.mask > 0)
        count = (able.sum(1, keepdim=True) * (1 - self.ratio)).round().clamp(min=1).long()
        order = torch.rand(able.shape, device=able.device).masked_fill(~able, 2).argsort(1)
        first = torch.arange(able.shape[1], device=able.device) < count
        shown = torch.zeros_like(able).scatter(1, order, first)
        return order[:, : int(count.max())], shown, able & ~shown

    def decode(self, backbone: Backbone, batch: Batch, visible: Tensor, shown: Tensor) -> Tensor:
        """Features of all positions (B, T, D') by what the backbone makes of the visible ones (B, V)."""
        is_padded = batch.mask is not None
        tokens = self.bridge(backbone(batch.x, shown if is_padded else None, visible=visible).tokens)
        whole = tokens.new_zeros(*shown.shape, tokens.shape[2]).scatter(
            1, visible[:, :, None].expand_as(tokens), tokens
        )
        whole = torch.where(shown[:, :, None], whole, self.mask_token) + self.position[: shown.shape[1]]
        return self.decoder(whole, src_key_padding_mask=batch.mask == 0 if is_padded else None)

    def pictures(self, backbone: Backbone, batch: Batch) -> list[Tensor]:
        """Inputs, what was visible, and the inputs with hidden positions rebuilt, each of the shape of the inputs."""
        targets = backbone.targets(batch.x)
        visible, shown, hidden = self.choose(backbone, batch)
        guesses = self.head(self.decode(backbone, batch, visible, shown))
        if self.normalise:
            center, deviation = moments(targets)
            guesses = guesses * deviation + center
        hidden = hidden[:, :, None]
        parts = [targets, targets.masked_fill(hidden, 0), torch.where(hidden, guesses, targets)]
        return [backbone.assemble(part) for part in parts]


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of positions' values (..., P), each (..., 1)."""
    return values.mean(-1, keepdim=True), (values.var(-1, keepdim=True) + EPSILON).sqrt()
