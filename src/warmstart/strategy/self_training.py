"""Self-training: the model's own confident predictions for unlabelled rows are further labels."""

from __future__ import annotations

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective
from warmstart.core.ranges import OpenUnitInterval, PositiveFloat, RightOpenUnitInterval
from warmstart.strategy.pseudo_labels import PseudoLabels


class SelfTraining(PseudoLabels):
    """Train on the labelled rows; after a warm-up, also on unlabelled rows that the current model labels confidently.

    A step has as many unlabelled rows as data.batch_size. The training loss includes theirs, and train/pseudo_labels is
    the share of them above the confidence. Until the end of the warm-up, a run equals that of strategy=full. Source:
    Lee (2013), "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks".

    Args:
        confidence: smallest probability of a pseudo-label, above 0 and below 1.
        weight: of the loss of the unlabelled rows, above 0.
        warmup: share of the run without unlabelled rows, 0 or more and below 1.
        align: whether to align the class frequencies of the pseudo-labels with those of the labelled rows.
    """

    def __init__(
        self,
        confidence: OpenUnitInterval = 0.9,
        weight: PositiveFloat = 1.0,
        warmup: RightOpenUnitInterval = 0.3,
        align: bool = True,
    ):
        self.weight, self.warmup = weight, warmup
        super().__init__(confidence, align)

    def step(self, objective: Objective, backbone: Backbone, batch: Batch) -> StepOutput:
        """Add the loss of the unlabelled rows to that of the objective."""
        output = objective.step(backbone, batch)
        if batch.unlabelled is None:
            return output
        self.count(output, batch)
        if self.progress < self.warmup:
            return output
        return self.add(output, objective, backbone, batch, self.weight)
