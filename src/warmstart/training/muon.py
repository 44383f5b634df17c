"""Muon for hidden matrices and AdamW for all other parameters, as one optimizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from warmstart.core.ranges import PositiveFloat


class Muon(Optimizer):
    """Orthogonalized momentum for hidden matrices; AdamW for embeddings, convolutions, heads, norms and biases.

    Sources: Jordan et al. (2024), "Muon", https://kellerjordan.github.io/posts/muon/. The updates are scaled to the
        size of AdamW's, so that both can use the same learning rate and weight decay: Liu et al. (2025), "Muon is
        Scalable for LLM Training", https://arxiv.org/abs/2502.16982.

    Args:
        params: parameter groups with the flag `hidden`, which is for matrices only.
        lr: learning rate of groups without one.
        weight_decay: decoupled weight decay of groups without one.
        momentum: momentum of the hidden matrices.
        adam_scale: learning rate of AdamW relative to that of Muon.
        betas: betas of AdamW.
    """

    separates_hidden: ClassVar = True  # makes training.optimization set the flag

    def __init__(
        self,
        params: list[dict[str, Any]],
        lr: float = 0.001,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        adam_scale: PositiveFloat = 1.0,
        betas: Sequence[float] = (0.9, 0.95),
    ):
        groups = [{"lr": lr, "weight_decay": weight_decay, **group} for group in params]
        hidden, rest = ([group for group in groups if group["hidden"] is flag] for flag in (True, False))
        for group in rest:
            group["lr"] *= adam_scale
        self.optimizers: dict[bool, Optimizer] = {}  # each adds its own settings to its groups
        if hidden:
            self.optimizers[True] = torch.optim.Muon(hidden, momentum=momentum, adjust_lr_fn="match_rms_adamw")
        if rest:
            self.optimizers[False] = AdamW(rest, betas=tuple(betas))
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Step both optimizers; they share this one's state and groups, so that a checkpoint restores both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for flag, optimizer in self.optimizers.items():
            optimizer.state = self.state
            optimizer.param_groups = [group for group in self.param_groups if group["hidden"] is flag]
            optimizer.step()
        return loss
