"""BEST-RQ: classify hidden positions by a random-projection quantizer (Chiu et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import OpenUnitInterval, PositiveInt, at_least
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.masked import choose_positions


class Quantized(Objective, nn.Module):
    """Hide the share `ratio` of the positions and predict the code of each.

    The code of a position is the nearest codebook entry, by cosine similarity, to a random projection of its values.
    Codebook and projection are not trained.

    Args:
        backbone: a backbone that can hide positions and has continuous targets.
        loss: loss of the outputs at hidden positions.
        ratio: share of the maskable positions to hide.
        whole_words: whether to hide all positions of a word, or none.
        codes: number of codes in the codebook.
        dimensions: dimension of the projection.
    """

    needs: ClassVar = frozenset({"hide"})
    predicts: ClassVar = "category"
    input_kind: ClassVar = "value"
    default_loss: ClassVar = staticmethod(cross_entropy)

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        ratio: OpenUnitInterval = 0.5,
        whole_words: bool = True,
        codes: at_least(2) = 512,
        dimensions: PositiveInt = 16,
    ):
        super().__init__()
        self.loss, self.ratio, self.whole_words = loss, ratio, whole_words
        self.head = nn.Linear(backbone.width, codes)
        generator = torch.Generator().manual_seed(0)
        size = backbone.target_size
        self.register_buffer("projection", torch.randn(size, dimensions, generator=generator) / size**0.5)
        codebook = torch.randn(codes, dimensions, generator=generator)
        self.register_buffer("codebook", F.normalize(codebook, dim=1))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over chosen positions, or 0 if there are none, and in validation the accuracy."""
        chosen = choose_positions(backbone, batch, self.ratio, self.whole_words)
        labels = self.classes(backbone.targets(batch.x)[chosen])
        outputs = self.head(backbone(batch.x, batch.mask, chosen).tokens[chosen])
        values = self.loss(outputs, labels)
        if not values.numel():
            return StepOutput(values.sum(), 0)
        measures = {} if self.training else {"masked_accuracy": (outputs.argmax(-1) == labels).float().mean()}
        return StepOutput(values.mean(), values.numel(), measures=measures)

    def classes(self, targets: Tensor) -> Tensor:
        """Return the index of the nearest code (N,) to values (N, P)."""
        projected = targets.to(self.projection.dtype) @ self.projection
        return (projected @ self.codebook.T).argmax(1)
