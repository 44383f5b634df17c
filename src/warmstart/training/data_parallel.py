"""Data parallel training: every process computes a part of each batch, and gradients are averaged."""

from __future__ import annotations

from pytorch_lightning.strategies import DDPStrategy


class DataParallel(DDPStrategy):
    """Lightning's DDPStrategy, for trainings whose trainable parameters change.

    All parameters that are trained at any time are averaged, from the first step. Those without a gradient in a step
    are found by a traversal of the graph. Buffers are not broadcast: batch norms have the statistics of the global
    batch, and other buffers are equal.
    """

    def __init__(self) -> None:
        super().__init__(find_unused_parameters=True, broadcast_buffers=False)

    def configure_ddp(self) -> None:
        """Wrap the module while all parameters that are trained at any time require gradients."""
        named = dict(self.lightning_module.named_parameters())
        before = {name: value.requires_grad for name, value in named.items()}
        for name, scale in self.lightning_module.scales.items():
            named[name].requires_grad_(bool(scale))
        super().configure_ddp()
        for name, value in named.items():
            value.requires_grad_(before[name])
