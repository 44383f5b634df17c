"""Quality of features during pretraining: nearest-neighbor accuracy, rank and spread; and CKA."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.core import screen
from warmstart.core.batch import Batch
from warmstart.training.evaluation import evaluate, evaluating

NEIGHBORS, TEMPERATURE = 20, 0.07
COLLAPSED = 0.01  # fraction of the spread of uniformly distributed features


class FeatureQuality(pl.Callback):
    """Logs val/knn_accuracy if the source has classes, and val/feature_rank and val/feature_std of pooled features.

    The same rows are used every time, without augmentation and in evaluation mode; training is not affected.

    Args:
        rows: of training and of validation, at most.
    """

    def __init__(self, rows: int):
        self.rows = rows
        self.warned = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the values of the initial weights, as a reference."""
        if trainer.global_step == 0:
            trainer.logger.log_metrics(self._evaluate(trainer, pl_module), 0)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the values, and print a warning once if the features have collapsed."""
        found = self._evaluate(trainer, pl_module)
        self.log_dict(found)
        if found.get("val/feature_std", 1.0) < COLLAPSED and not self.warned:
            self.warned = True
            screen.say(
                f"warning: features have collapsed at step {trainer.global_step}: all examples have similar features "
                f"(val/feature_std {found['val/feature_std']:.2g}); try a lower optimizer.lr or another objective",
                style="yellow",
            )

    def _evaluate(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
        """Return the values by name; none for a single row or for features that are not finite."""
        data = trainer.datamodule
        train, held_out = data.classed("train", self.rows), data.classed("validation", self.rows)
        size, sample = data.batch_size, held_out or data.sample("validation", self.rows)
        features = features_of(module, trainer, sample, size)
        if len(features) < 2 or not features.isfinite().all():
            return {}
        found = {"val/feature_rank": effective_rank(features), "val/feature_std": spread(features)}
        if train is not None and held_out is not None:
            guesses = vote(features_of(module, trainer, train, size), train.y, features)
            found["val/knn_accuracy"] = float((guesses == held_out.y).float().mean())
        return found


def features_of(module: pl.LightningModule, trainer: pl.Trainer, raw: Batch, size: int) -> Tensor:
    """Return pooled features (N, D) on the CPU during a training, computed in batches of `size` rows."""
    masks = [None] * math.ceil(len(raw.x) / size) if raw.mask is None else raw.mask.split(size)
    batches = (Batch(x, mask=mask) for x, mask in zip(raw.x.split(size), masks))
    return torch.cat(evaluate(module, trainer, batches, lambda batch, _: pooled(module, batch)))


def pooled(module: Any, batch: Batch) -> Tensor:
    """Return pooled features (B, D) on the CPU of a raw batch on the module's device."""
    return module.backbone(module.augment.scale(batch.x), batch.mask).pooled.float().cpu()


def vote(known: Tensor, classes: Tensor, features: Tensor) -> Tensor:
    """Return the classes (M,) of features (M, D), predicted by a weighted k-nearest-neighbor vote of known ones (N, D).

    The weight of a vote is exp(cos / 0.07). Source: Wu et al. (2018), "Unsupervised Feature Learning via Non-Parametric
    Instance Discrimination", section 3.4, https://arxiv.org/abs/1805.01978; 20 neighbors instead of 200, as there are
    few rows.
    """
    similarity = F.normalize(features, dim=1) @ F.normalize(known, dim=1).T
    nearest, index = similarity.topk(min(NEIGHBORS, len(known)), dim=1)
    votes = torch.zeros(len(features), int(classes.max()) + 1)
    return votes.scatter_add_(1, classes[index], (nearest / TEMPERATURE).exp()).argmax(1)


def effective_rank(features: Tensor) -> float:
    """Return RankMe of features (N, D): the exponential of the entropy of their singular values, 1 to min(N, D).

    Source: Garrido et al. (2023), "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank", https://arxiv.org/abs/2210.02885.
    """
    values = torch.linalg.svdvals(features.double())
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.special.entr(shares).sum().exp())


def spread(features: Tensor) -> float:
    """Return the mean standard deviation of normalized features (N, D) times sqrt(D): 0 if all are equal, at most 1.

    Source: Chen and He (2021), "Exploring Simple Siamese Representation Learning", section 4.1,
    https://arxiv.org/abs/2011.10566.
    """
    return float(F.normalize(features, dim=1).std(0, correction=0).mean() * features.shape[1] ** 0.5)


ROWS = 512  # examples for CKA
POSITIONS = 2**13  # limit of memory: positions of variable-length rows that are computed at once


def pooled_features(module: Any, batch: Batch) -> Tensor:
    """Return pooled features (N, D) of a raw batch; of many variable-length rows, a part at a time."""
    size = len(batch.x) if batch.mask is None else max(1, POSITIONS // batch.mask.shape[1])
    masks = [None] if batch.mask is None else batch.mask.split(size)
    device = next(module.parameters()).device
    with evaluating(module):
        return torch.cat([pooled(module, Batch(x, mask=m).to(device)) for x, m in zip(batch.x.split(size), masks)])


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Return linear centered kernel alignment (CKA) of features (N, D) and (N, E) of the same examples.

    Source: Kornblith et al. (2019), "Similarity of Neural Network Representations Revisited",
    https://arxiv.org/abs/1905.00414. 1 means equal up to rotation and scale; constant features have 0.
    """
    a, b = (x.double() - x.double().mean(0) for x in (a, b))
    norm = torch.linalg.norm(a.T @ a) * torch.linalg.norm(b.T @ b)
    return float(torch.linalg.norm(b.T @ a) ** 2 / norm) if norm > 0 else 0.0
