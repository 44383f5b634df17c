"""Many modules of one shape as one: weights stacked, every step of all of them done by one call of torch.func.

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
from warmstart.training.optimization import grouped


class _Step(nn.Module):
    """An objective on its backbone as a function of a batch; parameters are named as in the modules."""

    def __init__(self, backbone: Backbone, objective: Objective):
        super().__init__()
        self.backbone, self.objective = backbone, objective

    def forward(self, x: Tensor, y: Tensor | None) -> StepOutput:
        """The objective's own step."""
        return self.objective.step(self.backbone, Batch(x, y))


class Stack:
    """The parameters and buffers of J modules, each with a first dimension J.

    Args:
        modules: finetuning or pretraining modules that differ in numbers only; the first lends its code to all.
        device: where the stacked tensors are kept.
    """

    def __init__(self, modules: Sequence[Any], device: torch.device):
        self.module = modules[0]
        self.steps = [_Step(module.backbone, module.objective) for module in modules]
        states = [dict([*step.named_parameters(), *step.named_buffers()]) for step in self.steps]
        self.values: dict[str, Tensor] = {}
        for name in states[0]:
            stacked = torch.stack([state[name].detach() for state in states]).to(device)
            self.values[name] = flip(flip(stacked).contiguous())
        self.trained = [name for name, scale in self.module.scales.items() if scale]
        for name in self.trained:
            self.values[name].requires_grad_()
        self.best = {name: self.values[name].detach().clone() for name in self.trained}

    def __call__(self, x: Tensor, y: Tensor | None, x_dim: int | None = 0, y_dim: int | None = 0) -> StepOutput:
        """The step of every job: losses (J,) and outputs (J, B, C).

        Args:
            x: inputs (J, B, ...), or (B, ...) for all jobs with `x_dim` None.
            y: targets (J, B, ...), or (B, ...) for all jobs with `y_dim` None.
            x_dim: where J stands in x.
            y_dim: where J stands in y.
        """
        counts = []

        def step(values: dict[str, Tensor], x: Tensor, y: Tensor | None) -> tuple[Tensor, ...]:
            output = functional_call(self.steps[0], values, (x, y))
            counts.append(output.count)
            return (output.loss,) if output.outputs is None else (output.loss, output.outputs)

        results = vmap(step, in_dims=(0, x_dim, None if y is None else y_dim))(self.values, x, y)
        return StepOutput(results[0], counts[0], *results[1:])

    def keep(self, rows: list[int]) -> None:
        """Remember the weights of these jobs as their best."""
        for name, best in self.best.items():
            best[rows] = self.values[name].detach()[rows]

    def restore(self) -> None:
        """Go back to the best weights of every job, in the stack and in the jobs' own modules."""
        self.values |= self.best
        with torch.no_grad():
            for row, step in enumerate(self.steps):
                for name in self.trained:
                    step.get_parameter(name).copy_(self.best[name][row])


class StackOptimizer:
    """One torch.optim optimizer over the rows of a stack, and a schedule per step.

    Neighbours with the same learning rate and weight decay are stepped as one tensor: every rule that works element by
    element then does to each row what it would do alone.
    """

    def __init__(self, stack: Stack, modules: Sequence[Any], total_steps: int):
        self.stack = stack
        runs = [list(same) for _, same in itertools.groupby(modules, key=lambda module: numbers(module.optimizer))]
        self.sizes = [len(same) for same in runs]
        self.slices = {name: flip(stack.values[name].detach()).split(self.sizes) for name in stack.trained}
        groups: list[dict[str, Any]] = []
        self.leading: list[int] = []
        for index, same in enumerate(runs):
            self.leading += [len(groups)] * len(same)
            for group in grouped(same[0], same[0].scales, same[0].optimizer):
                groups.append({**group, "params": [self.slices[name][index] for name in group["params"]]})
        self.optimizer = in_one_pass(modules[0].optimizer)(groups)
        self.schedule = LambdaLR(self.optimizer, lambda step: modules[0].scheduler(step, total_steps))

    def step(self) -> None:
        """Use the gradients of the stack up."""
        for name, slices in self.slices.items():
            gradient = self.stack.values[name].grad
            if gradient is not None:
                for part, part_gradient in zip(slices, flip(gradient).split(self.sizes)):
                    part.grad = part_gradient
            self.stack.values[name].grad = None
        self.optimizer.step()
        self.schedule.step()

    def rates(self) -> list[float]:
        """The learning rate of each job's first parameter group."""
        return [self.optimizer.param_groups[index]["lr"] for index in self.leading]


def flip(stacked: Tensor) -> Tensor:
    """Matrices (J, out, in) as (J, in, out), and back.

    So they lie in memory, because so their gradients arrive: a copy of those would be a tenth of a step.
    """
    return stacked.mT if stacked.ndim == 3 else stacked


def numbers(optimizer: functools.partial) -> tuple[float, float]:
    """Learning rate and weight decay, by which jobs are sorted."""
    return optimizer.keywords["lr"], optimizer.keywords.get("weight_decay", 0.0)


def in_one_pass(optimizer: functools.partial) -> Callable[..., Optimizer]:
    """The optimizer in its fused form, where it has one and the config does not choose a form.

    Stacked weights are too large for the cache, so each further pass over them is paid for.
    """
    chosen = {"fused", "foreach", "capturable", "differentiable"} & set(optimizer.keywords)
    if chosen or "fused" not in inspect.signature(optimizer.func).parameters:
        return optimizer
    return functools.partial(optimizer, fused=True)
