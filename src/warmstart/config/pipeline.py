"""From the config that Hydra composed to the one that a stage runs: pure functions, in order. No torch is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from warmstart.config.resolve import adopt, follow
from warmstart.config.rewrite import freeze, without
from warmstart.config.schema import ROOT
from warmstart.config.signature import check_data
from warmstart.config.validate import check
from warmstart.core.errors import UserError


def own(config: DictConfig) -> DictConfig:
    """The config without what no stage sees."""
    return without(config, ROOT.keys)


def validate(config: DictConfig) -> DictConfig:
    """The config, refused where no run can use it.

    Raises:
        UserError: names the setting.
    """
    check(config)
    if config.get("input") is not None and not Path(str(config.input)).exists():
        raise UserError(f"input={config.input}: there is no such file or folder")
    return config


def validate_data(config: DictConfig) -> DictConfig:
    """The config, refused where small data cannot be read.

    Raises:
        UserError: as the source's `load`.
    """
    check_data(config.get("data"), "data")
    check_data((config.get("pretrain") or {}).get("data"), "pretrain.data")
    return config


# Resolving reads what `validate` has checked; what it adds is checked where it comes from.
STEPS: tuple[Callable[[DictConfig], DictConfig], ...] = (own, validate, follow, adopt, validate_data, freeze)


def prepare(config: DictConfig, typed: bool = True) -> DictConfig:
    """The config that a stage runs.

    Args:
        config: as Hydra composed it.
        typed: whether its experiment was asked for; else a stage that starts from a run takes that of the run.

    Raises:
        UserError: a setting cannot be, or what it names cannot be used.
    """
    for step in STEPS:
        if step is not follow or not typed:
            config = step(config)
    return config
