"""Reads the runs of a transfer from its plan and run folders."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from warmstart.core.errors import UserError
from warmstart.core.labels import Labels, labels_name
from warmstart.core.reading import load_config
from warmstart.report.clusters import Clusters, find_clusters
from warmstart.report.curves import read_metrics
from warmstart.report.leaderboard import to_csv
from warmstart.run.folder import CLUSTERS, RunFolder
from warmstart.run.identity import config_sha256
from warmstart.run.manifest import Job, Manifest, check_runs
from warmstart.run.scores import read_clusters, read_scores

MIN_RUNS = 2
COLUMNS = ("arm", "budget", "labels", "seed", "status", "val", "test", "steps", "seconds", "examples", "run")


@dataclass(frozen=True)
class Run:
    """A planned finetuning.

    Args:
        budget: steps, total or converged.
        labels: entry of transfer.labels.
        seed: root seed, which pairs it with runs of other arms.
        state: planned, running, done, failed or interrupted.
        record: its run.json; empty if there is none yet.
        val: validation metric of the best checkpoint.
        test: the same metric on the test split; None unless the run is done.
    """

    name: str
    arm: str
    budget: str
    labels: Labels
    seed: int
    state: str
    record: dict[str, Any] = field(repr=False)
    val: float | None
    test: float | None

    @property
    def cost(self) -> dict[str, Any]:
        """Return the recorded seconds, steps and examples."""
        return self.record.get("cost") or {}

    @property
    def rows(self) -> int:
        """Return the number of training rows."""
        return self.record["data"]["rows"]["train"]


@dataclass(frozen=True)
class Transfer:
    """Settings, pretrainings and finetunings of a transfer.

    Args:
        config: its resolved config, as plain containers.
        record: its run.json.
        bases: records of its pretrainings.
        runs: its finetunings, in the order of the plan.
        curves: cache of `curve`.
        folds: the transfers of a pool (`read_pool`), each with other test clusters.
    """

    manifest: Manifest
    config: dict[str, Any]
    record: dict[str, Any]
    bases: list[dict[str, Any]]
    runs: list[Run]
    curves: dict[str, pd.DataFrame] = field(default_factory=dict, repr=False, compare=False)
    folds: tuple[Transfer, ...] = ()

    @property
    def rules(self) -> dict[str, Any]:
        """Return the settings of the transfer, fixed before the first run."""
        return self.config["transfer"]

    @property
    def metric(self) -> str:
        return self.manifest.metric.replace("val/", "test/")

    @property
    def sign(self) -> int:
        """Return 1 if a higher metric is better, else -1."""
        return 1 if self.manifest.mode == "max" else -1

    @property
    def arms(self) -> list[str]:
        """Return the arms in the order of the config, without snapshots of the pretraining and excluded starts."""
        return [arm for arm in self.rules["arms"] if arm not in (self.starts or {}).get("excluded", ())]

    @property
    def starts(self) -> dict[str, Any] | None:
        """Return the screen of transfer.starts and the selection among them; None if the arms are given."""
        return self.record.get("starts")

    @property
    def labels(self) -> list[Labels]:
        return list(self.rules["labels"])

    @property
    def budgets(self) -> list[str]:
        """Return the budgets with arms; the first is that of the headline."""
        return [name for name in self.rules["budgets"] if set(self.rules["budgets"][name]) & set(self.arms)]

    def rows(self, labels: Labels) -> int:
        """Return the number of training rows at a label count; 0 if no run with it is done."""
        return next((run.rows for run in self.runs if run.labels == labels and run.state == "done"), 0)

    def group(self, arm: str, budget: str, labels: Labels) -> list[Run]:
        """Return the runs of an arm, budget and label count by seed; those of `steps` if the budget does not differ."""
        found = [run for run in self.runs if (run.arm, run.budget, run.labels) == (arm, budget, labels)]
        if not found and budget != "steps" and arm in self.rules["budgets"].get(budget, ()):
            return self.group(arm, "steps", labels)
        return sorted(found, key=lambda run: run.seed)

    def done(self) -> dict[str, list[Run]]:
        """Return the finished finetunings by <arm>-<budget>-<labels>, as folder names."""
        groups: dict[str, list[Run]] = {}
        for run in filter(lambda run: run.state == "done", self.runs):
            name = re.sub(r"[^\w.@-]", "_", f"{run.arm}-{run.budget}-{labels_name(run.labels)}")
            groups.setdefault(name, []).append(run)
        return groups

    def scores(self, run: Run) -> np.ndarray | None:
        """Return the scores (N,) of a run on the test split; higher is better.

        Raises:
            UserError: the file is damaged, or the transfer has another number of clusters.
        """
        if self.folds:
            found = [fold.scores(run) for fold in self.folds]
            return None if any(scores is None for scores in found) else np.concatenate(found)
        scores = read_scores(self.manifest.path(run.name))
        if scores is not None and self.clusters is not None and len(scores) != len(self.clusters):
            raise UserError(
                f"{self.manifest.folder / CLUSTERS} is damaged: it has {len(self.clusters):,} clusters of test rows, "
                f"but {run.name} has {len(scores):,} scores"
            )
        return None if scores is None else self.sign * scores

    @cached_property
    def test_rows(self) -> int | None:
        """The number of rows of the test split; None if no run recorded it."""
        done = next((run for run in self.runs if run.state == "done"), None)
        scores = None if done is None else self.scores(done)
        if scores is not None:
            return len(scores)
        return None if done is None else done.record["data"]["rows"].get("test")

    @cached_property
    def clusters(self) -> np.ndarray | None:
        """The cluster of each test example (N,), such as its speaker; None if the examples are independent."""
        if self.folds:
            return np.concatenate([fold.clusters for fold in self.folds])
        return read_clusters(self.manifest.folder)

    @cached_property
    def test_clusters(self) -> Clusters | None:
        """The distinct clusters of the test examples; None if the examples are independent."""
        done = next((run for run in self.runs if run.state == "done"), None)
        has_scores = done is None or self.scores(done) is not None
        return find_clusters(self.clusters, (self.config.get("data") or {}).get("cluster"), has_scores)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value of the metric, possibly infinite."""
        low, high = self.record.get("bounds") or (None, None)
        return -math.inf if low is None else low, math.inf if high is None else high

    def unit(self, run: Run) -> int:
        """Return the index of the independent unit: the seed, or the pretraining if there are several."""
        number = run.seed - self.config["seed"]
        return number if self.rules["pretrain_seeds"] == 1 else number % self.rules["pretrain_seeds"]

    def curve(self, run: Run) -> pd.DataFrame:
        """Return val/* and train/loss of a run by step, in a pool their means at the steps of all folds, cached."""
        if run.name not in self.curves:
            if self.folds:
                values = pd.concat([fold.curve(run) for fold in self.folds]).groupby(["name", "step"])["value"]
                curve = values.mean()[values.size() == len(self.folds)].reset_index()
            else:
                curve = read_metrics(self.manifest.path(run.name) / "metrics.csv")
            self.curves[run.name] = curve
        return self.curves[run.name]

    def series(self, run: Run, name: str) -> pd.Series:
        """Return the values of one metric by step."""
        curve = self.curve(run)
        return curve[curve["name"] == name].set_index("step")["value"].sort_index()


def read_transfer(folder: Path) -> Transfer:
    """Read and verify a transfer.

    Raises:
        UserError: the folder is no transfer or was changed, fewer than two runs are done, or the runs differ in data or
            metric.
    """
    manifest = Manifest.read(folder)
    jobs = [job for job in manifest.jobs if "arm" in job.values]
    if manifest.stage != "transfer":
        raise UserError(f"{folder} is not the folder of a transfer")
    if any("budget" not in job.values for job in jobs):
        raise UserError(f"{folder} was planned by an older version of warmstart: run the transfer again")
    check_runs(manifest)
    run = RunFolder.open(folder)
    run.checked(CLUSTERS)
    record = run.record
    bases = [manifest.record(job.name) for job in manifest.jobs if not job.values]
    runs = [read_run(manifest, job) for job in jobs]
    check_comparable(manifest, runs)
    return Transfer(manifest, read_config(folder, record), record, [base for base in bases if base], runs)


def read_config(folder: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Read the config of a transfer, which contains the rules of its verdicts.

    Raises:
        UserError: the config is missing, damaged, or was changed.
    """
    path = folder / "config.yaml"
    RunFolder.open(folder).checked(path.name)
    try:
        config = OmegaConf.to_container(load_config(path))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    except Exception as error:
        raise UserError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if config_sha256(config) != record.get("config_sha256"):
        raise UserError(
            f"{path} was changed after the start of the transfer, with the rules of its verdicts: restore it"
        )
    return config


def read_run(manifest: Manifest, job: Job) -> Run:
    """Read a finetuning in any state."""
    record = manifest.record(job.name) or {}
    state = manifest.state(job.name)
    metrics = record.get("metrics") or {}
    metric = manifest.metric.replace("val/", "test/")
    test = metrics.get(metric)
    if state == "done" and test is None:
        raise UserError(f"{manifest.path(job.name)} has no {metric}: its metric differs from that of the other runs")
    return Run(
        job.name,
        job.values["arm"],
        job.values["budget"],
        job.values["labels_per_class"],
        job.values["seed"],
        state,
        record,
        metrics.get(manifest.metric),
        test if state == "done" and math.isfinite(test) else None,
    )


def check_comparable(manifest: Manifest, runs: Sequence[Run]) -> None:
    """Check that at least two runs are done, all on the same data.

    Raises:
        UserError: fewer are done, or the data differs.
    """
    done = [run for run in runs if run.state == "done"]
    if len(done) < MIN_RUNS:
        failed = next((run for run in runs if run.state == "failed"), None)
        reason = f"resume with stage=transfer resume={manifest.folder}"
        if failed is not None:
            reason = f"{failed.name} failed: {failed.record.get('error')}"
        count = "no finetuning run is" if not done else "one finetuning run is"
        raise UserError(f"{manifest.folder}: {count} done, but a comparison needs two; {reason}")
    for run in done:
        if run.record["data"]["fingerprint"] != done[0].record["data"]["fingerprint"]:
            raise UserError(
                f"{manifest.folder}: {run.name} and {done[0].name} were trained on different data (fingerprints "
                "differ) and cannot be compared"
            )


def are_timed_alike(records: Sequence[dict[str, Any]]) -> bool:
    """Return whether the times per step of runs can be compared.

    All must be timed after warm-up, which the runs of a vmap group are not, with the same number of threads, on the
    same kind of machine.
    """
    if any((record.get("cost") or {}).get("together", 1) > 1 for record in records):
        return False
    conditions = {(record.get("threads"), (record.get("environment") or {}).get("platform")) for record in records}
    return len(conditions) == 1 and all((record.get("cost") or {}).get("step_seconds") for record in records)


def runs_csv(transfer: Transfer) -> str:
    """Return one row per finetuning as CSV, with COLUMNS, escaped as in `to_csv`."""
    rows = (
        {
            "arm": run.arm,
            "budget": run.budget,
            "labels": run.labels,
            "seed": run.seed,
            "status": run.state,
            "val": run.val,
            "test": run.test,
            **{unit: run.cost.get(unit) for unit in ("steps", "seconds", "examples")},
            "run": None if transfer.folds else f"runs/{run.name}",
        }
        for run in transfer.runs
    )
    return to_csv(COLUMNS, rows)
