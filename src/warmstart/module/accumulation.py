"""The loss of an optimizer step whose gradients are accumulated over several batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from warmstart.contracts import StepOutput


class Accumulation:
    """Weighs the batches of a step by their values, so that its loss is the mean over the values of all of them.

    L = sum(n_i L_i) / sum(n_i), where L_i is the mean of n_i values: examples, or positions where the loss is of these.
    It is the loss of one large batch, unless examples of a batch have a say in each other's loss, as in contrastive
    losses and batch norm: these see the examples of the small batches, whose losses are weighted in the same way. What
    is drawn at random, such as noise, masks and mixed examples, is drawn for each small batch.

    A batch's loss is multiplied by n_i / n_1 before the gradients are computed, and their sum by n_1 / sum(n_i) before
    they are used, as the later counts are not known until then.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a step."""
        self.first = self.count = 0
        self.total: Tensor | float = 0.0

    def add(self, output: StepOutput) -> Tensor:
        """Count a batch; return the loss whose gradients are to be added to those of the step."""
        self.first = self.first or output.count
        self.count += output.count
        self.total = self.total + output.loss.detach().float() * output.count
        return output.loss if output.count == self.first else output.loss * (output.count / max(1, self.first))

    def close(self, parameters: Iterable[Tensor], divided: int) -> Tensor | float:
        """End the step: scale the gradients of all its batches, which the loop divided by a number; return its loss."""
        count = max(1, self.count)
        factor = divided * self.first / count
        if factor != 1:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(factor)
        loss = self.total / count
        self.reset()
        return loss

    def state_dict(self, module: nn.Module) -> dict[str, Any]:
        """The batches so far, with the gradients of the module's parameters; empty between two steps."""
        if not self.count:
            return {}
        gradients = {name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None}
        return {"first": self.first, "count": self.count, "total": float(self.total), "gradients": gradients}

    def load_state_dict(self, state: dict[str, Any], module: nn.Module) -> None:
        """Resume in the middle of a step."""
        self.first, self.count, self.total = state["first"], state["count"], state["total"]
        for name, value in module.named_parameters():
            if name in state["gradients"]:
                value.grad = state["gradients"][name].to(value.device, value.dtype)
