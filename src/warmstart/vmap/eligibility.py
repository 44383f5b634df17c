"""Whether jobs can be trained together: refused is what acts on whole models, or is more than a function of a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from warmstart.core.batch import Batch
from warmstart.core.errors import CannotBatch
from warmstart.training.components import build, races, short_name
from warmstart.vmap.stack import Stack

# Optimizers whose rule works element by element, so that stacking models changes nothing.
ELEMENTWISE = frozenset(
    {"SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "RMSprop", "Rprop", "ASGD"}
)
# Settings of the trainer that training together follows, and what the others must be.
FOLLOWED = frozenset(
    {
        "_target_",
        "max_epochs",
        "max_steps",
        "min_steps",
        "check_val_every_n_epoch",
        "val_check_interval",
        "log_every_n_steps",
    }
    | {"accelerator", "devices", "threads"}
)
NEUTRAL = {"accumulate_grad_batches": 1, "overfit_batches": 0}
# Floating-point operations of a backbone's forward pass above which, on the CPU, arithmetic is nearly all that a step
# costs. At 10 million, 16 MLPs were 1.4 times as fast together, Lightning's loop left out; at 470 million, transformers
# were 0.8 times as fast.
LARGE = 100e6


def check_config(config: DictConfig) -> None:
    """Refuse settings that need a Trainer and a model of their own.

    Raises:
        CannotBatch: names the first of them.
    """
    if config.pictures:
        raise CannotBatch("pictures=true draws one run at a time; add pictures=false")
    if config.get("feature_rows"):
        raise CannotBatch(f"feature_rows={config.feature_rows} are looked at one run at a time; add feature_rows=0")
    if config.get("forgetting"):
        raise CannotBatch("forgetting=true measures what is left of a parent one run at a time")
    if config.get("snapshots"):
        raise CannotBatch("snapshots are kept of one run at a time")
    if "strategy" in config and races(config):
        raise CannotBatch(f"{named(config, 'strategy')} has runs of its own to choose by")
    if config.data.get("folds"):
        raise CannotBatch(f"data.folds={config.data.folds} has each run validate on other rows")
    if config.get("average") is not None and build(config.average) is not None:
        raise CannotBatch(f"{named(config, 'average')} is kept of one run at a time")
    _check_optimization(config)


def _check_optimization(config: DictConfig) -> None:
    """Refuse settings of the Trainer and optimizers for which a step of several models is not that of each."""
    for key, value in config.trainer.items():
        if key not in FOLLOWED and value != NEUTRAL.get(key):
            raise CannotBatch(f"trainer.{key}={value} is for one model at a time")
    interval = config.trainer.val_check_interval
    if interval is not None and (not isinstance(interval, int) or isinstance(interval, bool)):
        raise CannotBatch(f"trainer.val_check_interval={interval}: only a number of steps")
    home, _, name = config.optimizer._target_.rpartition(".")
    if home != "torch.optim" or name not in ELEMENTWISE:
        raise CannotBatch(f"optimizer={name.lower()} is not known to work element by element")


def check_model(config: DictConfig, module: Any, raw: Batch, device: torch.device) -> None:
    """Try a step of one job on the raw batch (B, ...), before it is multiplied.

    Raises:
        CannotBatch: targets are mixed, or the step draws random numbers, changes buffers, or is large.
    """
    for name in module.augment.mixing:
        raise CannotBatch(f"data/augment={name} mixes the targets of one run at a time")
    if "strategy" in config and (module.has_phases or not module.strategy.only_claims):
        raise CannotBatch(f"{named(config, 'strategy')} is for one run at a time: its steps are not alike")
    x = scaled(module, raw.x)
    module.train()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        check_pure(named(config, "backbone"), module, lambda: module.backbone(x))
    operations = counter.get_total_flops()
    if device.type == "cpu" and operations > LARGE:
        what = f"{named(config, 'backbone')} computes {operations / 1e6:.0f} MFLOP a batch"
        raise CannotBatch(f"{what}: too large to gain by it")
    with torch.no_grad():
        step = module.objective.step
        check_pure(named(config, "objective"), module, lambda: step(module.backbone, Batch(x, raw.y)))


def check_stack(config: DictConfig, module: Any, stack: Stack, raw: Batch, device: torch.device) -> None:
    """Try a step of all jobs on the raw batch (B, ...); the first of them has the weights of `module`.

    Raises:
        CannotBatch: torch.func cannot map it, or comes to another loss.
    """
    x = scaled(module, raw.x)
    module.train()
    try:
        with torch.no_grad():
            alone = module.objective.step(module.backbone, Batch(x, raw.y)).loss
            stacked = stack(*(None if part is None else part.to(device) for part in (x, raw.y)), None, None).loss
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CannotBatch(f"{named(config, 'backbone')}, {named(config, 'objective')}: {reason}") from error
    if not torch.allclose(stacked[0].cpu(), alone, rtol=1e-3, equal_nan=True):
        raise CannotBatch(f"{named(config, 'objective')}: its loss is another one when torch.func computes it")


def scaled(module: Any, raw: Tensor) -> Tensor:
    """As many unchanged copies (views * B, ...) as the objective takes augmented ones."""
    return torch.cat([module.augment.scale(raw)] * module.objective.views)


def named(config: DictConfig, part: str) -> str:
    """A part as it is chosen on the command line."""
    return f"{part}={short_name(config[part])}"


def check_pure(name: str, module: Any, call: Callable[[], Any]) -> None:
    """Refuse what a call of a part named `name` does besides computing.

    Raises:
        CannotBatch: it drew random numbers or changed a buffer.
    """
    before = {key: buffer.clone() for key, buffer in module.named_buffers()}
    state = torch.default_generator.get_state()
    call()
    if not torch.equal(state, torch.default_generator.get_state()):
        raise CannotBatch(f"{name} draws random numbers inside its step, such as dropout or noise")
    for key, buffer in module.named_buffers():
        if not torch.equal(before[key], buffer):
            raise CannotBatch(f"{name} keeps statistics that training changes, such as batch norm's: {key}")
