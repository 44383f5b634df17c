"""Learning rate search with the same trials for every arm, selected on validation data; the test split is not used."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from warmstart.config.rewrite import changed
from warmstart.core.errors import UserError
from warmstart.core.labels import Labels, labels_name
from warmstart.run.manifest import RUNS, Job, Manifest
from warmstart.transfer.arms import Sizes, arm_config, pretraining_name, pretraining_of, with_length

Rates = dict[tuple[str, Labels], float]  # learning rates by arm and labels
SEEDS = 2  # runs per trial
SEED_OFFSET = 1000  # of the trials, whose seeds then differ from those of the final runs
RATE_FACTOR = 10.0  # rates range from optimizer.lr / RATE_FACTOR to optimizer.lr * RATE_FACTOR


def trial_rates(rate: float, count: int) -> list[float]:
    """Return `count` learning rates, evenly spaced on a logarithmic scale around `rate`."""
    powers = np.linspace(-1, 1, count) if count > 1 else [0.0]
    return [float(f"{rate * RATE_FACTOR**power:.3g}") for power in powers]


def rate_count(config: DictConfig, arm: str) -> int:
    """Return the number of learning rates to try for an arm: its own `tune`, or transfer.tune."""
    node = config.arm[arm]
    return 0 if "baseline" in node else node.get("tune", config.transfer.tune)


def is_tuned(config: DictConfig) -> bool:
    """Return whether the learning rate of an arm is selected."""
    return any(rate_count(config, arm) for arm in config.transfer.arms)


def trials(config: DictConfig, folder: Path, sizes: Sizes) -> Iterator[Job]:
    """Yield the jobs of the learning rate search, as long as those of the budget `steps`; they run no tests.

    Args:
        config: a composed transfer config.
        folder: the transfer's folder.
        sizes: numbers of labelled and pretraining examples.
    """
    base = str(folder / RUNS / pretraining_name(config, 0))
    for labels, arm, run in itertools.product(config.transfer.labels, config.transfer.arms, range(SEEDS)):
        is_planned = any(arm in (arms or ()) for arms in config.transfer.budgets.values())
        if not is_planned or not (count := rate_count(config, arm)):
            continue
        own = arm_config(config, arm, base, labels, config.seed + SEED_OFFSET + run)
        own = with_length(own, arm, "steps", config, sizes, labels)
        for number, rate in enumerate(trial_rates(own.optimizer.lr, count)):
            trial = changed(own, {"optimizer.lr": rate, "test": False})
            values = {"tunes": arm, "labels_per_class": labels, "optimizer.lr": rate, "seed": trial.seed}
            needed = pretraining_of(config, arm, config.seed)
            resolved = OmegaConf.to_container(trial, resolve=True)
            yield Job(f"tune-{arm}-{labels_name(labels)}-rate{number}-seed{trial.seed}", values, resolved, needed)


def planned_rates(manifest: Manifest) -> Rates:
    """Return the learning rates of the finetunings in the plan."""
    jobs = [job for job in manifest.jobs if "arm" in job.values and "optimizer" in job.config]
    return {(job.values["arm"], job.values["labels_per_class"]): job.config["optimizer"]["lr"] for job in jobs}


def choose(manifest: Manifest) -> Rates:
    """Return the learning rate with the best mean validation score, by arm and labels.

    Rates with a failed run are ignored.

    Raises:
        UserError: no trial of an arm is done.
    """
    scores: dict[tuple[str, Labels], dict[float, list[float | None]]] = {}
    for job in manifest.jobs:
        if "tunes" in job.values:
            key = job.values["tunes"], job.values["labels_per_class"]
            record = manifest.record(job.name) or {}
            score = record["metrics"].get(manifest.metric) if record.get("status") == "done" else None
            scores.setdefault(key, {}).setdefault(job.values["optimizer.lr"], []).append(score)
    best = max if manifest.mode == "max" else min
    selected = {}
    for key, by_rate in scores.items():
        means = {rate: statistics.fmean(found) for rate, found in by_rate.items() if None not in found}
        if not means:
            raise UserError(f"{manifest.folder}: no tuning run of {key[0]} at {key[1]} labels is done")
        selected[key] = best(means, key=means.__getitem__)
    return selected
