"""Muon for hidden matrices and convolutions, and AdamW for all other parameters, as one optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from warmstart.core.ranges import PositiveFloat


class Muon(Optimizer):
    """Orthogonalized momentum for hidden matrices and kernels; AdamW for embeddings, stems, heads, norms and biases.

    A kernel (O, I, ...) is a matrix (O, I * ...).

    Sources: Jordan et al. (2024), "Muon", https://kellerjordan.github.io/posts/muon/. The updates are scaled to the
        size of AdamW's, so that both can use the same learning rate and weight decay: Liu et al. (2025), "Muon is
        Scalable for LLM Training", https://arxiv.org/abs/2502.16982.

    Args:
        params: parameter groups with the flag `hidden`, which is for matrices and kernels only.
        lr: learning rate of groups without one.
        weight_decay: decoupled weight decay of groups without one.
        momentum: momentum of the hidden parameters.
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
            with as_matrices(hidden):
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
            with as_matrices(optimizer.param_groups if flag else []):
                optimizer.step()
        return loss


@contextlib.contextmanager
def as_matrices(groups: list[dict[str, Any]]) -> Iterator[None]:
    """Give the kernels (O, I, ...) in parameter groups, and their gradients, the shape (O, I * ...) in this context."""
    kernels = [(p, p.data, p.grad) for group in groups for p in group["params"] if p.ndim > 2]
    for kernel, values, gradient in kernels:
        kernel.grad = None
        kernel.data = values.flatten(1)
        kernel.grad = None if gradient is None else gradient.flatten(1)
    try:
        yield
    finally:
        for kernel, values, gradient in kernels:
            kernel.grad = None
            if kernel.data_ptr() != values.data_ptr():  # flatten returns a view if the memory format allows it
                values.copy_(kernel.data.view(values.shape))
            kernel.data, kernel.grad = values, gradient
