"""Name hidden positions by a fixed random quantiser: BEST-RQ (Chiu et al. 2022)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import Count, OpenUnitInterval, at_least
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.choice import choose


class Quantised(Objective, nn.Module):
    """A share `ratio` of the positions is hidden; each is to be told from the other codes of a codebook, not rebuilt.

    A position's class is the nearest code, by cosine, to a random projection of its values; neither is ever trained.

    Args:
        backbone: one that can hide positions, whose targets are values.
        spec: what an example looks like.
        loss: of the outputs at chosen positions.
        ratio: share of the positions that may be hidden.
        whole: choose all positions of a word, or none.
        codes: of the codebook.
        dimensions: of the projection.
    """

    needs: ClassVar = frozenset({"hide"})
    predicts: ClassVar = "category"
    made_of: ClassVar = "value"
    default_loss: ClassVar = staticmethod(cross_entropy)

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        ratio: OpenUnitInterval = 0.5,
        whole: bool = True,
        codes: at_least(2) = 512,
        dimensions: Count = 16,
    ):
        super().__init__()
        self.loss, self.ratio, self.whole = loss, ratio, whole
        self.head = nn.Linear(backbone.width, codes)
        generator = torch.Generator().manual_seed(0)
        size = backbone.target_size
        self.register_buffer("projection", torch.randn(size, dimensions, generator=generator) / size**0.5)
        codebook = torch.randn(codes, dimensions, generator=generator)
        self.register_buffer("codebook", F.normalize(codebook, dim=1))

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """One loss value per chosen position, and in validation the share of the classes that are right.

        Where no position can be chosen, the loss is 0.
        """
        chosen = choose(backbone, batch, self.ratio, self.whole)
        wanted = self.classes(backbone.targets(batch.x)[chosen])
        outputs = self.head(backbone(batch.x, batch.mask, chosen).tokens[chosen])
        values = self.loss(outputs, wanted)
        if not values.numel():
            return StepOutput(values.sum(), 0)
        measures = {} if self.training else {"masked_accuracy": (outputs.argmax(-1) == wanted).float().mean()}
        return StepOutput(values.mean(), values.numel(), measures=measures)

    def classes(self, targets: Tensor) -> Tensor:
        """The nearest code of each position's values (N, P), (N,)."""
        projected = targets.to(self.projection.dtype) @ self.projection
        return (projected @ self.codebook.T).argmax(1)
