"""Checks of the arms of a transfer that are baselines, and removal of those that do not fit the data."""

from __future__ import annotations

from omegaconf import DictConfig

from warmstart.config.options import is_given
from warmstart.config.rewrite import changed
from warmstart.core import screen
from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Baseline, Objective
from warmstart.training import components
from warmstart.training.frozen import label_words, without_head, without_words
from warmstart.training.start import find_start
from warmstart.transfer.arms import PRETRAINED, arm_config


def baseline_of(config: DictConfig, arm: str) -> Baseline | None:
    """Build the baseline of an arm; None if it has none.

    Raises:
        UserError: a setting is invalid.
    """
    node = config.arm[arm].get("baseline") if arm in config.arm else None
    return None if node is None else components.build(node)


def with_fitting_baselines(config: DictConfig, splits: Splits) -> DictConfig:
    """Return the config without the baseline arms that do not fit the data, its targets or the initial weights.

    They are printed with the reasons.

    Raises:
        UserError: such an arm is listed in transfer.arms on the command line, or its settings are invalid.
    """
    for arm in config.arm:  # the settings of all, also of those that do not run
        baseline_of(config, arm)
    reasons = {arm: reason for arm in config.transfer.arms if (reason := unsuitable(config, arm, splits)) is not None}
    left = [arm for arm in config.transfer.arms if arm not in reasons]
    if config.data.get("label_words") and not any(is_prompted(config, arm) for arm in left):
        raise UserError("data.label_words: no arm of this transfer uses words, as zero_shot and prompt do: remove it")
    if not reasons:
        return config
    if is_given("transfer.arms"):
        arm, reason = next(iter(reasons.items()))
        raise UserError(f"transfer.arms: {arm} {reason}: remove it")
    screen.say(f"removed arms that do not fit: {', '.join(f'{arm} ({reason})' for arm, reason in reasons.items())}")
    return changed(config, {"transfer.arms": left})


def unsuitable(config: DictConfig, arm: str, splits: Splits) -> str | None:
    """Return why an arm does not fit the data, its targets or the initial weights; None if it does.

    Raises:
        UserError: the arm has no initial weights but needs them, or has some but does not use them.
    """
    baseline = baseline_of(config, arm)
    if baseline is None:
        return None
    init = config.arm[arm].get("init")
    if baseline.start is None and init is not None:
        raise UserError(f"arm.{arm}.init={init}: {name_of(config, arm)} uses no initial weights: remove it")
    if baseline.start is not None and init is None:
        raise UserError(f"arm.{arm}: {name_of(config, arm)} needs initial weights: add +arm.{arm}.init={PRETRAINED}")
    objective = components.get_object(config.objective._target_)
    if objective.target not in baseline.target_kinds:
        return f"predicts no target of kind {objective.target}"
    modality = components.source_type(config.data).modality
    if baseline.modalities is not None and modality not in baseline.modalities:
        return f"takes {' and '.join(sorted(baseline.modalities))}, not {modality}"
    reason = baseline.unsupported(splits.train.x)
    if reason is None and baseline.start == "outputs":
        reason = lacking_head(config, arm, init, objective, splits.labels, baseline.has_examples)
    return reason


def is_prompted(config: DictConfig, arm: str) -> bool:
    """Return whether an arm may predict classes by words."""
    baseline = baseline_of(config, arm)
    objective = components.get_object(config.objective._target_)
    return baseline is not None and baseline.start == "outputs" and objective.prompted is not None


def name_of(config: DictConfig, arm: str) -> str:
    """Return the baseline of an arm as an override."""
    return f"baseline={components.short_name(config.arm[arm].baseline)}"


def lacking_head(
    config: DictConfig,
    arm: str,
    init: str,
    objective: type[Objective],
    labels: tuple[str, ...],
    has_examples: bool,
) -> str | None:
    """Return why the initial weights of an arm have no head for an objective and labels; None if they have one.

    Args:
        has_examples: whether the head must be that of a language model, which has examples in its context.

    Raises:
        UserError: data.label_words is invalid.
    """
    if init in (PRETRAINED, "shuffled"):
        own = components.get_object(config.pretrain.objective._target_).task
        if objective.keeps_head and own == objective.task:
            return None
        return "the pretraining of this transfer has no head for these labels"
    own = arm_config(config, arm, "scratch", "all", 0)
    start, _ = find_start(own)
    words = label_words(own, start, labels, has_examples)
    return without_head(start, objective, labels) if words is None else without_words(own, start, labels, words)
