"""Equal tuning: every arm gets the same learning-rate trials, chosen by validation; the test split stays unread."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from warmstart.config.rewrite import changed
from warmstart.core.errors import UserError
from warmstart.run.manifest import RUNS, Job, Manifest
from warmstart.transfer.arms import Labels, arm_config, needs, pretraining_name

SEEDS = 2  # runs per trial
APART = 1000  # between the seeds of trials and those of the runs that count
SPAN = 10.0  # the highest rate over the one of the config, and that over the lowest


def trial_rates(rate: float, count: int) -> list[float]:
    """`count` learning rates, even on a logarithmic scale, around the one of the config."""
    powers = np.linspace(-1, 1, count) if count > 1 else [0.0]
    return [float(f"{rate * SPAN**power:.3g}") for power in powers]


def trials(config: DictConfig, folder: Path) -> Iterator[Job]:
    """The runs that choose learning rates: as long as those of the budget `steps`, without a look at the test split.

    Args:
        config: a composed transfer config.
        folder: the transfer's folder.
    """
    base = str(folder / RUNS / pretraining_name(config, 0))
    for labels, arm, run in itertools.product(config.transfer.labels, config.transfer.arms, range(SEEDS)):
        if "baseline" in config.arm[arm]:
            continue
        for number, rate in enumerate(trial_rates(config.optimizer.lr, config.transfer.tune)):
            own = arm_config(config, arm, base, labels, config.seed + APART + run)
            own = changed(own, {"optimizer.lr": rate, "test": False})
            values = {"tunes": arm, "labels_per_class": labels, "optimizer.lr": rate, "seed": own.seed}
            needed = needs(config, arm, config.seed)
            whole = OmegaConf.to_container(own, resolve=True)
            yield Job(f"tune-{arm}-{labels}-rate{number}-seed{own.seed}", values, whole, needed)


def choose(manifest: Manifest) -> dict[tuple[str, Labels], float]:
    """The learning rate with the best mean validation score, by arm and labels; one with a failed run is not chosen.

    Raises:
        UserError: of an arm's trials none is done.
    """
    scores: dict[tuple[str, Labels], dict[float, list[float | None]]] = {}
    for job in manifest.jobs:
        if "tunes" in job.values:
            key = job.values["tunes"], job.values["labels_per_class"]
            record = manifest.record(job.name) or {}
            score = record["metrics"].get(manifest.metric) if record.get("status") == "done" else None
            scores.setdefault(key, {}).setdefault(job.values["optimizer.lr"], []).append(score)
    best = max if manifest.mode == "max" else min
    chosen = {}
    for key, by_rate in scores.items():
        means = {rate: statistics.fmean(found) for rate, found in by_rate.items() if None not in found}
        if not means:
            raise UserError(f"{manifest.folder}: no tuning run of {key[0]} at {key[1]} labels is done")
        chosen[key] = best(means, key=means.__getitem__)
    return chosen
