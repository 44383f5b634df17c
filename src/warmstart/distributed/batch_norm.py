"""Batch norm with the statistics of the global batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from warmstart.distributed.part import AllGather, current


class SyncedBatchNorm(_BatchNorm):
    """Batch norm of (N, C, ...) that uses the rows of all processes in a training step.

    torch.nn.SyncBatchNorm supports no CPU.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        """Accept any shape: the converted layer has been chosen for it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize; outside training steps, as the base class does."""
        part = current()
        if part is None or not self.training:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count, mean, variance = moments(values, part.padding)
        if self.running_mean is not None:
            self.track(count, mean.detach(), variance.detach())
        shape = (1, -1, *[1] * (x.ndim - 2))
        scale = (variance + self.eps).rsqrt()
        y = (values - mean.view(shape)) * scale.view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def track(self, count: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics, with the unbiased variance."""
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        unbiased = variance * (count / (count - 1).clamp(min=1))
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def moments(x: Tensor, ignored: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return the number of values per channel (), their mean (C,) and variance (C,) over all processes.

    Args:
        x: values of this process (N, C, ...).
        ignored: whether its values do not count.
    """
    rows = x.transpose(0, 1).flatten(1)
    mean = rows.mean(1)
    squares = (rows - mean[:, None]).square().sum(1)
    own = mean.new_tensor([0.0 if ignored else float(rows.shape[1])])
    found = AllGather.apply(torch.cat([own, mean, squares]))
    counts, means, squares = found[:, :1].detach(), *found[:, 1:].chunk(2, 1)
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    used = (counts > 0).to(squares.dtype)
    variance = (squares * used + counts * (means - mean).square()).sum(0) / total
    return total, mean, variance


def synchronize_norms(module: nn.Module) -> None:
    """Replace the batch norms of a module by synchronized ones with the same parameters and buffers."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm):
            setattr(module, name, converted(child))
        else:
            synchronize_norms(child)


def converted(norm: _BatchNorm) -> SyncedBatchNorm:
    """Return a synchronized norm that shares parameters and buffers."""
    made = SyncedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    for name, value in norm.named_parameters():
        setattr(made, name, value)
    for name, value in norm.named_buffers():
        setattr(made, name, value)
    return made.train(norm.training)
