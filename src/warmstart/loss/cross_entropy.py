"""Cross-entropy."""

import functools
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from warmstart.core.ranges import UnitInterval
from warmstart.loss import takes


def is_likelihood(loss: Callable[..., Tensor]) -> bool:
    """Whether a loss is the negative log-likelihood, so that perplexity follows from it."""
    if isinstance(loss, functools.partial):
        return loss.func is cross_entropy and not loss.keywords.get("label_smoothing")
    return loss is cross_entropy


@takes("category")
def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: UnitInterval = 0.0) -> Tensor:
    """Logits (N, C) and class numbers (N,) or shares (N, C) to (N,); label smoothing as in Szegedy et al. 2016."""
    return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)
