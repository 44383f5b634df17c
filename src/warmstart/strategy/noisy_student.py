"""Noisy student: in each round, a new model learns the labels and the predictions of the model of the round before."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

from torch import Tensor, nn

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective
from warmstart.core.ranges import AtLeastTwo, OpenUnitInterval, PositiveFloat
from warmstart.strategy.pseudo_labels import PseudoLabels


class NoisyStudent(PseudoLabels):
    """Train a teacher on the labelled rows, then students on these and on unlabelled rows with its pseudo-labels.

    Each round has the same share of the steps, and a schedule of its own. The first round is that of `full` and trains
    the first teacher. At the start of each further round, the current model becomes the teacher, which is frozen and
    has no dropout, and weights and optimizer are reset to the start of the run: unlike with strategy=self_training, a
    model never learns from its own predictions. The noise of a student is dropout, data.augment and data.strong. The
    best checkpoint may be of any round; early stopping and averages of the weights do not know about rounds.

    Source: Xie et al. (2020), "Self-training with Noisy Student improves ImageNet classification",
    https://arxiv.org/abs/1911.04252.

    Args:
        rounds: number of rounds, 2 or more, with that of the first teacher.
        confidence: smallest probability of a pseudo-label, above 0 and below 1.
        weight: of the loss of the unlabelled rows, above 0.
        soft: whether the targets are the probabilities of the teacher, or its most likely class.
        align: whether to align the class frequencies of the pseudo-labels with those of the labelled rows.
    """

    uses_strong: ClassVar = True

    def __init__(
        self,
        rounds: AtLeastTwo = 3,
        confidence: OpenUnitInterval = 0.5,
        weight: PositiveFloat = 1.0,
        soft: bool = True,
        align: bool = True,
    ):
        self.weight = weight
        self.restarts = tuple(number / rounds for number in range(1, rounds))
        self.round = 0
        self.weights: dict[str, dict[str, Tensor]] = {}  # of the start of the run, and of the teacher if there is one
        self.teacher: nn.ModuleDict | None = None
        super().__init__(confidence, align, soft)

    def start_step(self, objective: Any, backbone: Any) -> bool:
        """At the start of a round, make the model the teacher and reset it."""
        student = nn.ModuleDict({"backbone": backbone, "objective": objective})
        if "initial" not in self.weights:
            self.weights["initial"] = {name: value.clone() for name, value in student.state_dict().items()}
        number = sum(self.progress >= share for share in self.restarts)
        if number == self.round:
            if "teacher" in self.weights and self.teacher is None:  # of a resumed run
                self._set_teacher(student)
                self.teacher.load_state_dict(self.weights["teacher"])
            return False
        self.round = number
        self._set_teacher(student)
        self.weights["teacher"] = self.teacher.state_dict()
        student.load_state_dict(self.weights["initial"])
        self.state.pop("predictions", None)  # of the teacher before
        return True

    def _set_teacher(self, model: nn.ModuleDict) -> None:
        self.teacher = copy.deepcopy(model).eval().requires_grad_(False)

    def step(self, objective: Objective, backbone: Backbone, batch: Batch) -> StepOutput:
        """Add the loss of the unlabelled rows to that of the objective, after the first round."""
        output = objective.step(backbone, batch)
        if batch.unlabelled is None:
            return output
        self.count(output, batch)
        if self.teacher is None:
            return output
        teacher = self.teacher["objective"], self.teacher["backbone"]
        return self.add(output, objective, backbone, batch, self.weight, teacher)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the pseudo-labels, the round, and the weights of the start of the run and the teacher."""
        return {**super().state_dict(), "round": self.round, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state; `start_step` makes the teacher."""
        self.round, self.weights, self.teacher = state.get("round", 0), dict(state.get("weights", {})), None
        super().load_state_dict({name: value for name, value in state.items() if name not in ("round", "weights")})
