"""Cross-entropy."""

import functools
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from warmstart.core.ranges import UnitInterval
from warmstart.loss import accepts


def is_likelihood(loss: Callable[..., Tensor]) -> bool:
    """Return whether a loss is the negative log-likelihood, from which perplexity can be computed."""
    if isinstance(loss, functools.partial):
        return loss.func is cross_entropy and not loss.keywords.get("label_smoothing")
    return loss is cross_entropy


@accepts("category")
def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: UnitInterval = 0.0) -> Tensor:
    """Return the cross-entropy (N,), with label smoothing as in Szegedy et al. (2016).

    Args:
        outputs: logits (N, C).
        targets: class indices (N,) or class probabilities (N, C).
        label_smoothing: share of the target probability spread over all classes.
    """
    return F.cross_entropy(outputs, targets, reduction="none", label_smoothing=label_smoothing)
