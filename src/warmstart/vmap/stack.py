"""Stacked parameters of several modules of one architecture, trained with torch.func.vmap.

Shapes: J jobs, B batch, C channels or classes."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from warmstart.core.batch import Batch, StepOutput
from warmstart.core.protocols import Backbone, Objective
from warmstart.training.optimization import parameter_groups


class _Step(nn.Module):
    """An objective's step on a backbone as a module; parameter names are those of the training modules."""

    def __init__(self, backbone: Backbone, objective: Objective):
        super().__init__()
        self.backbone, self.objective = backbone, objective

    def forward(self, x: Tensor, y: Tensor | None) -> StepOutput:
        return self.objective.step(self.backbone, Batch(x, y))


class Stack:
    """The parameters and buffers of J modules, each with a first dimension J.

    Args:
        modules: finetuning or pretraining modules that differ in numeric settings only; the code of the first is used.
    """

    def __init__(self, modules: Sequence[Any], device: torch.device):
        self.module = modules[0]
        self.steps = [_Step(module.backbone, module.objective) for module in modules]
        states = [dict([*step.named_parameters(), *step.named_buffers()]) for step in self.steps]
        self.values: dict[str, Tensor] = {}
        for name in states[0]:
            stacked = torch.stack([state[name].detach() for state in states]).to(device)
            self.values[name] = transpose_matrices(transpose_matrices(stacked).contiguous())
        self.trained = [name for name, scale in self.module.scales.items() if scale]
        for name in self.trained:
            self.values[name].requires_grad_()
        self.best = {name: self.values[name].detach().clone() for name in self.trained}

    def __call__(self, x: Tensor, y: Tensor | None, x_dim: int | None = 0, y_dim: int | None = 0) -> StepOutput:
        """Run the step of every job; return losses (J,) and outputs (J, B, C).

        Args:
            x: inputs (J, B, ...), or (B, ...) for all jobs with `x_dim` None.
            y: targets (J, B, ...), or (B, ...) for all jobs with `y_dim` None.
            x_dim: dimension of J in x.
            y_dim: dimension of J in y.
        """
        counts = []

        def step(values: dict[str, Tensor], x: Tensor, y: Tensor | None) -> tuple[Tensor, ...]:
            output = functional_call(self.steps[0], values, (x, y))
            counts.append(output.count)
            return (output.loss,) if output.outputs is None else (output.loss, output.outputs)

        results = vmap(step, in_dims=(0, x_dim, None if y is None else y_dim))(self.values, x, y)
        return StepOutput(results[0], counts[0], *results[1:])

    def keep(self, rows: list[int]) -> None:
        """Store the current weights of these jobs as their best."""
        for name, best in self.best.items():
            best[rows] = self.values[name].detach()[rows]

    def restore(self) -> None:
        """Restore the best weights of every job, in the stack and in the jobs' modules."""
        self.values |= self.best
        with torch.no_grad():
            for row, step in enumerate(self.steps):
                for name in self.trained:
                    step.get_parameter(name).copy_(self.best[name][row])


class StackOptimizer:
    """One torch.optim optimizer for all rows of a stack, with a learning rate schedule per step.

    Adjacent rows with the same learning rate and weight decay form one tensor. With an elementwise update rule, each
    row gets the same update as a separate model.
    """

    def __init__(self, stack: Stack, modules: Sequence[Any], total_steps: int):
        self.stack = stack
        neighbors = [
            list(same)
            for _, same in itertools.groupby(modules, key=lambda module: lr_and_weight_decay(module.optimizer))
        ]
        self.sizes = [len(same) for same in neighbors]
        self.slices = {
            name: transpose_matrices(stack.values[name].detach()).split(self.sizes) for name in stack.trained
        }
        groups: list[dict[str, Any]] = []
        self.leading: list[int] = []
        for index, same in enumerate(neighbors):
            self.leading += [len(groups)] * len(same)
            for group in parameter_groups(same[0], same[0].scales, same[0].optimizer):
                groups.append({**group, "params": [self.slices[name][index] for name in group["params"]]})
        self.optimizer = fused(modules[0].optimizer)(groups)
        self.schedule = LambdaLR(self.optimizer, lambda step: modules[0].scheduler(step, total_steps))

    def step(self) -> None:
        """Apply the gradients of the stack, and clear them."""
        for name, slices in self.slices.items():
            gradient = self.stack.values[name].grad
            if gradient is not None:
                for rows, rows_gradient in zip(slices, transpose_matrices(gradient).split(self.sizes)):
                    rows.grad = rows_gradient
            self.stack.values[name].grad = None
        self.optimizer.step()
        self.schedule.step()

    def rates(self) -> list[float]:
        """Return the learning rate of each job's first parameter group."""
        return [self.optimizer.param_groups[index]["lr"] for index in self.leading]


def transpose_matrices(stacked: Tensor) -> Tensor:
    """Transpose matrices (J, out, in) to (J, in, out) or back; return other tensors unchanged.

    Gradients arrive in this memory layout. Storing the parameters in it avoids a copy, about 10 % of a step.
    """
    return stacked.mT if stacked.ndim == 3 else stacked


def lr_and_weight_decay(optimizer: functools.partial) -> tuple[float, float]:
    """Return the learning rate and weight decay, the sort key of jobs."""
    return optimizer.keywords["lr"], optimizer.keywords.get("weight_decay", 0.0)


def fused(optimizer: functools.partial) -> Callable[..., Optimizer]:
    """Return the fused implementation of the optimizer, if it has one and the config selects no implementation.

    Stacked parameters exceed the CPU cache, so every additional pass over them costs time.
    """
    selected = {"fused", "foreach", "capturable", "differentiable"} & set(optimizer.keywords)
    if selected or "fused" not in inspect.signature(optimizer.func).parameters:
        return optimizer
    return functools.partial(optimizer, fused=True)
