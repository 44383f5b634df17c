"""Parameter groups from a strategy's claims, and the optimizer and schedule over them."""

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


def assign(claims: list[tuple[str, Scale]], names: list[str]) -> dict[str, Scale]:
    """Learning-rate scale per parameter name.

    Raises:
        UserError: a parameter is claimed by no pattern or by two, a pattern claims nothing, or all are frozen.
    """
    scales: dict[str, Scale] = {}
    unused = {pattern for pattern, _ in claims}
    for pattern, scale in claims:
        if not callable(scale) and scale < 0:
            raise UserError(f"strategy: {pattern} would train at {scale:g} times optimizer.lr, which is below 0")
    for name in names:
        matching = [(pattern, scale) for pattern, scale in claims if fnmatchcase(name, pattern)]
        if len(matching) != 1:
            found = " and ".join(pattern for pattern, _ in matching) or "no pattern"
            raise UserError(f"strategy: parameter {name} is claimed by {found}; every parameter is claimed once")
        unused.discard(matching[0][0])
        scales[name] = matching[0][1]
    if unused:
        raise UserError(f"strategy: pattern {sorted(unused)[0]} matches no parameter")
    if not any(scales.values()):
        raise UserError("strategy: every parameter is frozen, so nothing would train")
    return scales


def at(scale: Scale, progress: float) -> float:
    """A scale at a share of the run from 0 to 1."""
    return scale(progress) if callable(scale) else scale


def freeze(module: nn.Module, trained: set[str]) -> list[nn.Module]:
    """Stop gradients of all parameters but those `trained`; return the outermost submodules that are frozen whole."""
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
    """Names of the matrices that take features to features: in the backbone, past its depth 0, no embedding."""
    depths = module.backbone.depths()
    tables = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}

    def depth(name: str) -> int:
        prefixes = [prefix for prefix in depths if f"{name}.".startswith(f"{prefix}.")]
        return depths[max(prefixes, key=len)] if prefixes else 0

    return {
        f"backbone.{name}"
        for name, parameter in module.backbone.named_parameters()
        if parameter.ndim == 2 and id(parameter) not in tables and depth(name) > 0
    }


def grouped(module: nn.Module, scales: dict[str, Scale], optimizer: Callable[..., Optimizer]) -> list[dict[str, Any]]:
    """One group per learning-rate scale, norms and biases apart without weight decay; `params` are names.

    A scale that changes is left to the schedule.

    For an optimizer with `separates_hidden`, matrices inside the backbone are apart too, and groups flagged `hidden`.
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
    """The first step at which no less than this share of `total` steps is over."""
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
    """An optimizer over the groups of `grouped`, and a schedule per step.

    Args:
        module: whose parameters train.
        scales: learning-rate scale per parameter name.
        optimizer: makes one of groups.
        scheduler: the step and the number of steps to a factor.
        total_steps: may be infinite where no scale changes.
        restarts: rising shares of the run at which the schedule begins anew; each part is a run to it.
    """
    starts = [0, *(first_step(share, total_steps) for share in restarts)]
    ends = [*starts[1:], total_steps]
    own = dict(module.named_parameters())
    groups = grouped(module, scales, optimizer)
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
