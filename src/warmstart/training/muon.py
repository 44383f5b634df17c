"""Muon for the matrices inside a network and AdamW for all else, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from warmstart.core.ranges import Positive


class Muon(Optimizer):
    """Orthogonalised momentum for hidden matrices, AdamW for embeddings, convolutions, heads, norms and biases.

    Sources: Jordan et al. (2024), "Muon", https://kellerjordan.github.io/posts/muon/; updates are scaled to the size of
    AdamW's, so that one learning rate and weight decay serve both: Liu et al. (2025), "Muon is Scalable for LLM
    Training", https://arxiv.org/abs/2502.16982.

    Args:
        params: parameter groups, each flagged `hidden` or not; only matrices may be hidden.
        lr: learning rate of groups that bring none.
        weight_decay: decoupled, of groups that bring none.
        momentum: of the hidden matrices.
        adam_scale: learning rate of the AdamW part, as a share of the other.
        betas: of the AdamW part.
    """

    separates_hidden: ClassVar = True  # asks module.optimization for the flag

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float = 0.001,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        adam_scale: Positive = 1.0,
        betas: Sequence[float] = (0.9, 0.95),
    ):
        groups = [{"lr": lr, "weight_decay": weight_decay, **group} for group in params]
        hidden, rest = ([group for group in groups if group["hidden"] is flag] for flag in (True, False))
        for group in rest:
            group["lr"] *= adam_scale
        self.parts: dict[bool, Optimizer] = {}  # each completes its groups by settings of its own
        if hidden:
            self.parts[True] = torch.optim.Muon(hidden, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        if rest:
            self.parts[False] = AdamW(rest, betas=tuple(betas))
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One step of both; state and settings are this optimizer's, so that loading them is loading both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for flag, part in self.parts.items():
            part.state = self.state
            part.param_groups = [group for group in self.param_groups if group["hidden"] is flag]
            part.step()
        return loss
