"""Masked autoencoder (He et al. 2022): encode visible positions, reconstruct hidden ones by a small decoder."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import Depth, OpenUnitInterval, PositiveInt
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse

EPSILON = 1e-6


class MaskedAutoencoder(Objective, nn.Module):
    """Hide the share `ratio` of the positions, drawn at random in every step; the loss covers only these.

    Source: He et al. (2022), "Masked Autoencoders Are Scalable Vision Learners", https://arxiv.org/abs/2111.06377;
    the position embedding is learned instead of sinusoidal.

    Shapes: B batch, T positions, V visible positions, P values of a position, D' width of the decoder.

    Args:
        backbone: a backbone that can skip positions.
        spec: shape and type of an example.
        loss: loss of reconstructed and true values of a position.
        ratio: share of the positions to hide; at least one per example stays visible.
        depth: number of blocks of the decoder.
        width: width of the decoder.
        heads: number of attention heads of the decoder.
        normalize: whether to standardize the target values of each position.

    Raises:
        UserError: the width is no multiple of the heads, or `normalize` is set where positions have one value each.
    """

    predicts: ClassVar = "value"
    needs: ClassVar = frozenset({"skip"})
    default_loss: ClassVar = staticmethod(mse)
    abilities: ClassVar = frozenset({"reconstructions"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        ratio: OpenUnitInterval = 0.75,
        depth: Depth = 2,
        width: PositiveInt = 64,
        heads: PositiveInt = 4,
        normalize: bool = True,
    ):
        super().__init__()
        if width % heads:
            raise UserError(f"objective.width={width} is not a multiple of objective.heads={heads}")
        if normalize and backbone.target_size == 1:
            raise UserError("objective.normalize=true: positions hold one value each; set objective.normalize=false")
        self.loss = loss
        self.ratio, self.normalize = ratio, normalize
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
        """Return the mean loss over hidden positions, or 0 if there are none; the head is applied to these only."""
        visible, shown, hidden = self.choose(backbone, batch)
        outputs = self.head(self.decode(backbone, batch, visible, shown)[hidden])
        targets = backbone.targets(batch.x)[hidden]
        if self.normalize:
            center, deviation = moments(targets)
            targets = (targets - center) / deviation
        values = self.loss(outputs, targets)
        return StepOutput(values.mean() if values.numel() else values.sum(), values.numel())

    def choose(self, backbone: Backbone, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return the indices of the positions to encode (B, V), and masks of visible and hidden positions (B, T).

        If an example has fewer than V visible positions, other positions fill its row, and are ignored.
        """
        maskable = backbone.maskable(batch.x)
        if batch.mask is not None:
            maskable = maskable & (batch.mask > 0)
        count = (maskable.sum(1, keepdim=True) * (1 - self.ratio)).round().clamp(min=1).long()
        order = torch.rand(maskable.shape, device=maskable.device).masked_fill(~maskable, 2).argsort(1)
        first = torch.arange(maskable.shape[1], device=maskable.device) < count
        shown = torch.zeros_like(maskable).scatter(1, order, first)
        return order[:, : int(count.max())], shown, maskable & ~shown

    def decode(self, backbone: Backbone, batch: Batch, visible: Tensor, shown: Tensor) -> Tensor:
        """Return decoder features of all positions (B, T, D'), from the visible ones (B, V)."""
        is_padded = batch.mask is not None
        tokens = self.bridge(backbone(batch.x, shown if is_padded else None, visible=visible).tokens)
        filled = tokens.new_zeros(*shown.shape, tokens.shape[2]).scatter(
            1, visible[:, :, None].expand_as(tokens), tokens
        )
        filled = torch.where(shown[:, :, None], filled, self.mask_token) + self.position[: shown.shape[1]]
        return self.decoder(filled, src_key_padding_mask=batch.mask == 0 if is_padded else None)

    def reconstructions(self, backbone: Backbone, batch: Batch) -> list[Tensor]:
        """Return inputs, inputs with hidden positions set to 0, and inputs with these reconstructed."""
        targets = backbone.targets(batch.x)
        visible, shown, hidden = self.choose(backbone, batch)
        predictions = self.head(self.decode(backbone, batch, visible, shown))
        if self.normalize:
            center, deviation = moments(targets)
            predictions = predictions * deviation + center
        hidden = hidden[:, :, None]
        views = [targets, targets.masked_fill(hidden, 0), torch.where(hidden, predictions, targets)]
        return [backbone.assemble(view) for view in views]


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation (..., 1) of values (..., P)."""
    return values.mean(-1, keepdim=True), (values.var(-1, keepdim=True) + EPSILON).sqrt()
