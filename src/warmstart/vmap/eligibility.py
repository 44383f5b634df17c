"""Checks whether jobs can be trained in one vmap group.

A training step must be a pure function of parameters and batch, and must not act on a model as one unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from warmstart.core.batch import Batch
from warmstart.core.errors import CannotBatch
from warmstart.core.init import Init
from warmstart.training.components import build, selects_strategy, short_name
from warmstart.vmap.stack import Stack

# Optimizers with elementwise update rules: stacked parameters get the same updates as separate ones.
ELEMENTWISE = frozenset(
    {"SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adadelta", "Adagrad", "RMSprop", "Rprop", "ASGD"}
)
# Trainer settings that the vmap loop supports, and the values that others must have (None if not listed).
SUPPORTED = (
    *("_target_", "accelerator", "threads", "max_epochs", "max_steps", "min_steps"),
    *("check_val_every_n_epoch", "val_check_interval", "log_every_n_steps"),
)
REQUIRED = {"accumulate_grad_batches": 1, "overfit_batches": 0, "devices": 1}
# Floating-point operations of a backbone's forward pass above which vmap brings no speedup on the CPU: arithmetic
# dominates the time of a step. Measured without Lightning's overhead: 16 MLPs of 10 MFLOP trained 1.4 times as fast in
# a vmap group as separately, transformers of 470 MFLOP 0.8 times as fast.
MAX_CPU_FLOPS = 100e6


def check_config(config: DictConfig) -> None:
    """Check that no setting needs a separate Trainer or model per run.

    Raises:
        CannotBatch: a setting does; the message names the first one.
    """
    if config.visualization:
        raise CannotBatch("visualization needs one run at a time; add visualization=[]")
    for name, node in config.logger.items():
        if not node._target_.startswith("warmstart."):
            raise CannotBatch(f"logger={name} may not support several runs at a time")
    if config.get("feature_rows"):
        raise CannotBatch(f"feature_rows={config.feature_rows} needs one run at a time; add feature_rows=0")
    # Folds may give each run other validation rows.
    for name in ("forgetting", "snapshots", "teacher", "data.folds", "data.test_generations"):
        if value := OmegaConf.select(config, name):
            raise CannotBatch(f"{name}={'true' if value is True else value} needs one run at a time")
    if "strategy" in config and selects_strategy(config):
        raise CannotBatch(f"{named(config, 'strategy')} trains its own candidate runs")
    if config.get("average") is not None and build(config.average) is not None:
        raise CannotBatch(f"{named(config, 'average')} needs one run at a time")
    _check_optimization(config)


def _check_optimization(config: DictConfig) -> None:
    """Check that there are training steps, and that trainer and optimizer allow those of stacked parameters."""
    if (init := Init.parse(str(config.get("init", "scratch")))).kind == "static":
        raise CannotBatch(f"init={init} has no training steps")
    for key, value in config.trainer.items():
        if key not in SUPPORTED and value != REQUIRED.get(key):
            raise CannotBatch(f"trainer.{key}={value} is not supported for several models at once")
    interval = config.trainer.val_check_interval
    if interval is not None and (not isinstance(interval, int) or isinstance(interval, bool)):
        raise CannotBatch(f"trainer.val_check_interval={interval} must be a whole number of steps")
    home, _, name = config.optimizer._target_.rpartition(".")
    if home != "torch.optim" or name not in ELEMENTWISE:
        raise CannotBatch(f"optimizer={name.lower()} is not known to be elementwise")


def check_model(config: DictConfig, module: Any, raw: Batch, device: torch.device) -> None:
    """Run a step of one job on the raw batch (B, ...), before parameters are stacked.

    Raises:
        CannotBatch: targets are mixed, the step draws random numbers or changes buffers, or the backbone is too large.
    """
    for name in module.augment.mixing:
        raise CannotBatch(f"data/augment={name} mixes targets, which needs one run at a time")
    if "strategy" in config and (module.has_phases or not module.strategy.only_scales_learning_rates):
        raise CannotBatch(f"{named(config, 'strategy')} needs one run at a time: its steps differ")
    if config.backbone.get("checkpoint"):
        raise CannotBatch("backbone.checkpoint=true needs one run at a time")
    x = scaled(module, raw.x)
    module.train()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        check_pure(named(config, "backbone"), module, lambda: module.backbone(x))
    operations = counter.get_total_flops()
    if device.type == "cpu" and operations > MAX_CPU_FLOPS:
        cost = f"{named(config, 'backbone')} computes {operations / 1e6:.0f} MFLOP per batch"
        raise CannotBatch(f"{cost}: too large for a speedup")
    with torch.no_grad():
        step = module.objective.step
        check_pure(named(config, "objective"), module, lambda: step(module.backbone, Batch(x, raw.y)))


def check_stack(config: DictConfig, module: Any, stack: Stack, raw: Batch, device: torch.device) -> None:
    """Run a step of all jobs on the raw batch (B, ...), and compare the first loss with that of `module`.

    Raises:
        CannotBatch: torch.func.vmap does not support an operation, or computes another loss.
    """
    x = scaled(module, raw.x)
    module.train()
    try:
        with torch.no_grad():
            expected = module.objective.step(module.backbone, Batch(x, raw.y)).loss
            stacked = stack(*(None if part is None else part.to(device) for part in (x, raw.y)), None, None).loss
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CannotBatch(f"{named(config, 'backbone')}, {named(config, 'objective')}: {reason}") from error
    if not torch.allclose(stacked[0].cpu(), expected, rtol=1e-3, equal_nan=True):
        raise CannotBatch(f"{named(config, 'objective')}: torch.func.vmap computes another loss")


def scaled(module: Any, raw: Tensor) -> Tensor:
    """Return the scaled batch, repeated once per view without augmentation: (views * B, ...)."""
    return torch.cat([module.augment.scale(raw)] * module.objective.views)


def named(config: DictConfig, component: str) -> str:
    """Return a component as the override that selects it, such as `backbone=mlp`."""
    return f"{component}={short_name(config[component])}"


def check_pure(name: str, module: Any, call: Callable[[], Any]) -> None:
    """Call a function of the component `name`, and check that it has no side effects.

    Raises:
        CannotBatch: it draws random numbers or changes a buffer.
    """
    before = {key: buffer.clone() for key, buffer in module.named_buffers()}
    state = torch.default_generator.get_state()
    call()
    if not torch.equal(state, torch.default_generator.get_state()):
        raise CannotBatch(f"{name} draws random numbers in its step, such as dropout or noise")
    for key, buffer in module.named_buffers():
        if not torch.equal(before[key], buffer):
            raise CannotBatch(f"{name} updates a buffer in its step, such as batch norm statistics: {key}")
