"""The mean loss over a data set, L = (1/N) sum l(y_i, f(x_i)), also when the last batch is smaller."""

from __future__ import annotations

import torch
from torch import Tensor

from warmstart.core.batch import StepOutput


class RunningMean:
    """Adds up on the device; only `compute` waits for it.

    A MeanMetric of torchmetrics takes some 50 microseconds more at every step, and holds one mean: not those of
    measures beside it, nor those of jobs that are trained side by side.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.total: Tensor | float = 0.0
        self.count = 0
        self.measures: dict[str, Tensor | float] = {}

    def update(self, output: StepOutput) -> None:
        """Count a batch's mean loss as often as it has values."""
        loss = output.loss.detach()
        self.total = self.total + loss.to(torch.promote_types(loss.dtype, torch.float32)) * output.count
        self.count += output.count
        for name, value in output.measures.items():
            self.measures[name] = self.measures.get(name, 0.0) + value.detach().float() * output.count

    def measured(self) -> dict[str, float]:
        """The means of the steps' measures, by name."""
        return {name: float(total) / self.count for name, total in self.measures.items()} if self.count else {}

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint in the middle of an epoch must hold."""
        return {"total": float(self.total), "count": self.count}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on adding up."""
        self.total, self.count = state["total"], int(state["count"])

    def compute(self) -> float:
        """The mean over all values so far; NaN if there were none."""
        return float(self.total) / self.count if self.count else float("nan")

    def each(self) -> list[float]:
        """The means of J losses that are added up side by side, as one tensor (J,)."""
        return [total / self.count for total in self.total.tolist()]
