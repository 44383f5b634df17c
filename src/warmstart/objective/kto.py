"""Kahneman-Tversky optimization: raise the probability of desirable completions, and lower that of undesirable ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import PositiveFloat, PositiveInt
from warmstart.core.spec import Spec
from warmstart.distributed.part import gathered
from warmstart.loss import accepts
from warmstart.objective.head import largest_chunk, make_head
from warmstart.objective.log_probabilities import completion_log_probabilities

Chosen = Literal["loss", "margin", "accuracy"]
MEASURES = ("margin", "accuracy", "desirable_reward", "undesirable_reward", "reference_point")
OF_STEPS = ("accuracy", "reference_point")  # those that a batch of one rating has


@accepts("rating")
def value_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return 1 minus the value (B,) of completions rated `targets`, 1 or 0, given their relative rewards `outputs`."""
    return torch.sigmoid(torch.where(targets > 0, -outputs, outputs))


@dataclass(frozen=True)
class Measures:
    """Loss and measures of outputs (B, 5) of KTO; with (B, 3), the model is its own reference.

    Args:
        beta, desirable_weight, undesirable_weight, loss: those of KTO.
    """

    beta: float
    desirable_weight: float
    undesirable_weight: float
    loss: LossFunction

    def rewards(self, outputs: Tensor) -> Tensor:
        """Return the rewards of the completions, and of the other ones (2, B)."""
        reference = outputs[:, 3:] if outputs.shape[1] == 5 else outputs[:, :2]
        return (self.beta * (outputs[:, :2] - reference)).T

    def losses(self, outputs: Tensor) -> Tensor:
        """Return the weighted loss of each rating (B,)."""
        rating, relative = outputs[:, 2], self.relative(outputs)
        weights = torch.where(rating > 0, self.desirable_weight, self.undesirable_weight)
        return weights * self.loss(relative, rating)

    def point(self, outputs: Tensor) -> Tensor:
        """Return the reference point (scalar)."""
        return self.rewards(outputs)[1].mean().clamp(min=0).detach()

    def relative(self, outputs: Tensor) -> Tensor:
        """Return the rewards of the completions minus the reference point (B,)."""
        return self.rewards(outputs)[0] - self.point(outputs)

    def of(self, outputs: Tensor, name: str) -> Tensor:
        """Return the mean loss, or one of MEASURES (scalar); NaN for a mean over no row."""
        if name == "loss":
            return self.losses(outputs).mean()
        if name == "reference_point":
            return self.point(outputs)
        is_desirable = outputs[:, 2] > 0
        if name == "accuracy":
            relative = self.relative(outputs)
            return (torch.where(is_desirable, relative, -relative) > 0).to(outputs.dtype).mean()
        rewards = self.rewards(outputs)[0]
        desirable, undesirable = rewards[is_desirable].mean(), rewards[~is_desirable].mean()
        found = {"desirable_reward": desirable, "undesirable_reward": undesirable, "margin": desirable - undesirable}
        return found[name]


class KTO(Objective, nn.Module):
    """Compare the reward of a completion with a reference point; completions are rated as desirable or not.

    The reward is beta * (log p - log p_ref), where log p is the sum over the tokens, and p_ref is that of the initial
    weights. The reference point is beta times an estimate of KL(p, p_ref), 0 or more and without gradient: the mean of
    log p - log p_ref over the prompts of the batch with completions of other prompts. The loss is
    desirable_weight * sigmoid(point - reward) for desirable and undesirable_weight * sigmoid(reward - point) for
    undesirable completions. In an evaluation, the reference point is that of all rows.

    A batch has twice as many rows as ratings: all rated conversations, then their prompts with other completions.
    Outputs are (B, 5): the log-probabilities of the completion and of the other one, the rating, 1 or 0, and both
    log-probabilities under the reference; (B, 3) without a reference, (B, 1) without ratings.

    Source: Ethayarajh et al. (2024), "KTO: Model Alignment as Prospect Theoretic Optimization",
    https://arxiv.org/abs/2402.01306.

    Args:
        backbone: a causal backbone.
        spec: spec with a vocabulary.
        loss: the loss of ratings.
        beta: strength of the tie to the reference, above 0.
        desirable_weight: weight of the losses of desirable completions.
        undesirable_weight: weight of the losses of undesirable completions.
        metric: metric that selects the best checkpoint and that reports compare: `loss`; `margin`, the mean reward of
            desirable minus that of undesirable completions; or `accuracy`, the share of completions whose reward is on
            the right side of the reference point.
        chunk: number of positions whose logits are computed at once.
    """

    target: ClassVar = "rated"
    predicts: ClassVar = "rating"
    input_kind: ClassVar = "category"
    needs: ClassVar = frozenset({"causal"})
    default_loss: ClassVar = staticmethod(value_loss)
    task: ClassVar = "causal_lm"
    keeps_head: ClassVar = True
    abilities: ClassVar = frozenset({"reference"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        beta: PositiveFloat = 0.1,
        desirable_weight: PositiveFloat = 1.0,
        undesirable_weight: PositiveFloat = 1.0,
        metric: Chosen = "loss",
        chunk: PositiveInt = 8192,
    ):
        super().__init__()
        self.metric, self.measures = metric, Measures(beta, desirable_weight, undesirable_weight, loss)
        self.chunk = largest_chunk(chunk, backbone.target_size)
        self.monitor = type(self).monitor(metric)
        self.bounds = {"loss": (0.0, None), "margin": (None, None), "accuracy": (0.0, 1.0)}[metric]
        self.head = make_head(backbone, self.task, backbone.target_size)

    @staticmethod
    def monitor(metric: Chosen = "loss", **settings: Any) -> tuple[str, str]:
        """Return the monitored metric and its mode with these settings."""
        return f"val/{metric}", "min" if metric == "loss" else "max"

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over ratings, with measures, and the outputs (B, 5)."""
        own = torch.cat([self.log_probabilities(backbone, batch), batch.rating[:, None], batch.reference], 1)
        outputs = gathered(own)
        measures = {name: self.measures.of(outputs.detach(), name) for name in OF_STEPS}
        return StepOutput(self.measures.of(outputs, "loss"), len(outputs), outputs, measures)

    def reference(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the log-probabilities of the completion and of the other one (B, 2)."""
        return self.log_probabilities(backbone, batch)

    def log_probabilities(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the log-probabilities of the completion and, without gradient, of the other one (B, 2)."""
        x, y = batch.x.chunk(2), batch.y.chunk(2)
        masks = (None, None) if batch.mask is None else batch.mask.chunk(2)
        own, other = map(Batch, x, y, masks)
        found = completion_log_probabilities(backbone, self.head, own, self.chunk)
        with torch.no_grad():
            mismatched = completion_log_probabilities(backbone, self.head, other, self.chunk)
        return torch.stack([found, mismatched], 1)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the outputs (B, 5), or (B, 3) without a reference; log-probabilities (B, 1) without ratings."""
        with torch.no_grad():
            if batch.rating is None:
                return completion_log_probabilities(backbone, self.head, batch, self.chunk)[:, None]
            found = torch.cat([self.log_probabilities(backbone, batch), batch.rating[:, None]], 1)
        return found if batch.reference is None else torch.cat([found, batch.reference], 1)

    def metrics(self) -> dict[str, Any]:
        """Return the loss and the measures of all rows."""
        return {name: OfAllRows(self.measures, name) for name in ("loss", *MEASURES)}

    def scores(self, outputs: Tensor, y: Tensor) -> None:
        """Return None: the metrics depend on the reference point, that of all rows."""
        return None

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per row: the log-probability of the completion and, with a reference, its reward."""
        records = [{"log_probability": value} for value in outputs[:, 0].tolist()]
        if outputs.shape[1] < 5:
            return records
        rewards = self.measures.rewards(outputs)[0]
        return [{**one, "reward": reward} for one, reward in zip(records, rewards.tolist())]


class OfAllRows(Metric):
    """A measure of the outputs of all rows."""

    def __init__(self, measures: Measures, name: str):
        super().__init__()
        self.measures, self.name = measures, name
        self.add_state("outputs", default=[], dist_reduce_fx="cat")

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add outputs (B, 5)."""
        self.outputs.append(outputs.detach())

    def compute(self) -> Tensor:
        """Return the measure (scalar)."""
        return self.measures.of(dim_zero_cat(self.outputs), self.name)
