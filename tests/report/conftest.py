"""Transfers with known truth, created as run folders without training."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from tests.records import change_run, write_run

from warmstart.core.labels import labels_name, most_per_class
from warmstart.run.identity import config_sha256
from warmstart.run.manifest import Job, Manifest
from warmstart.run.scores import SCORES

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=2000",
    "--dump-dom",
]
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium")
ARM = {
    "pretrained": {"init": "pretrained", "against": "scratch"},
    "scratch": {"init": "scratch"},
    "probe": {"init": "pretrained", "against": "random_probe"},
    "random_probe": {"init": "scratch"},
    "shuffled": {"init": "shuffled", "against": "scratch"},
    "trivial": {"baseline": {"_target_": "warmstart.baseline.majority.Majority"}},
    "linear": {"baseline": {"_target_": "warmstart.baseline.linear.Linear"}},
}
RULES = {
    "pretrain_seeds": 1,
    "converged": {"patience": 10, "most": 2, "scratch": 3},
    "tune": 0,
    "margin": 0.01,
    "require": None,
}


def made_transfer(
    folder: Path,
    scores: Mapping[tuple[str, str, int | str], np.ndarray],
    metric: str = "val/accuracy",
    mode: str = "max",
    rules: dict | None = None,
    curves: Mapping[str, list[float]] | None = None,
    snapshots: list[dict] | None = None,
) -> Path:
    """A finished transfer.

    Args:
        folder: to be made.
        scores: by arm, budget and labels: per seed and test example (S, N).
        metric: the validation metric.
        mode: max or min.
        rules: changes to `transfer` in its config.
        curves: validation metric at steps 10, 20, ... by arm.
        snapshots: those of the pretraining.
    """
    arms = list(dict.fromkeys(arm for arm, *_ in scores if "@" not in arm))
    budgets = list(dict.fromkeys(budget for _, budget, _ in scores))
    own = {
        **RULES,
        "arms": arms,
        "labels": list(dict.fromkeys(labels for *_, labels in scores)),
        "seeds": len(next(iter(scores.values()))),
        "budgets": {
            budget: [arm for arm in arms if any(key[:2] == (arm, budget) for key in scores)] for budget in budgets
        },
        **(rules or {}),
    }
    config = {"stage": "transfer", "experiment": "digits", "seed": 0, "arm": ARM, "transfer": own}
    jobs, records = [], {}
    bases = ["pretrain"] if own["pretrain_seeds"] == 1 else [f"pretrain{n}" for n in range(own["pretrain_seeds"])]
    for number, name in enumerate(bases):
        jobs.append(Job(name, {}, {"stage": "pretrain", "seed": number}))
        cost = {"seconds": 5.0, "steps": 100, "examples": 6400, "step_seconds": 0.05}
        records[name] = {"weights_sha256": f"{number:064x}", "cost": cost, "snapshots": snapshots or []}
    for (arm, budget, labels), values in scores.items():
        for seed, row in enumerate(values):
            name = f"{arm.replace('@', '')}-{budget}-{labels_name(labels)}-seed{seed}"
            per_class = 50 if labels == "all" else most_per_class(labels) or labels
            job = {"arm": arm, "budget": budget, "labels_per_class": labels, "seed": seed}
            jobs.append(Job(name, job, {"stage": "finetune", "seed": seed, "arm": arm, "optimizer": {"lr": 0.001}}))
            score = float(np.mean(row))
            records[name] = {
                "metrics": {metric: score, metric.replace("val/", "test/"): score},
                "cost": {"seconds": 1.0, "steps": 100, "examples": 1000, "step_seconds": 0.01},
                "data": {
                    "name": "digits",
                    "fingerprint": "f",
                    "rows": {"train": 10 * per_class},
                },
                "cka": 0.9,
                "transfer": {"fraction": 1.0} if ARM.get(arm, {}).get("init") == "pretrained" else None,
            }
    manifest = Manifest(folder, "transfer", "digits", ["stage=transfer"], metric, mode, {"commit": None}, jobs)
    manifest.write()
    digest = config_sha256(config)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(config)))
    overlap = {"exact": [], "near": [], "test_rows": 100, "generic": "digits", "comparable": True}
    record = {"id": "t", "stage": "transfer", "status": "done", "config_sha256": digest, "overlap": overlap}
    write_run(folder, record)
    for job in jobs:
        path = manifest.path(job.name)
        path.mkdir()
        record = {"id": job.name, "stage": job.config["stage"], "status": "done", "error": None, **records[job.name]}
        if job.values:
            row = scores[job.values["arm"], job.values["budget"], job.values["labels_per_class"]][job.values["seed"]]
            np.save(path / SCORES, np.asarray(row, dtype=np.float32))
            points = (curves or {}).get(job.values["arm"], [0.5, record["metrics"][metric]])
            lines = [f"{10 * (index + 1) - 1},{metric},{value}" for index, value in enumerate(points)]
            (path / "metrics.csv").write_text(
                "\n".join(["step,name,value", *lines, "99,val/loss,0.7", "99,train/loss,0.2", ""])
            )
        write_run(path, record)
    return folder


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """`made_transfer` in a folder of its own."""
    numbers = itertools.count()
    return lambda scores, **more: made_transfer(tmp_path / f"transfer{next(numbers)}", scores, **more)


@pytest.fixture
def rewrite() -> Callable[..., None]:
    """Changes fields of a run's record."""

    def call(folder: Path, name: str, **fields) -> None:
        change_run(folder / "runs" / name, **fields)

    return call
