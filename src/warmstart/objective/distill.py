"""Distillation: match the pooled features of a frozen teacher (Hinton et al. 2015; Romero et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse


class Distill(Objective, nn.Module):
    """A linear map of the pooled features predicts those of the teacher, standardized on the training rows.

    The targets are computed once, on the rows without augmentation: every augmented view of a row has the same target.

    Args:
        spec: `center` and `spread` are those of the teacher's features.
        loss: loss of the prediction and the target.
        cosine: scale both to a mean square of 1, so that only their direction counts: `mse` is then 2 - 2 cos.
    """

    teacher_output: ClassVar = "features"
    predicts: ClassVar = "value"
    default_loss: ClassVar = staticmethod(mse)
    abilities: ClassVar = frozenset({"load_head"})

    def __init__(self, backbone: Backbone, spec: Spec, loss: LossFunction, cosine: bool = True):
        super().__init__()
        self.loss, self.cosine = loss, cosine
        self.register_buffer("center", torch.tensor(spec.center, dtype=torch.float32))
        self.register_buffer("spread", torch.tensor(spec.spread, dtype=torch.float32))
        self.head = nn.Linear(backbone.width, len(spec.center))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distill:
        """Keep mean and standard deviation in float32 when the Trainer casts the model."""
        kept = self.center, self.spread
        super()._apply(fn, recurse)
        self.center, self.spread = (value.to(fn(value).device) for value in kept)
        return self

    def load_head(self, head: Mapping[str, Tensor], labels: Sequence[str]) -> bool:
        """Load the head of a distillation of the same teacher on the same rows; return whether it was loaded.

        With another teacher or other rows, `center` and `spread` differ: they belong to the targets, not to the head.
        """
        if not self.fits(head):
            return False
        self.load_state_dict(head)
        return True

    def fits(self, head: Mapping[str, Tensor]) -> bool:
        """Return whether a head has the shapes of this one, and the same `center` and `spread`."""
        own = self.state_dict()
        same_shapes = {n: value.shape for n, value in own.items()} == {n: value.shape for n, value in head.items()}
        return same_shapes and all(torch.equal(own[name], head[name]) for name in ("center", "spread"))

    def compared(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return loss and cosine similarity (N,) of predictions from features (N, W) and targets (N, D)."""
        predictions = self.head(features).float()
        targets = (targets.float() - self.center) / self.spread
        similarity = F.cosine_similarity(predictions.detach(), targets)
        if self.cosine:
            predictions, targets = (F.normalize(z, dim=1) * z.shape[1] ** 0.5 for z in (predictions, targets))
        return self.loss(predictions, targets), similarity

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over examples; the targets are the features of the teacher (B, D).

        The measure `cosine` is the mean cosine similarity of predictions and standardized targets.
        """
        values, similarity = self.compared(backbone(batch.x, batch.mask).pooled, batch.y)
        return StepOutput(values.mean(), values.numel(), measures={"cosine": similarity.mean()})
