"""Adaptation of batch-norm statistics to unlabelled rows (AdaBN, Li et al. 2016)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.data.datamodule import TaskDataModule
from warmstart.data.loader import take
from warmstart.data.readers.files import listed
from warmstart.training.evaluation import evaluate
from warmstart.training.modules import FinetuneModule

T = TypeVar("T")


class Reached(Exception):
    """Ends a forward pass at the norm whose inputs are collected."""


class Moments:
    """Sums of the values per channel over batches, in double precision."""

    def __init__(self) -> None:
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, x: Tensor) -> None:
        """Add values (N, C, ...)."""
        x = x.cpu() if x.device.type == "mps" else x  # which has no float64
        x = x.double().transpose(0, 1).flatten(1)
        self.count += x.shape[1]
        self.sum, self.squares = self.sum + x.sum(1), self.squares + x.square().sum(1)

    def result(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance (C,), not the unbiased one, as a batch norm computes with in training mode."""
        mean = self.sum / self.count
        return mean, (self.squares / self.count - mean.square()).clamp(min=0)


class NormAdaptation:
    """Evaluates a module on rows, after the batch-norm statistics are set to those of the same rows, by cluster.

    Norms are set one after another in the order of the forward pass, each to the mean and variance of its inputs over
    all rows of a cluster, given the norms before it. The outputs therefore are those of a forward pass in training mode
    with all rows of the cluster in one batch, whatever the batches. Targets are not used.

    Args:
        module: module with `backbone` and `augment`.
        what: component of the backbone in a message.

    Raises:
        UserError: the backbone has no batch norms with running statistics.
    """

    def __init__(self, module: FinetuneModule, what: str):
        self.module = module
        self.norms = {
            norm: name
            for name, norm in module.backbone.named_modules()
            if isinstance(norm, _BatchNorm) and norm.running_mean is not None
        }
        if not self.norms:
            raise UserError(
                f"adapt=norms needs batch norms, whose statistics it estimates, but {what} has none: remove it, or "
                "train with a backbone that has them, such as backbone=resnet"
            )
        self.clusters: dict[str, dict[str, int]] = {}

    def run(
        self,
        trainer: pl.Trainer,
        name: str,
        x: Any,
        y: Any,
        cluster: np.ndarray | None,
        size: int,
        step: Callable[[Batch, int], T],
    ) -> list[tuple[np.ndarray, T]]:
        """Return the row indices and the result of `step` for each batch, by cluster.

        Args:
            trainer: determines the precision.
            name: name of the rows, such as test, in messages and in `clusters`.
            x: encoded inputs (N, ...).
            y: targets for `step`, or None.
            cluster: names of the clusters (N,); None for one cluster.
            size: maximum number of rows of a batch.
            step: function of a batch and its index.

        Raises:
            UserError: a cluster has too few rows.
        """
        groups = {"all": np.arange(len(x))}
        if cluster is not None:
            groups = {str(key): np.flatnonzero(cluster == key) for key in dict.fromkeys(cluster)}
        self.clusters[name] = {key: len(rows) for key, rows in groups.items()}
        found = []
        for key, rows in groups.items():
            batches = [rows[start : start + size] for start in range(0, len(rows), size)]
            self._estimate(trainer, f"{name} (cluster {key})" if cluster is not None else name, x, batches)
            found += zip(batches, evaluate(self.module, trainer, _loader(x, y, batches), step), strict=True)
        return found

    def describe(self) -> str:
        """Return one line about the rows whose inputs were used."""
        parts = []
        for name, sizes in self.clusters.items():
            rows = f"{sum(sizes.values()):,} {name} rows"
            parts.append(rows if set(sizes) == {"all"} else f"{rows} by cluster ({listed(list(sizes))})")
        return (
            f"adapt=norms: batch-norm statistics are those of the evaluated inputs, without targets: {'; '.join(parts)}"
        )

    def record(self) -> dict[str, Any]:
        """Return what was adapted, for the record of a run."""
        return {"method": "norms", "norms": len(self.norms), "uses": "evaluated inputs", "rows": self.clusters}

    def _estimate(self, trainer: pl.Trainer, where: str, x: Any, batches: list[np.ndarray]) -> None:
        """Set the statistics of all norms, in the order of their first use, to those of the rows of all batches."""
        pending = set(self.norms)
        while pending:
            norm, moments = self._moments(trainer, pending, x, batches)
            if norm is None:  # the others are not used in a forward pass
                return
            if moments.count < 2:
                raise UserError(
                    f"adapt=norms: {where} has one value only to estimate the statistics of {self.norms[norm]}: "
                    "add rows, or remove adapt=norms"
                )
            mean, variance = moments.result()
            norm.running_mean.copy_(mean.float())
            norm.running_var.copy_(variance.float())
            pending.remove(norm)

    def _moments(
        self, trainer: pl.Trainer, pending: set[nn.Module], x: Any, batches: list[np.ndarray]
    ) -> tuple[nn.Module | None, Moments]:
        """Return the first of the pending norms in the order of a forward pass, and the moments of its inputs."""
        first: list[nn.Module] = []
        moments = Moments()

        def collect(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            first.append(norm)
            moments.add(inputs[0])
            raise Reached

        def step(batch: Batch, index: int) -> None:
            with contextlib.suppress(Reached):
                self.module.backbone(self.module.augment.scale(batch.x), batch.mask)

        hooks = [norm.register_forward_pre_hook(collect) for norm in pending]
        try:
            evaluate(self.module, trainer, _loader(x, None, batches), step)
        finally:
            for hook in hooks:
                hook.remove()
        return (first[0] if first else None), moments


def _loader(x: Any, y: Any, batches: list[np.ndarray]) -> Iterator[Batch]:
    return (take(x, y, torch.from_numpy(rows)) for rows in batches)


def measure_adapted(
    adaptation: NormAdaptation, trainer: pl.Trainer, module: FinetuneModule, data: TaskDataModule
) -> dict[str, float]:
    """Return metrics as `training.evaluation.measure`, with norms adapted to the inputs of each test split."""
    metrics = {}
    for split in data.test_parts:
        module.test_part = split
        clusters = data.given[split].cluster
        adaptation.run(trainer, split, *data.parts[split], clusters, data.held_out_batch, module.test_step)
        metrics |= {f"{split}/{name}": float(value) for name, value in module.held_out().items()}
    return {name: value for name, value in metrics.items() if name.startswith("test/") or math.isfinite(value)}
