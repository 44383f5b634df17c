"""Direct preference optimization: raise the probability of preferred completions against that of rejected ones."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective
from warmstart.core.ranges import BelowHalf, PositiveFloat, PositiveInt
from warmstart.core.spec import Spec
from warmstart.loss import accepts
from warmstart.objective.head import largest_chunk, make_head
from warmstart.objective.log_probabilities import completion_log_probabilities

Metric = Literal["loss", "accuracy", "margin", "ranking_accuracy"]
MEASURES = ("accuracy", "margin", "chosen_reward", "rejected_reward", "ranking_accuracy")


@accepts("pair")
def preference(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-probability (B,) of the preferences `targets`, 1 or 0, given logits `outputs`."""
    return F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")


class DPO(Objective, nn.Module):
    """Compare the log-probabilities of two completions with those under the reference, the initial weights.

    The reward of a completion is beta * (log p - log p_ref), where log p is the sum over its tokens; the margin is the
    reward of the preferred completion minus that of the rejected one. With `sigmoid`, the loss is the negative
    log-likelihood of the preferences under the Bradley-Terry model, -log sigmoid(margin); with `ipo`, it is
    (margin / beta - 1 / (2 beta))^2.

    Outputs are (B, 4): the log-probabilities of both completions, preferred first, and those under the reference; (B,
    2) without a reference. Batches have twice as many rows as pairs: all preferred ones first.

    Sources: Rafailov et al. (2023), "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
    https://arxiv.org/abs/2305.18290; with label smoothing, Mitchell (2023), "A note on DPO with noisy preferences &
    relationship to IPO", https://ericmitchell.ai/cdpo.pdf; ipo: Azar et al. (2023), "A General Theoretical Paradigm to
    Understand Learning from Human Preferences", https://arxiv.org/abs/2310.12036.

    Args:
        backbone: a causal backbone.
        spec: spec with a vocabulary.
        loss: the loss of preferences.
        beta: strength of the tie to the reference, above 0.
        loss_type: sigmoid or ipo.
        label_smoothing: assumed share of wrong preferences, for sigmoid.
        metric: metric that selects the best checkpoint and that reports compare: `loss`; `accuracy`, the share of pairs
            with a positive margin; `margin`; or `ranking_accuracy`, the share of pairs whose preferred completion has
            the higher probability, which does not depend on the reference.
        chunk: number of positions whose logits are computed at once.

    Raises:
        UserError: label smoothing is set for ipo.
    """

    target: ClassVar = "pairs"
    predicts: ClassVar = "pair"
    input_kind: ClassVar = "category"
    needs: ClassVar = frozenset({"causal"})
    default_loss: ClassVar = staticmethod(preference)
    task: ClassVar = "causal_lm"
    keeps_head: ClassVar = True
    abilities: ClassVar = frozenset({"reference"})

    def __init__(
        self,
        backbone: Backbone,
        spec: Spec,
        loss: LossFunction,
        beta: PositiveFloat = 0.1,
        loss_type: Literal["sigmoid", "ipo"] = "sigmoid",
        label_smoothing: BelowHalf = 0.0,
        metric: Metric = "loss",
        chunk: PositiveInt = 8192,
    ):
        super().__init__()
        if label_smoothing and loss_type == "ipo":
            raise UserError("objective.label_smoothing is for objective.loss_type=sigmoid: set it to 0")
        self.loss, self.beta, self.loss_type, self.label_smoothing = loss, beta, loss_type, label_smoothing
        self.metric, self.chunk = metric, largest_chunk(chunk, backbone.target_size)
        self.monitor = type(self).monitor(metric)
        self.bounds = {"loss": (0.0, None), "margin": (None, None)}.get(metric, (0.0, 1.0))
        self.head = make_head(backbone, self.task, backbone.target_size)

    @staticmethod
    def monitor(metric: Metric = "loss", **settings: Any) -> tuple[str, str]:
        """Return the monitored metric and its mode with these settings."""
        return f"val/{metric}", "min" if metric == "loss" else "max"

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the mean loss over pairs, with measures, and the outputs (B, 4)."""
        outputs = torch.cat([self.log_probabilities(backbone, batch), batch.reference], 1)
        measures = {name: self.values(outputs.detach(), name).mean() for name in MEASURES}
        return StepOutput(self.values(outputs, "loss").mean(), len(outputs), outputs, measures)

    def reference(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the log-probabilities of both completions (B, 2), preferred first."""
        return self.log_probabilities(backbone, batch)

    def log_probabilities(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the sum of the log-probabilities of the supervised tokens of both completions (B, 2), in float32."""
        return completion_log_probabilities(backbone, self.head, batch, self.chunk).view(2, -1).T

    def values(self, outputs: Tensor, metric: str) -> Tensor:
        """Return the loss or a measure of each pair (B,), given outputs (B, 4)."""
        if metric != "loss":
            return measure(outputs, metric, self.beta)
        margin = measure(outputs, "margin", self.beta)
        if self.loss_type == "ipo":
            return ((margin - 0.5) / self.beta) ** 2
        return self.loss(margin, torch.full_like(margin, 1 - self.label_smoothing))

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return the outputs (B, 4), or (B, 2) without a reference."""
        with torch.no_grad():
            found = self.log_probabilities(backbone, batch)
        return found if batch.reference is None else torch.cat([found, batch.reference], 1)

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of the outputs, besides the loss."""
        return {name: PairMean(name, self.beta) for name in MEASURES}

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Return the metric of each pair (B,)."""
        return self.values(outputs, self.metric)

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict per pair: log-probabilities of both completions and, with a reference, the margin."""
        margins = self.values(outputs, "margin").tolist() if outputs.shape[1] == 4 else [None] * len(outputs)
        records = [{"chosen": chosen, "rejected": rejected} for chosen, rejected, *_ in outputs.tolist()]
        return [one if margin is None else {**one, "margin": margin} for one, margin in zip(records, margins)]


def measure(outputs: Tensor, name: str, beta: float) -> Tensor:
    """Return one of MEASURES of each pair (B,), given outputs (B, 4); with (B, 2), the model is its own reference."""
    if name == "ranking_accuracy":
        return (outputs[:, 0] > outputs[:, 1]).to(outputs.dtype)
    reference = outputs[:, 2:] if outputs.shape[1] == 4 else outputs
    chosen, rejected = (beta * (outputs[:, :2] - reference)).unbind(1)
    if name == "accuracy":
        return (chosen > rejected).to(outputs.dtype)
    return {"margin": chosen - rejected, "chosen_reward": chosen, "rejected_reward": rejected}[name]


class PairMean(MeanMetric):
    """Mean of a measure over pairs."""

    def __init__(self, name: str, beta: float):
        super().__init__()
        self.name, self.beta = name, beta

    def update(self, outputs: Tensor, y: Tensor) -> None:
        """Add outputs (B, 4)."""
        super().update(measure(outputs, self.name, self.beta))
