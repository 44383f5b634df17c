"""FixMatch: predictions for weakly augmented rows are the targets of the same rows, strongly augmented."""

from __future__ import annotations

import math
from typing import ClassVar

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective
from warmstart.core.ranges import OpenUnitInterval, PositiveFloat
from warmstart.strategy.pseudo_labels import PseudoLabels


class FixMatch(PseudoLabels):
    """Train on the labelled rows, and on strongly augmented unlabelled rows with the labels of their weak views.

    The weak views are those of data.augment, the strong ones those of data.strong; without data.strong, the targets are
    those of a second pass with other dropout. As in AdaMatch, the weight of the unlabelled rows increases during the
    first half of the run, and pseudo-labels are aligned. Sources: Sohn et al. (2020), "FixMatch",
    https://arxiv.org/abs/2001.07685; Berthelot et al. (2022), "AdaMatch", https://arxiv.org/abs/2106.04732.

    Args:
        confidence: smallest probability of a pseudo-label, above 0 and below 1.
        weight: of the loss of the unlabelled rows in the second half of the run, above 0.
        align: whether to align the class frequencies of the pseudo-labels with those of the labelled rows.
    """

    uses_strong: ClassVar = True

    def __init__(self, confidence: OpenUnitInterval = 0.9, weight: PositiveFloat = 1.0, align: bool = True):
        self.weight = weight
        super().__init__(confidence, align)

    def step(self, objective: Objective, backbone: Backbone, batch: Batch) -> StepOutput:
        """Add the loss of the unlabelled rows to that of the objective."""
        output = objective.step(backbone, batch)
        if batch.unlabelled is None:
            return output
        self.count(output, batch)
        ramp = (1 - math.cos(min(math.pi, 2 * math.pi * self.progress))) / 2
        return self.add(output, objective, backbone, batch, ramp * self.weight)
