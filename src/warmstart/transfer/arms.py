"""The runs of a transfer: every arm at every budget and label count, paired by seed, as frozen jobs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart.config.resolve import adopt
from warmstart.config.rewrite import changed, merged
from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.init import HUB, Init
from warmstart.data.loader import batches
from warmstart.data.splits import fold_of, labelled_subset
from warmstart.run.manifest import RUNS, Job
from warmstart.training.callbacks.snapshots import SNAPSHOTS
from warmstart.training.start import find_start, given_preprocessor

OWN_KEYS = ("pretrain", "transfer", "arm")
PRETRAINING = "pretrain"  # the name of the job that the finetunings need
BUDGETS = ("steps", "total", "converged")
BASELINE_KEYS = ("seed", "experiment", "output_dir", "trust", "data", "objective", "loss", "backbone")
Labels = int | float | str


@dataclass(frozen=True)
class Sizes:
    """What budgets are computed from.

    Args:
        labelled: training rows by entry of transfer.labels.
        examples: rows that one pretraining sees, each counted as often as it is seen.
    """

    labelled: Mapping[Labels, int]
    examples: int


def pretrainings(config: DictConfig) -> list[Job]:
    """One pretraining, or several that differ in their seed; none where no arm starts from it."""
    if not has_pretraining(config):
        return []
    whole = OmegaConf.to_container(config.pretrain, resolve=True)
    count = config.transfer.pretrain_seeds
    return [
        Job(pretraining_name(config, number), {}, {**whole, "seed": config.pretrain.seed + number})
        for number in range(count)
    ]


def has_pretraining(config: DictConfig) -> bool:
    """Whether some arm starts from the transfer's own pretraining."""
    return any(needs(config, arm, config.seed) for arm in config.transfer.arms)


def pretraining_name(config: DictConfig, index: int) -> str:
    """The pretraining that the finetunings with the index-th seed start from."""
    count = config.transfer.pretrain_seeds
    return PRETRAINING if count == 1 else f"{PRETRAINING}{index % count}"


def finetunings(
    config: DictConfig, folder: Path, sizes: Sizes, rates: Mapping[tuple[str, Labels], float] | None = None
) -> list[Job]:
    """Every finetuning whose score counts; one that two budgets share is run once.

    Args:
        config: a composed transfer config.
        folder: the transfer's folder.
        sizes: of the data and the pretraining.
        rates: learning rates by arm and labels, where they were tuned.
    """
    jobs: list[Job] = []
    seen: set[str] = set()
    for name, values, own in planned(config, folder, sizes):
        rate = (rates or {}).get((values["arm"].partition("@")[0], values["labels_per_class"]))
        if rate is not None:
            own = changed(own, {"optimizer.lr": rate})
        job = Job(name, values, OmegaConf.to_container(own, resolve=True), needs(config, values["arm"], values["seed"]))
        if job.sha256 not in seen:
            seen.add(job.sha256)
            jobs.append(job)
    return jobs


def planned(config: DictConfig, folder: Path, sizes: Sizes) -> Iterator[tuple[str, dict[str, Any], DictConfig]]:
    """Name, values and config of each finetuning; snapshots of the pretraining are finetuned at the fewest labels."""
    for labels, index in itertools.product(config.transfer.labels, range(config.transfer.seeds)):
        seed = config.seed + index
        base = folder / RUNS / pretraining_name(config, index)
        for budget in BUDGETS:
            for arm in config.transfer.arms:
                if arm not in config.transfer.budgets.get(budget, ()):
                    continue
                own = arm_config(config, arm, str(base), labels, seed)
                own = changed(own, extended(own, budget, config, sizes, labels))
                name = f"{arm}-{labels}-seed{seed}" if budget == "steps" else f"{arm}-{budget}-{labels}-seed{seed}"
                yield name, {"arm": arm, "budget": budget, "labels_per_class": labels, "seed": seed}, own
        is_along = "pretrained" in config.transfer.arms and needs(config, "pretrained", seed) is not None
        if is_along and labels == config.transfer.labels[0]:
            for number in range(1, config.pretrain.snapshots + 1):
                arm = f"pretrained@{number}"
                own = arm_config(config, "pretrained", str(base / SNAPSHOTS / str(number)), labels, seed)
                values = {"arm": arm, "budget": "steps", "labels_per_class": labels, "seed": seed}
                yield f"snapshot{number}-{labels}-seed{seed}", values, own


def needs(config: DictConfig, arm: str, seed: int) -> str | None:
    """The pretraining that a finetuning waits for."""
    own = config.arm.get(arm.partition("@")[0]) or {}
    is_waiting = own.get("init") in ("pretrained", "shuffled") or own.get("preprocessor") == "pretrained"
    return pretraining_name(config, seed - config.seed) if is_waiting else None


def arm_config(config: DictConfig, arm: str, pretrained: str, labels: Labels, seed: int) -> DictConfig:
    """The config of one arm: the shared finetuning settings, and what the arm says differently.

    Args:
        config: a composed transfer config.
        arm: one of `config.arm`.
        pretrained: what its `init: pretrained` and `init: shuffled` stand for.
        labels: an entry of transfer.labels.
        seed: the root seed, which all arms share.

    Raises:
        UserError: there is no such arm.
    """
    if arm not in config.arm:
        raise UserError(f"transfer.arms: there is no arm {arm}; there are: {', '.join(config.arm)}, and each strategy")
    shared = OmegaConf.to_container(config, resolve=True)
    own = OmegaConf.to_container(config.arm[arm], resolve=True)
    own.pop("against", None)
    if "baseline" in own:
        shared = {key: shared[key] for key in BASELINE_KEYS if key in shared}
        own["stage"] = "baseline"
    else:
        shared = {key: value for key, value in shared.items() if key not in OWN_KEYS}
        own["stage"] = "finetune"
        if not own.get("init"):
            raise UserError(
                f"arm.{arm} does not say where it starts: give arm.{arm}.init=pretrained, scratch or a path"
            )
        starts = {"pretrained": pretrained, "shuffled": str(replace(Init.parse(pretrained), shuffled=True))}
        own["init"] = starts.get(own["init"], own["init"])
        if own.get("preprocessor") == "pretrained":
            own["preprocessor"] = None if pretrained == "scratch" else pretrained
    for name, value in own.items():
        if isinstance(value, dict) and "_target_" in value:  # another part takes none of the shared one's settings
            shared.pop(name, None)
    budget = budget_of(labels)
    rows = {"labels_per_class": budget["per_class"], "label_fraction": budget["fraction"]}
    try:
        return adopt(merged(shared, own, {"seed": seed, "data": rows}))
    except UserError as error:
        init = own.get("init")
        raise UserError(f"{start_setting(config, arm, init)}: {str(error).removeprefix(f'init={init}: ')}") from error


def start_setting(config: DictConfig, arm: str, init: str | None) -> str:
    """What the user typed for the `init` of an arm."""
    given = str(config.transfer.start)
    if given != "pretrained" and str(init).endswith((given, str(Path(given).resolve()))):
        return f"transfer.start={given} (arm {arm})"
    return f"arm.{arm}.init={init}"


def extended(own: DictConfig, budget: str, config: DictConfig, sizes: Sizes, labels: Labels) -> dict[str, Any]:
    """The settings that give an arm's config the length that a budget means; validations stay as many as they are.

    `total` adds, for an arm that starts from random weights, the steps that see as many examples as the pretraining
    did. `converged` lets an arm run until validation stops improving, and one from random weights no less than
    `converged.scratch` times as long as any other.
    """
    if own.stage == "baseline" or budget == "steps":
        return {}
    is_cold = Init.parse(own.init).is_cold
    rows, batch = sizes.labelled[labels], own.data.batch_size
    per_epoch = batches(rows, batch)
    trainer = own.trainer
    limits = [trainer.max_epochs * per_epoch if trainer.max_epochs > 0 else math.inf]
    limits.append(trainer.max_steps if trainer.max_steps > 0 else math.inf)
    steps = min(limits)
    every = trainer.check_val_every_n_epoch
    interval = (every or 1) * per_epoch
    if every is None and isinstance(trainer.val_check_interval, int):
        interval = trainer.val_check_interval
    if budget == "total":
        times = 1 + (math.ceil(sizes.examples / (rows / per_epoch)) / steps if is_cold else 0)
    else:
        times = config.transfer.converged.most * (config.transfer.converged.scratch if is_cold else 1)
    if times == 1:
        return {}
    most, scale = round(steps * times), times
    settings = {"trainer.max_epochs": -1, "trainer.max_steps": most, "trainer.check_val_every_n_epoch": None}
    if budget == "converged":
        scale = config.transfer.converged.scratch if is_cold else 1
        settings["trainer.min_steps"] = most if is_cold else None
        settings["patience"] = config.transfer.converged.patience
    return {**settings, "trainer.val_check_interval": max(1, round(interval * scale))}


def budget_of(labels: Labels) -> dict[str, int | float | None]:
    """What an entry of transfer.labels means: a number of rows per class, a share below 1, or all.

    Raises:
        UserError: it is none of these.
    """
    if labels == "all":
        return {"per_class": None, "fraction": None}
    if isinstance(labels, int) and labels > 0:
        return {"per_class": labels, "fraction": None}
    if isinstance(labels, float) and 0 < labels < 1:
        return {"per_class": None, "fraction": labels}
    raise UserError(f"transfer.labels={labels}: give rows per class (1, 2, ...), a share (0.1), or all")


def training_rows(config: DictConfig, splits: Splits, budget: Labels) -> int:
    """How many labelled rows a finetuning with an entry of transfer.labels trains on."""
    rows = splits.train.take(labelled_subset(splits.train.y, splits.labels, 0, **budget_of(budget)))
    if config.data.folds is None:
        return len(rows)
    return len(fold_of(rows, splits.labels, 0, config.data.folds, config.data.fold)[0])


OWN = "pretrained"  # what an arm's `init`, and transfer.start, call the transfer's own pretraining


def with_start(config: DictConfig) -> DictConfig:
    """The config with what transfer.start names in the place of `pretrained` and `shuffled` in every arm.

    From a Hugging Face model, `scratch` is its architecture with random weights, in arms without a backbone of their
    own: else the two would differ in more than their weights.

    Raises:
        UserError: transfer.start is neither of these nor a folder.
    """
    if config.transfer.start == OWN:
        return config
    start = Init.parse(str(config.transfer.start))
    is_hub = start.kind == "hub"
    if start != start.source or not (is_hub or start.is_found):
        raise UserError(
            f"transfer.start={start}: there is no such folder; give {OWN}, a run folder, or {HUB}NAME_OR_DIR"
        )
    if not is_hub:
        start = replace(start, place=str(Path(start.place).resolve()))
    arms = {}
    for name, arm in config.arm.items():
        inits = {OWN: str(start), "shuffled": str(replace(start, shuffled=True))}
        if is_hub and "backbone" not in arm:
            inits["scratch"] = str(replace(start, random=True))
        settings = {"init": inits.get(arm.init, arm.init)} if "init" in arm else {}
        if arm.get("preprocessor") == OWN:
            settings["preprocessor"] = None if is_hub else start.place
        arms[name] = changed(arm, settings)
    return changed(config, {"arm": arms})


def check_starts(config: DictConfig, arm: str, own: DictConfig) -> None:
    """Open what an arm starts from, and its preprocessor, where these are not of the transfer's own pretraining.

    Args:
        config: a composed transfer config.
        arm: its name.
        own: its config, in which `init` stands for what the transfer pretrains.

    Raises:
        UserError: one is missing, damaged or not of this backbone; names the setting.
    """
    init, preprocessor = own.init, config.arm[arm].get("preprocessor")
    setting = start_setting(config, arm, init)
    try:
        start, _ = find_start(own)
        if preprocessor not in (None, OWN):
            setting = f"arm.{arm}.preprocessor={preprocessor}"
            given_preprocessor(merged(own, {"init": "scratch", "preprocessor": preprocessor}), None)
        else:
            given_preprocessor(own, start)
    except UserError as error:
        raise UserError(f"{setting}: {str(error).removeprefix(f'init={init}: ')}") from error
