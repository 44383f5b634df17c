"""Connectionist temporal classification."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from warmstart.loss import takes


@takes("sequence")
def ctc(outputs: Tensor, targets: Tensor) -> Tensor:
    """Logits (B, T, C + 1), the blank last, and labels (B, L), -1 beyond the end, to (B,).

    The negative log-likelihood of the labels (Graves et al. 2006), divided by their number. Where padding has the blank
    for certain, it changes nothing.
    """
    lengths = (targets >= 0).sum(1)
    positions = torch.full_like(lengths, outputs.shape[1])
    blank = outputs.shape[2] - 1
    rows = outputs.transpose(0, 1)
    rows = rows.log_softmax(-1, dtype=torch.promote_types(rows.dtype, torch.float32))
    values = F.ctc_loss(rows, targets.clamp(min=0), positions, lengths, blank=blank, reduction="none")
    return values / lengths.clamp(min=1)
