"""The mean loss over a data set, L = (1/N) sum l(y_i, f(x_i)), weighted by the sizes of the batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from warmstart.core.batch import StepOutput
from warmstart.distributed.processes import all_values


class RunningMean:
    """A weighted mean that is accumulated on the device; only `compute` synchronizes.

    torchmetrics' MeanMetric takes about 50 microseconds more per step, and supports only one mean: neither `measures`
    nor the losses of a vmap group.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset all sums."""
        self.total: Tensor | float = 0.0
        self.count: Tensor | int = 0
        self.measures: dict[str, Tensor | float] = {}
        self.counts: dict[str, int] = {}  # of the values of each measure, which some steps may lack

    def update(self, output: StepOutput) -> None:
        """Add the mean loss of a batch, weighted by its number of values."""
        loss = output.loss.detach()
        self.total = self.total + loss.to(torch.promote_types(loss.dtype, torch.float32)) * output.count
        self.count = self.count + output.count
        self.measure(output.measures, output.count)

    def measure(self, measures: Mapping[str, Tensor], count: int) -> None:
        """Add the measures of a batch, weighted by its number of values."""
        for name, value in measures.items():
            self.measures[name] = self.measures.get(name, 0.0) + value.detach().float() * count
            self.counts[name] = self.counts.get(name, 0) + count

    def reduce_measures(self) -> None:
        """Add the measures of all processes."""
        measures, counts = zip(*all_values(self._measures()))
        self.measures, self.counts = added(measures), added(counts)

    def forget_measures(self) -> None:
        """Reset the measures."""
        self.measures, self.counts = {}, {}

    def reduce(self) -> None:
        """Add the sums of all processes."""
        totals = all_values((float(self.total), int(self.count)))
        self.total, self.count = (sum(values) for values in zip(*totals))
        self.reduce_measures()

    def measured(self) -> dict[str, float]:
        """Return the mean of each measure over the steps that have it, by name."""
        return {name: float(total) / self.counts[name] for name, total in self.measures.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint within an epoch."""
        measures, counts = self._measures()
        own = {"measures": measures, "counts": counts} if measures else {}
        return {"total": float(self.total), "count": int(self.count), **own}

    def _measures(self) -> tuple[dict[str, float], dict[str, int]]:
        return {name: float(value) for name, value in self.measures.items()}, dict(self.counts)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self.total, self.count = state["total"], int(state["count"])
        self.measures, self.counts = dict(state.get("measures", {})), dict(state.get("counts", {}))

    def compute(self) -> float:
        """Return the mean over all values; NaN if there are none."""
        return float(self.total) / self.count if self.count else float("nan")

    def each(self) -> list[float]:
        """Return the means of the J losses of a vmap group, which are added as one tensor (J,)."""
        return [total / self.count for total in self.total.tolist()]


def added(mappings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum of the values of several mappings, by name."""
    return {name: sum(one.get(name, 0) for one in mappings) for name in dict.fromkeys(chain(*mappings))}
