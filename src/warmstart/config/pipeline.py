"""Steps that convert the composed config to the config of a stage: pure functions, in order.

No torch is imported, except by `validate_strong` if strong augmentations are given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from omegaconf import DictConfig

from warmstart.config.options import compose_file, given_strong, option_names
from warmstart.config.resolve import with_generic, with_initial_backbone, with_rows, with_run_experiment
from warmstart.config.rewrite import changed, freeze, without
from warmstart.config.schema import ROOT
from warmstart.config.signature import check_data
from warmstart.config.validate import check, target_of
from warmstart.core.errors import UserError


def without_root_keys(config: DictConfig) -> DictConfig:
    """Return the config without the keys that stages do not use; a report of a sweep keeps `sweep.show_test`."""
    if config.stage == "report":
        config = changed(config, {"show_test": config.show_test or config.sweep.show_test})
    return without(config, ROOT.keys)


def validate(config: DictConfig) -> DictConfig:
    """Check the config and return it.

    Raises:
        UserError: with the invalid setting.
    """
    check(config)
    if config.get("input") is not None and not Path(str(config.input)).exists():
        raise UserError(f"input={config.input}: no such file or folder")
    return config


def validate_strong(config: DictConfig) -> DictConfig:
    """Check that strong augmentations on the command line are used, and return the config.

    Those of an experiment are for any strategy. For the arms of a transfer, see `transfer.arms.check_strong`.

    Raises:
        UserError: the strategy does not use them.
    """
    given = given_strong()
    if given is None or config.stage != "finetune" or not config.data.get("strong"):
        return config
    if not uses_strong(config.strategy):
        able = [name for name in option_names("strategy") if uses_strong(compose_file(f"strategy/{name}").strategy)]
        choices = " or ".join(f"strategy={name}" for name in able)
        raise UserError(f"{given}: the strategy uses no strong augmentations: remove it, or choose {choices}")
    return config


def uses_strong(node: DictConfig) -> bool:
    """Return whether a strategy uses strong augmentations."""
    return target_of(node, "strategy").uses_strong


def validate_label_words(config: DictConfig) -> DictConfig:
    """Check that no label words are given for a training, which does not use them, and return the config.

    For the arms of a transfer, see `transfer.baselines.with_fitting_baselines`.

    Raises:
        UserError: they are given.
    """
    if config.stage == "finetune" and config.data.get("label_words"):
        raise UserError(
            "data.label_words: a finetuning trains a head for the classes and uses no words; they are for the arms "
            "zero_shot and prompt of stage=transfer: remove it"
        )
    return config


def validate_data(config: DictConfig) -> DictConfig:
    """Read small data as a check, and return the config.

    Raises:
        UserError: as the source's `load`.
    """
    check_data(config.get("data"), "data")
    check_data((config.get("pretrain") or {}).get("data"), "pretrain.data")
    return config


# `with_run_experiment` and those after it require a validated config.
STEPS: tuple[Callable[[DictConfig], DictConfig], ...] = (
    without_root_keys,
    validate,
    with_run_experiment,
    with_initial_backbone,
    with_rows,
    with_generic,
    validate_data,
    validate_strong,
    validate_label_words,
    freeze,
)


def prepare(config: DictConfig, typed: bool = True) -> DictConfig:
    """Return the config of a stage.

    Args:
        config: as Hydra composed it.
        typed: whether the experiment was given; if not, a stage that uses a run takes the run's experiment.

    Raises:
        UserError: a setting is invalid, or what it refers to cannot be used.
    """
    for step in STEPS:
        if step is not with_run_experiment or not typed:
            config = step(config)
    return config
