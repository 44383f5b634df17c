"""Distillation of logits: match the class probabilities of a finetuned teacher (Hinton et al. 2015)."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import PositiveFloat
from warmstart.core.spec import Spec
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.classification import Classification


class DistillLogits(Objective, nn.Module):
    """The targets are the teacher's probabilities, and both logits are divided by `temperature`.

    The loss is multiplied by the square of the temperature, so that gradients have the same scale at any temperature.
    The targets are computed once, on the rows without augmentation: every augmented view of a row has the same target.

    Source: Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural Network", section 2,
    https://arxiv.org/abs/1503.02531; without true labels.

    Args:
        spec: its labels are those of the teacher.
        loss: loss of the logits and the teacher's probabilities.
        temperature: divisor of both logits; probabilities are more even at a higher temperature.
    """

    teacher_output: ClassVar = Classification
    predicts: ClassVar = "category"
    default_loss: ClassVar = staticmethod(cross_entropy)

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, temperature: PositiveFloat = 2.0):
        super().__init__()
        self.loss, self.temperature = loss, temperature
        self.head = nn.Linear(backbone.width, spec.outputs)

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over examples; the targets are the logits of the teacher (B, C).

        The loss of the teacher's own logits is subtracted, so that cross-entropy gives a Kullback-Leibler divergence.
        The measure `agreement` is the share of examples with the teacher's most likely class.
        """
        logits = self.head(backbone(batch.x, batch.mask).pooled).float()
        targets = batch.y.float()
        scaled, scaled_targets = logits / self.temperature, targets / self.temperature
        probabilities = scaled_targets.softmax(-1)
        values = self.loss(scaled, probabilities) - self.loss(scaled_targets, probabilities)
        values = values * self.temperature**2
        agreement = (logits.argmax(-1) == targets.argmax(-1)).float().mean()
        return StepOutput(values.mean(), values.numel(), measures={"agreement": agreement})
