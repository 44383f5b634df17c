"""Connectionist temporal classification."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.loss import accepts


@accepts("sequence")
def ctc(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the negative log-likelihood of each label sequence (B,), divided by its length (Graves et al. 2006).

    Padding does not change the loss if the blank has probability 1 there.

    Args:
        outputs: logits (B, T, C + 1), the blank last.
        targets: labels (B, L), padded with -1.
    """
    lengths = (targets >= 0).sum(1)
    positions = torch.full_like(lengths, outputs.shape[1])
    blank = outputs.shape[2] - 1
    logits = outputs.transpose(0, 1)
    log_p = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, torch.float32))
    values = F.ctc_loss(log_p, targets.clamp(min=0), positions, lengths, blank=blank, reduction="none")
    return values / lengths.clamp(min=1)
