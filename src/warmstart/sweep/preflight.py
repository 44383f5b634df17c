"""Checks jobs before the first one starts: their components are built, and one step of each kind is run."""

from __future__ import annotations

import tempfile
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from warmstart.config.rewrite import changed, merged
from warmstart.config.validate import explain
from warmstart.core import screen
from warmstart.core.errors import UserError, WriteError
from warmstart.core.protocols import monitored
from warmstart.report.shared_rows import sentences
from warmstart.run.files import as_write_error
from warmstart.run.folder import RunFolder
from warmstart.run.manifest import Job
from warmstart.sweep.job import Runner
from warmstart.sweep.plan import group_key

SEEDS = ("seed", "init")  # settings that no component depends on
# The step checks shapes. A learning rate of 0 avoids divergence, which only the job itself can detect.
ONE_STEP = {"logger": {}, "visualization": {}, "optimizer.lr": 0.0}


@dataclass
class Preflight:
    """The result of the checks.

    Args:
        metric: the metric that ranks configurations; None if the jobs have none in common.
        kinds: number of kinds of jobs.
        problem: why a job cannot run.
        unwritten: the error, if a file could not be written.
        shared: warnings about rows that two splits share.
    """

    metric: str | None = None
    mode: str = "max"
    kinds: int = 0
    problem: str | None = None
    unwritten: WriteError | None = None
    trace: str | None = None
    shared: list[str] = field(default_factory=list)


def check_jobs(jobs: Sequence[Job], conf: Path, one_step: bool, runner: Runner) -> Preflight:
    """Build the components of every job, check its start and teacher, and run a step of each kind; imports torch."""
    found = Preflight()
    training = [job for job in jobs if job.config["stage"] in ("pretrain", "finetune")]
    if not GlobalHydra.instance().is_initialized():
        initialize_config_dir(version_base="1.3", config_dir=str(conf))
    kinds: dict[str, Job] = {}
    for job in training:
        kinds.setdefault(group_key(job.config), job)
    found.kinds = len(kinds)
    job = training[0] if training else None
    try:
        for job in {group_key(job.config, SEEDS): job for job in training}.values():
            runner.check(merged(job.config))
        if training:
            metrics = {monitor(job.config) for job in kinds.values()}
            found.metric, found.mode = metrics.pop() if len(metrics) == 1 else (None, "max")
            starts = {(job.config.get("init"), job.config.get("teacher")): job for job in training if job.needs is None}
            for job in starts.values():
                runner.check_start(merged(job.config))
        checked_data: list[Any] = []
        for job in kinds.values() if one_step else ():
            is_checked = job.config["data"] in checked_data
            record = try_step(job, OmegaConf.load(conf / "debug" / "one_batch.yaml"), is_checked, runner)
            found.shared += [] if is_checked else sentences(record["data"]["overlap"])
            checked_data.append(job.config["data"])
    except (UserError, InstantiationException) as error:
        found.problem = f"{explain(error)} (job {job.name})"
    except Exception as error:
        found.unwritten = as_write_error(error, Path(tempfile.gettempdir()))
        found.problem = f"{type(error).__name__}: {error} (job {job.name})"
        found.trace = traceback.format_exc()
    return found


def monitor(config: dict[str, Any]) -> tuple[str, str]:
    """Return the validation metric that ranks runs of this config, and its mode (max or min)."""
    if config["stage"] == "pretrain":
        return "val/loss", "min"
    return monitored(get_object(config["objective"]["_target_"]), config["objective"])


def try_step(job: Job, one_batch: DictConfig, is_checked: bool, runner: Runner) -> dict[str, Any]:
    """Run the job with `debug=one_batch` in a temporary folder, and return its record.

    A job that needs another one uses init=scratch here. If `is_checked`, the splits are not searched for shared rows.
    """
    changes = {**ONE_STEP, **({"init": "scratch"} if job.needs else {})}
    trial = changed(merged(job.config, one_batch), changes)
    with tempfile.TemporaryDirectory() as folder, screen.quiet():
        run = RunFolder.create(trial, Path(folder), "preflight")
        run.note(**({"sweep": {"values": {}}} if is_checked else {}))
        runner.run(trial, run, ())
        return run.record
