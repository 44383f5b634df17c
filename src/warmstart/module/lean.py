"""What both modules share: one shortcut past a cost of the loop, and how batches add up to an optimizer step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.optim import Optimizer

from warmstart.contracts import StepOutput
from warmstart.module.accumulation import Accumulation
from warmstart.module.mean import RunningMean


class LeanModule(pl.LightningModule):
    """Lightning notes the running hook's name in `_current_fx_name` some 46 times a step.

    Through `nn.Module.__setattr__` that is a tenth of a short step's overhead; see docs/lab.md.

    `step_loss` is the loss of the last optimizer step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.train_loss, self.accumulation = RunningMean(), Accumulation()
        self.step_loss: Tensor | float = float("nan")
        self.unfinished: dict[str, Any] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("_current_fx_name", "step_loss"):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LeanModule:
        """Have inputs converted to the type of the parameters."""
        super()._apply(fn, recurse)
        self.augment.dtype = next((value.dtype for value in self.parameters() if value.is_floating_point()), None)
        return self

    def counted(self, output: StepOutput) -> Tensor:
        """Add a training batch to train/loss and to the optimizer step; return the loss to be differentiated."""
        self.train_loss.update(output)
        if self.trainer.accumulate_grad_batches == 1:
            self.step_loss = output.loss.detach()
            return output.loss
        return self.accumulation.add(output)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Complete the gradients of a step of several batches, before they are clipped."""
        batches = self.trainer.accumulate_grad_batches
        if batches > 1:
            parameters = (value for group in optimizer.param_groups for value in group["params"])
            self.step_loss = self.accumulation.close(parameters, batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the loss added up so far in this epoch, and the gradients of an optimizer step that is not complete."""
        checkpoint["train_loss"] = self.train_loss.state_dict()
        unfinished = self.accumulation.state_dict(self)
        if unfinished:
            checkpoint["accumulation"] = unfinished

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Resume both."""
        self.train_loss.load_state_dict(checkpoint["train_loss"])
        self.unfinished = checkpoint.get("accumulation", {})

    def on_train_start(self) -> None:
        """Put gradients of an incomplete optimizer step back, once the parameters are on their device."""
        if self.unfinished:
            self.accumulation.load_state_dict(self.unfinished, self)
            self.unfinished = {}

    def on_train_epoch_end(self) -> None:
        """Log train/loss."""
        self.log("train/loss", self.train_loss.compute())
        self.train_loss.reset()
