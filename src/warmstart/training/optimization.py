"""Parameter groups, optimizer, schedule and gradient accumulation."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from warmstart.core.batch import StepOutput
from warmstart.core.errors import UserError
from warmstart.core.protocols import Scale
from warmstart.distributed.processes import averaged
from warmstart.distributed.tensors import sharded_as

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def assign(patterns: list[tuple[str, Scale]], names: list[str]) -> dict[str, Scale]:
    """Return the learning-rate scale of each parameter.

    Raises:
        UserError: a parameter matches no pattern or several, a pattern matches no parameter, or all are frozen.
    """
    scales: dict[str, Scale] = {}
    unused = {pattern for pattern, _ in patterns}
    for pattern, scale in patterns:
        if not callable(scale) and scale < 0:
            raise UserError(f"strategy: {pattern} has the negative learning-rate scale {scale:g}")
    for name in names:
        matching = [(pattern, scale) for pattern, scale in patterns if fnmatchcase(name, pattern)]
        if len(matching) != 1:
            found = " and ".join(pattern for pattern, _ in matching) or "no pattern"
            raise UserError(f"strategy: parameter {name} matches {found}, but must match exactly one")
        unused.discard(matching[0][0])
        scales[name] = matching[0][1]
    if not any(name.startswith("objective.") for name in names):  # its head is a weight of the backbone
        unused.discard("objective.*")
    if unused:
        raise UserError(f"strategy: pattern {sorted(unused)[0]} matches no parameter")
    if not any(scales.values()):
        raise UserError("strategy: all parameters are frozen")
    return scales


def at(scale: Scale, progress: float) -> float:
    """Return the value of a scale at a fraction of the run from 0 to 1."""
    return scale(progress) if callable(scale) else scale


def freeze(module: nn.Module, trained: set[str]) -> list[nn.Module]:
    """Disable the gradients of all parameters except `trained`; return the outermost completely frozen submodules."""
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in trained)
    frozen: list[nn.Module] = []

    def visit(part: nn.Module) -> None:
        parameters = list(part.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            frozen.append(part)
            return
        for child in part.children():
            visit(child)

    visit(module)
    return frozen


def hidden_matrices(module: nn.Module) -> set[str]:
    """Return the names of hidden matrices and kernels of convolutions: in the backbone, at a depth above 0.

    Embeddings are not among them.
    """
    depths = module.backbone.depths()
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    kernels = {id(part.weight) for part in module.modules() if isinstance(part, CONVOLUTIONS)}

    def depth(name: str) -> int:
        prefixes = [prefix for prefix in depths if f"{name}.".startswith(f"{prefix}.")]
        return depths[max(prefixes, key=len)] if prefixes else 0

    return {
        f"backbone.{name}"
        for name, parameter in module.backbone.named_parameters()
        if depth(name) > 0 and ((parameter.ndim == 2 and id(parameter) not in tables) or id(parameter) in kernels)
    }


def parameter_groups(
    module: nn.Module, scales: dict[str, Scale], optimizer: Callable[..., Optimizer]
) -> list[dict[str, Any]]:
    """Return one group per learning-rate scale, with separate groups without weight decay for norms and biases.

    `params` are names. Scales that are functions are applied by the schedule. For an optimizer with `separates_hidden`,
    hidden matrices and kernels have separate groups, and all groups have the flag `hidden`.
    """
    separates = getattr(optimizer.func, "separates_hidden", False)
    hidden = hidden_matrices(module) if separates else set()
    groups: dict[tuple[Scale, bool, bool], list[str]] = {}
    for name, parameter in module.named_parameters():
        if scales[name]:
            groups.setdefault((scales[name], parameter.ndim > 1, name in hidden), []).append(name)
    settings = []
    for (scale, decays, is_hidden), names in groups.items():
        group: dict[str, Any] = {"params": names, "lr": optimizer.keywords["lr"] * (1.0 if callable(scale) else scale)}
        if not decays:
            group["weight_decay"] = 0.0
        elif "weight_decay" in optimizer.keywords:
            group["weight_decay"] = optimizer.keywords["weight_decay"]
        settings.append({**group, "hidden": is_hidden} if separates else group)
    return settings


def first_step(share: float, total: float) -> float:
    """Return the first step at which at least a fraction `share` of `total` steps is complete."""
    step = math.floor(share * total)
    return step if step / total >= share else step + 1


def configure(
    module: nn.Module,
    scales: dict[str, Scale],
    optimizer: Callable[..., Optimizer],
    scheduler: Callable[..., float],
    total_steps: float,
    restarts: Sequence[float] = (),
) -> dict[str, Any]:
    """Return the optimizer with the groups of `parameter_groups` and a schedule per step.

    Args:
        module: module to train.
        scales: learning-rate scale by parameter name.
        optimizer: partial optimizer with its settings.
        scheduler: function of the step and the number of steps that returns a factor.
        total_steps: number of steps; may be infinite if no scale is a function.
        restarts: increasing fractions of the run at which the schedule restarts.
    """
    starts = [0, *(first_step(share, total_steps) for share in restarts)]
    ends = [*starts[1:], total_steps]
    own = dict(module.named_parameters())
    groups = parameter_groups(module, scales, optimizer)
    built = optimizer([{**group, "params": [own[name] for name in group["params"]]} for group in groups])

    def factor(scale: Scale) -> Callable[[int], float]:
        def at_step(step: int) -> float:
            part = bisect_right(starts, step) - 1
            rate = scheduler(step - starts[part], ends[part] - starts[part])
            return rate * scale(step / total_steps) if callable(scale) else rate

        return at_step

    schedule = LambdaLR(built, [factor(scales[group["params"][0]]) for group in groups])
    return {"optimizer": built, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Accumulation:
    """Accumulates gradients of several batches, weighted by their number of values.

    L = sum(n_i L_i) / sum(n_i), where L_i is the mean of n_i values: examples, or positions. It equals the loss of one
    large batch, unless the loss of an example depends on the others in its batch, as with contrastive losses and batch
    norm: these use the small batches, whose losses are weighted in the same way. Noise, masks and mixing are drawn for
    each small batch.

    The loss of a batch is multiplied by n_i / n_1 before the backward pass, and the sum of the gradients by n_1 /
    sum(n_i) before they are used, as the later counts are unknown until then.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset the counts for a new optimizer step."""
        self.first = self.count = 0
        self.total: Tensor | float = 0.0

    def add(self, output: StepOutput) -> float:
        """Add a batch; return the factor of its loss for the backward pass."""
        self.first = self.first or output.count
        self.count += output.count
        self.total = self.total + output.loss.detach().float() * output.count
        return output.count / self.first if self.first else 1.0

    def close(self, parameters: Iterable[Tensor], divided: int) -> Tensor | float:
        """Scale the accumulated gradients, which the loop divided by `divided`; return the loss of the step."""
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
        """Return counts and gradients of an incomplete step; empty between two steps."""
        if not self.count:
            return {}
        gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
        gradients = averaged(gradients)
        return {"first": self.first, "count": self.count, "total": float(self.total), "gradients": gradients}

    def load_state_dict(self, state: dict[str, Any], module: nn.Module) -> None:
        """Restore an incomplete step."""
        self.first, self.count, self.total = state["first"], state["count"], state["total"]
        for name, value in module.named_parameters():
            if name in state["gradients"]:
                value.grad = sharded_as(state["gradients"][name].to(value.device, value.dtype), value)
