"""Length of a training: its number of optimizer steps, and its validations. The configs are those of `trainer`."""

from __future__ import annotations

import math

from omegaconf import DictConfig

from warmstart.config.rewrite import changed
from warmstart.core.errors import UserError


def with_min_steps(config: DictConfig, batches: int) -> DictConfig:
    """Return the settings with more epochs, at about as many validations, if `max_epochs` ends before `min_steps`.

    Args:
        config: the `trainer` group.
        batches: number of batches of all training rows.
    """
    least = min_steps(config)
    if not least or config.max_epochs <= 0:
        return config
    if config.max_steps > 0:
        least = min(least, config.max_steps)
    if optimizer_steps(config, batches) >= least:
        return config
    needed = math.ceil(least / max(1, steps_per_epoch(config, batches)))
    settings = {"max_epochs": needed}
    if config.get("check_val_every_n_epoch") is not None:
        settings["check_val_every_n_epoch"] = config.check_val_every_n_epoch * max(1, needed // config.max_epochs)
    return changed(config, settings)


def min_steps(config: DictConfig) -> int:
    """Return the minimum number of steps; 0 if there is none, or if time or tokens are limited."""
    is_limited = any(config.get(name) is not None for name in ("max_time", "max_tokens"))
    return 0 if is_limited else config.get("min_steps") or 0


def steps_per_epoch(config: DictConfig, batches: int) -> int:
    """Return the number of optimizer steps of an epoch."""
    return math.ceil(limited(config, batches) / config.accumulate_grad_batches)


def limited(config: DictConfig, batches: int) -> int:
    """Return the number of training batches per epoch after the limits of the `trainer` group."""
    limit = config.get("overfit_batches") or config.get("limit_train_batches")
    limit = 1.0 if limit is None else limit
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def optimizer_steps(config: DictConfig, batches: int) -> float:
    """Return the maximum number of optimizer steps; infinite if only time or tokens are limited."""
    epochs = config.max_epochs * steps_per_epoch(config, batches) if config.max_epochs > 0 else math.inf
    return min(epochs, config.max_steps) if config.max_steps > 0 else epochs


def check_interval(config: DictConfig, batches: int) -> None:
    """Raise an error if no epoch reaches a validation.

    Args:
        config: the `trainer` group.
        batches: number of batches of all training rows.

    Raises:
        UserError: `val_check_interval` exceeds the batches per epoch.
    """
    batches = limited(config, batches)
    interval = config.get("val_check_interval")
    if isinstance(interval, int) and interval > batches and config.get("check_val_every_n_epoch") is not None:
        raise UserError(
            f"trainer.val_check_interval={interval} is more than the {batches} batches of an epoch: "
            "set trainer.check_val_every_n_epoch=null, or decrease it"
        )
