"""The jobs of a transfer: every arm at every budget and label count, paired by seed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from warmstart.config.options import given_strong, is_given
from warmstart.config.resolve import GENERIC, needs_generic, with_initial_backbone
from warmstart.config.rewrite import changed, merged
from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.init import HUB, Init
from warmstart.core.labels import Labels, labels_name, most_per_class
from warmstart.data.loader import batches
from warmstart.data.splits import fold_of, labelled_subset
from warmstart.report.looks import AUTO
from warmstart.run.identity import resolved_for_arms
from warmstart.run.manifest import RUNS, Job
from warmstart.training.callbacks.snapshots import SNAPSHOTS
from warmstart.training.length import limited, optimizer_steps, with_min_steps
from warmstart.training.start import check_kept_head, find_start, given_preprocessor

OWN_KEYS = ("pretrain", "transfer", "arm")
ARM_KEYS = ("against", "length", "tune")  # settings of an arm that are not settings of its finetunings
PRETRAINING = "pretrain"  # name of the pretraining job
BUDGETS = ("steps", "total", "converged")
BASELINE_KEYS = ("seed", "experiment", "output_dir", "trust", "data", "objective", "loss", "backbone")
START_KEYS = ("preprocessor", "trainer")  # further ones of a baseline that uses initial weights


@dataclass(frozen=True)
class Sizes:
    """Numbers of examples from which budgets are computed.

    Args:
        labelled: training rows by entry of transfer.labels.
        examples: examples that one pretraining trains on, repetitions included.
    """

    labelled: Mapping[Labels, int]
    examples: int


def pretrainings(config: DictConfig) -> list[Job]:
    """Return the pretraining jobs, which differ in their seed; none if no arm needs one."""
    if not has_pretraining(config):
        return []
    resolved = OmegaConf.to_container(config.pretrain, resolve=True)
    count = config.transfer.pretrain_seeds
    return [
        Job(pretraining_name(config, number), {}, {**resolved, "seed": config.pretrain.seed + number})
        for number in range(count)
    ]


def has_pretraining(config: DictConfig) -> bool:
    """Return whether an arm needs the pretraining of this transfer."""
    return any(pretraining_of(config, arm, config.seed) for arm in config.transfer.arms)


def pretraining_name(config: DictConfig, index: int) -> str:
    """Return the name of the pretraining job for the finetunings with the index-th seed."""
    count = config.transfer.pretrain_seeds
    return PRETRAINING if count == 1 else f"{PRETRAINING}{index % count}"


def finetunings(
    config: DictConfig,
    folder: Path,
    sizes: Sizes,
    rates: Mapping[tuple[str, Labels], float] | None = None,
    seeds: range | None = None,
) -> list[Job]:
    """Return the jobs of all arms; a job that two budgets share is included once.

    Args:
        config: a composed transfer config.
        folder: the transfer's folder.
        sizes: numbers of labelled and pretraining examples.
        rates: tuned learning rates by arm and labels.
        seeds: indices of the seeds; by default, all of transfer.seeds, or those of the first look.
    """
    if seeds is None:
        seeds = range(config.transfer.looks[0] if config.transfer.seeds == AUTO else config.transfer.seeds)
    jobs: list[Job] = []
    seen: set[str] = set()
    for name, values, finetuning in plan(config, folder, sizes, seeds):
        rate = (rates or {}).get((values["arm"].partition("@")[0], values["labels_per_class"]))
        if rate is not None:
            finetuning = changed(finetuning, {"optimizer.lr": rate})
        needed = pretraining_of(config, values["arm"], values["seed"])
        job = Job(name, values, OmegaConf.to_container(finetuning, resolve=True), needed)
        if job.sha256 not in seen:
            seen.add(job.sha256)
            jobs.append(job)
    return jobs


def plan(
    config: DictConfig, folder: Path, sizes: Sizes, seeds: range
) -> Iterator[tuple[str, dict[str, Any], DictConfig]]:
    """Yield name, values and config of each finetuning; snapshots of the pretraining use the first entry of labels."""
    configs: dict[tuple[str, Path, Labels], DictConfig] = {}
    for labels, index in itertools.product(config.transfer.labels, seeds):
        seed = config.seed + index
        base = folder / RUNS / pretraining_name(config, index)
        for budget in BUDGETS:
            for arm in config.transfer.arms:
                if arm not in config.transfer.budgets.get(budget, ()):
                    continue
                if (arm, base, labels) not in configs:
                    configs[arm, base, labels] = arm_config(config, arm, str(base), labels, seed)
                finetuning = changed(configs[arm, base, labels], {"seed": seed})
                finetuning = with_length(finetuning, arm, budget, config, sizes, labels)
                prefix = arm if budget == "steps" else f"{arm}-{budget}"
                name = f"{prefix}-{labels_name(labels)}-seed{seed}"
                yield name, {"arm": arm, "budget": budget, "labels_per_class": labels, "seed": seed}, finetuning
        has_snapshots = "pretrained" in config.transfer.arms and pretraining_of(config, "pretrained", seed) is not None
        if has_snapshots and labels == config.transfer.labels[0]:
            for number in range(1, config.pretrain.snapshots + 1):
                arm = f"pretrained@{number}"
                finetuning = arm_config(config, "pretrained", str(base / SNAPSHOTS / str(number)), labels, seed)
                values = {"arm": arm, "budget": "steps", "labels_per_class": labels, "seed": seed}
                yield f"snapshot{number}-{labels_name(labels)}-seed{seed}", values, finetuning


def pretraining_of(config: DictConfig, arm: str, seed: int) -> str | None:
    """Return the name of the pretraining job that a finetuning depends on, if any."""
    node = config.arm.get(arm.partition("@")[0]) or {}
    is_needed = node.get("init") in ("pretrained", "shuffled") or node.get("preprocessor") == "pretrained"
    return pretraining_name(config, seed - config.seed) if is_needed else None


def arm_config(config: DictConfig, arm: str, pretrained: str, labels: Labels, seed: int) -> DictConfig:
    """Return the finetuning config of one arm: the shared settings with the overrides of the arm.

    If its strategy uses unlabelled rows, it gets them, whatever data.unlabelled is.

    Args:
        config: a composed transfer config.
        arm: one of `config.arm`.
        pretrained: replaces `pretrained` and `shuffled` in its `init`.
        labels: an entry of transfer.labels.
        seed: the root seed, the same for all arms.

    Raises:
        UserError: the arm is unknown, or has no `init`.
    """
    if arm not in config.arm:
        raise UserError(f"transfer.arms: unknown arm {arm}; available: {', '.join(config.arm)}, and each strategy")
    overrides = resolved_for_arms(config.arm[arm])
    for name in ARM_KEYS:
        overrides.pop(name, None)
    if "baseline" in overrides:
        kept = (*BASELINE_KEYS, *START_KEYS) if "init" in overrides else BASELINE_KEYS
        shared = plain(config, [key for key in kept if key in config])
        overrides["stage"] = "baseline"
    else:
        shared = plain(config, [key for key in config if key not in OWN_KEYS])
        overrides["stage"] = "finetune"
        if not overrides.get("init"):
            raise UserError(f"arm.{arm} has no initial weights: set arm.{arm}.init=pretrained, scratch or a path")
    if "init" in overrides:
        inits = {"pretrained": pretrained, "shuffled": str(replace(Init.parse(pretrained), shuffled=True))}
        overrides["init"] = inits.get(overrides["init"], overrides["init"])
        if overrides.get("preprocessor") == "pretrained":
            overrides["preprocessor"] = None if pretrained == "scratch" else pretrained
    for name, value in overrides.items():
        if isinstance(value, dict) and "_target_" in value:  # replaces the shared component
            shared.pop(name, None)
    subset = subset_settings(labels)
    rows = {"labels_per_class": subset["per_class"], "label_fraction": subset["fraction"]}
    own = with_own_generic(merged(shared, overrides), config.pretrain)
    is_used = "strategy" in own and get_object(own.strategy._target_).uses_unlabelled
    rows |= {"unlabelled": is_used} if "unlabelled" in own.data else {}  # a transfer of an earlier version lacks it
    try:
        finetuning = with_initial_backbone(merged(own, {"seed": seed, "data": rows}))
    except UserError as error:
        init = overrides.get("init")
        raise UserError(f"{start_setting(config, arm, init)}: {str(error).removeprefix(f'init={init}: ')}") from error
    OmegaConf.resolve(finetuning)
    return finetuning


def with_own_generic(finetuning: DictConfig, pretraining: DictConfig) -> DictConfig:
    """Return the config of a finetuning with `generic` of the pretraining, if its forgetting is measured there."""
    if finetuning.stage != "finetune" or not needs_generic(finetuning):
        return finetuning
    return merged(finetuning, {"generic": plain(pretraining, [key for key in GENERIC if key in pretraining])})


def plain(config: DictConfig, keys: list[str]) -> dict[str, Any]:
    """Return the values of these keys as plain containers, which an arm completes."""
    nodes = {key: config[key] for key in keys}
    return {key: resolved_for_arms(node) if isinstance(node, DictConfig) else node for key, node in nodes.items()}


def start_setting(config: DictConfig, arm: str, init: str | None) -> str:
    """Return the setting that selects the initial weights of an arm, as given by the user."""
    given = str(config.transfer.start)
    if config.transfer.get("starts") and arm in list(config.transfer.arms)[: len(config.transfer.starts)]:
        return f"transfer.starts: {init}"
    if given != "pretrained" and str(init).endswith((given, str(Path(given).resolve()))):
        return f"transfer.start={given} (arm {arm})"
    return f"arm.{arm}.init={init}"


def with_length(
    finetuning: DictConfig, arm: str, budget: str, config: DictConfig, sizes: Sizes, labels: Labels
) -> DictConfig:
    """Return the config of a finetuning with the training length of its arm, or else of the budget."""
    length = config.arm[arm].get("length")
    if length is None:
        return changed(finetuning, length_settings(finetuning, budget, config, sizes, labels))
    steps, interval = steps_and_interval(finetuning, sizes.labelled[labels])
    return changed(finetuning, step_limits(round(steps * length), interval))


def steps_and_interval(finetuning: DictConfig, rows: int) -> tuple[float, float]:
    """Return the number of steps of a finetuning on this many rows, and the batches between two validations."""
    count = batches(rows, finetuning.data.batch_size)
    trainer = with_min_steps(finetuning.trainer, count)
    steps = optimizer_steps(trainer, count)
    every = trainer.check_val_every_n_epoch
    if every is None and isinstance(trainer.val_check_interval, int):
        return steps, trainer.val_check_interval
    return steps, (every or 1) * limited(trainer, count)


def step_limits(max_steps: int, interval: float) -> dict[str, Any]:
    """Return the trainer settings for a number of steps, and for the batches between two validations."""
    return {
        "trainer.max_epochs": -1,
        "trainer.max_steps": max(1, max_steps),
        "trainer.check_val_every_n_epoch": None,
        "trainer.val_check_interval": max(1, round(interval)),
    }


def length_settings(
    finetuning: DictConfig, budget: str, config: DictConfig, sizes: Sizes, labels: Labels
) -> dict[str, Any]:
    """Return the settings for the training length of a finetuning under a budget; the number of validations is kept.

    `total` adds steps to an arm with random initial weights, over as many examples as the pretraining trained on.
    `converged` stops early on validation. An arm with random initial weights does not stop early, and trains for
    `converged.scratch` times the maximum of any other arm. All evaluate their best checkpoint.
    """
    if finetuning.stage == "baseline" or budget == "steps":
        return {}
    is_scratch = Init.parse(finetuning.init).is_scratch
    rows = sizes.labelled[labels]
    steps, interval = steps_and_interval(finetuning, rows)
    if budget == "total":
        per_step = rows / batches(rows, finetuning.data.batch_size) * finetuning.trainer.accumulate_grad_batches
        factor = 1 + (math.ceil(sizes.examples / per_step) / steps if is_scratch else 0)
        return {} if factor == 1 else step_limits(round(steps * factor), interval * factor)
    multiple = config.transfer.converged.scratch if is_scratch else 1
    max_steps = round(steps * config.transfer.converged.most * multiple)
    if max_steps == steps:
        return {}
    settings = step_limits(max_steps, interval * multiple)
    settings["trainer.min_steps"] = max_steps if is_scratch else None
    return {**settings, "patience": config.transfer.converged.patience}


def without_stale_budgets(config: DictConfig) -> DictConfig:
    """Empty the lists of transfer.budgets that name other arms than the planned ones, unless the user gave them."""
    stale = [
        f"transfer.budgets.{name}"
        for name, arms in config.transfer.budgets.items()
        if isinstance(arms, ListConfig) and not set(arms) <= set(config.transfer.arms)
    ]
    return changed(config, {key: [] for key in stale if not is_given(key)})


def subset_settings(labels: Labels) -> dict[str, Labels | None]:
    """Return the subset that an entry of transfer.labels selects: rows per class, a fraction below 1, or all rows.

    Raises:
        UserError: the entry is none of these.
    """
    if labels == "all":
        return {"per_class": None, "fraction": None}
    if (isinstance(labels, int) and labels > 0) or most_per_class(labels) is not None:
        return {"per_class": labels, "fraction": None}
    if isinstance(labels, float) and 0 < labels < 1:
        return {"per_class": None, "fraction": labels}
    raise UserError(
        f"transfer.labels={labels}: must be rows per class (1, 2, ... or '<=200'), a fraction (0.1), or all"
    )


def check_unlabelled(config: DictConfig, splits: Splits) -> None:
    """Check that arms whose strategy uses unlabelled rows have some at every label budget.

    Raises:
        UserError: an arm has none, or data.unlabelled is set and no arm uses them.
    """
    arms = [arm for arm in config.transfer.arms if arm_config(config, arm, "scratch", "all", 0).data.get("unlabelled")]
    if config.data.get("unlabelled") and not arms:
        raise UserError("data.unlabelled=true: no arm in transfer.arms uses unlabelled rows: add one, or remove it")
    if not arms or len(splits.unlabelled or ()):
        return
    for budget in config.transfer.labels:
        subset = labelled_subset(splits.train.y, splits.labels, 0, **subset_settings(budget))
        if len(subset) == len(splits.train):
            raise UserError(
                f"transfer.labels={budget} labels all {len(subset):,} training rows, so arm {arms[0]} has no "
                "unlabelled rows: remove it, or use smaller label counts"
            )


def check_strong(config: DictConfig) -> None:
    """Check that strong augmentations on the command line are used by an arm.

    Raises:
        UserError: no arm uses them.
    """
    given = given_strong()
    if given is None or not config.data.get("strong"):
        return
    arms = [arm_config(config, arm, "scratch", "all", 0) for arm in config.transfer.arms]
    if not any("strategy" in own and get_object(own.strategy._target_).uses_strong for own in arms):
        raise UserError(f"{given}: no arm in transfer.arms uses strong augmentations: add one, or remove it")


def training_rows(config: DictConfig, splits: Splits, budget: Labels) -> int:
    """Return the number of labelled rows that a finetuning with an entry of transfer.labels trains on."""
    rows = splits.train.take(labelled_subset(splits.train.y, splits.labels, 0, **subset_settings(budget)))
    if config.data.folds is None:
        return len(rows)
    folds = fold_of(rows, splits.labels, 0, config.data.folds, config.data.fold, by_cluster=splits.keeps_clusters)
    return len(folds[0])


PRETRAINED = "pretrained"  # in `init` of an arm and in transfer.start: the pretraining of this transfer


def with_start(config: DictConfig) -> DictConfig:
    """Replace `pretrained` and `shuffled` in every arm by the initial weights of transfer.start.

    With a Hugging Face model, `scratch` is the architecture of that model with random weights, in arms that set no
    backbone: the two arms then differ in their weights only.

    Raises:
        UserError: transfer.start is not `pretrained`, a folder or a Hugging Face model.
    """
    if config.transfer.start == PRETRAINED:
        return config
    start = Init.parse(str(config.transfer.start))
    is_hub = start.kind == "hub"
    if start != start.source or not (is_hub or start.is_folder):
        raise UserError(f"transfer.start={start}: no such folder; give {PRETRAINED}, a run folder, or {HUB}NAME_OR_DIR")
    if not is_hub:
        start = replace(start, path=str(Path(start.path).resolve()))
    arms = {}
    for name, arm in config.arm.items():
        inits = {PRETRAINED: str(start), "shuffled": str(replace(start, shuffled=True))}
        if is_hub and "backbone" not in arm:
            inits["scratch"] = str(replace(start, random=True))
        settings = {"init": inits.get(arm.init, arm.init)} if "init" in arm else {}
        if arm.get("preprocessor") == PRETRAINED:
            settings["preprocessor"] = None if is_hub else start.path
        arms[name] = changed(arm, settings)
    return changed(config, {"arm": arms})


def check_starts(config: DictConfig, arm: str, finetuning: DictConfig) -> None:
    """Check the initial weights and the preprocessor of an arm, unless the pretraining of this transfer makes them.

    Args:
        config: a composed transfer config.
        arm: its name.
        finetuning: its config.

    Raises:
        UserError: one is missing, damaged, of another backbone, or lacks a required head; the message names the
            setting.
    """
    init, preprocessor = finetuning.init, config.arm[arm].get("preprocessor")
    setting = start_setting(config, arm, init)
    try:
        start, _ = find_start(finetuning)
        if start is not None and finetuning.stage == "finetune":
            check_kept_head(finetuning, start)
        if preprocessor not in (None, PRETRAINED):
            setting = f"arm.{arm}.preprocessor={preprocessor}"
            given_preprocessor(merged(finetuning, {"init": "scratch", "preprocessor": preprocessor}), None)
        else:
            given_preprocessor(finetuning, start)
    except UserError as error:
        raise UserError(f"{setting}: {str(error).removeprefix(f'init={init}: ')}") from error
