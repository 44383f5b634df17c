"""What pretraining makes of features, judged while it runs: by their nearest neighbours, and by how far they spread."""

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

NEIGHBOURS, TEMPERATURE = 20, 0.07
COLLAPSED = 0.01  # of the spread that features would have which point everywhere alike


class FeatureQuality(pl.Callback):
    """val/knn_accuracy where the source knows classes, val/feature_rank and val/feature_std of pooled features.

    The same rows are looked at every time, not augmented and in evaluation mode, and training goes on as without it.

    Args:
        rows: of training and of validation, at most.
    """

    def __init__(self, rows: int):
        self.rows = rows
        self.warned = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the start point's, which those of trained features are to be compared with."""
        if trainer.global_step == 0:
            trainer.logger.log_metrics(self._judge(trainer, pl_module), 0)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log, and say once when features have collapsed."""
        found = self._judge(trainer, pl_module)
        self.log_dict(found)
        if found.get("val/feature_std", 1.0) < COLLAPSED and not self.warned:
            self.warned = True
            screen.say(
                f"warning: features have collapsed at step {trainer.global_step}: examples are all alike "
                f"(val/feature_std {found['val/feature_std']:.2g}); try a lower optimizer.lr or another objective",
                style="yellow",
            )

    def _judge(self, trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
        """The measures by name; none of a single row, or of features that are no numbers, which the loss tells."""
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
    """Pooled features (N, D) on the CPU, inside a training, of `size` rows at a time."""
    masks = [None] * math.ceil(len(raw.x) / size) if raw.mask is None else raw.mask.split(size)
    batches = (Batch(x, mask=mask) for x, mask in zip(raw.x.split(size), masks))
    return torch.cat(evaluate(module, trainer, batches, lambda batch, _: pooled(module, batch)))


def pooled(module: Any, batch: Batch) -> Tensor:
    """Pooled features (B, D) on the CPU of a raw batch on the module's device."""
    return module.backbone(module.augment.scale(batch.x), batch.mask).pooled.float().cpu()


def vote(known: Tensor, classes: Tensor, features: Tensor) -> Tensor:
    """Classes (M,) of features (M, D) by the weighted votes of their nearest neighbours among known ones (N, D).

    A vote counts exp(cos / 0.07). Source: Wu et al. (2018), "Unsupervised Feature Learning via Non-Parametric Instance
    Discrimination", section 3.4, https://arxiv.org/abs/1805.01978; 20 neighbours in place of 200, as rows are few.
    """
    similarity = F.normalize(features, dim=1) @ F.normalize(known, dim=1).T
    nearest, index = similarity.topk(min(NEIGHBOURS, len(known)), dim=1)
    votes = torch.zeros(len(features), int(classes.max()) + 1)
    return votes.scatter_add_(1, classes[index], (nearest / TEMPERATURE).exp()).argmax(1)


def effective_rank(features: Tensor) -> float:
    """RankMe of features (N, D): the exponential of the entropy of their singular values, 1 to min(N, D).

    Source: Garrido et al. (2023), "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised
    Representations by Their Rank", https://arxiv.org/abs/2210.02885.
    """
    values = torch.linalg.svdvals(features.double())
    shares = values / values.sum().clamp(min=1e-12)
    return float(torch.special.entr(shares).sum().exp())


def spread(features: Tensor) -> float:
    """Mean standard deviation of normalised features (N, D) times the root of D: 0 if all point the same way, or 1.

    Source: Chen and He (2021), "Exploring Simple Siamese Representation Learning", section 4.1,
    https://arxiv.org/abs/2011.10566.
    """
    return float(F.normalize(features, dim=1).std(0, correction=0).mean() * features.shape[1] ** 0.5)


ROWS = 512  # as many examples are enough to compare features by


def pooled_features(module: Any, batch: Batch) -> Tensor:
    """Pooled features (N, D) of a batch, raw as a loader hands it out."""
    with evaluating(module):
        return pooled(module, batch.to(next(module.parameters()).device))


def linear_cka(a: Tensor, b: Tensor) -> float:
    """Linear centred kernel alignment of features (N, D) and (N, E) of the same examples: 1 is the same up to rotation.

    Source: Kornblith et al. (2019), "Similarity of Neural Network Representations Revisited",
    https://arxiv.org/abs/1905.00414. Features that do not vary are like nothing: 0.
    """
    a, b = (x.double() - x.double().mean(0) for x in (a, b))
    norm = torch.linalg.norm(a.T @ a) * torch.linalg.norm(b.T @ b)
    return float(torch.linalg.norm(b.T @ a) ** 2 / norm) if norm > 0 else 0.0
