"""Before the first job: every job's parts are bound, and one step of each kind of job is tried."""

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
from warmstart.report.shared_rows import sentences
from warmstart.run.files import as_write_error
from warmstart.run.folder import RunFolder
from warmstart.run.manifest import Job
from warmstart.sweep.plan import kind
from warmstart.sweep.runner import Runner

SEEDS = ("seed", "init")  # settings that no part is bound with
# A rate of 0, since it is the shapes that are tried: whether a rate diverges is for the job to find out.
ONE_STEP = {"logger": {}, "visualization": {}, "optimizer.lr": 0.0}


@dataclass
class Survey:
    """What was found out about jobs before they start.

    Args:
        metric: what ranks configurations; None where the jobs have no such thing in common.
        mode: whether more (max) or less (min) of it is better.
        kinds: how many kinds of job there are.
        problem: why some job cannot run.
        unwritten: the error, if a file could not be written.
        trace: where in the code, if that was not foreseen.
        shared: in words, rows that two parts of a data set share.
    """

    metric: str | None = None
    mode: str = "max"
    kinds: int = 0
    problem: str | None = None
    unwritten: WriteError | None = None
    trace: str | None = None
    shared: list[str] = field(default_factory=list)


def survey(jobs: Sequence[Job], conf: Path, one_step: bool, runner: Runner) -> Survey:
    """Bind the parts of every job, look for what it starts from, and try a step of each kind; imports torch."""
    found = Survey()
    stages = [job for job in jobs if job.config["stage"] in ("pretrain", "finetune")]
    if not GlobalHydra.instance().is_initialized():
        initialize_config_dir(version_base="1.3", config_dir=str(conf))
    kinds: dict[str, Job] = {}
    for job in stages:
        kinds.setdefault(kind(job.config), job)
    found.kinds = len(kinds)
    job = stages[0] if stages else None
    try:
        for job in {kind(job.config, SEEDS): job for job in stages}.values():
            runner.check(merged(job.config))
        if stages:
            metrics = {monitor(job.config) for job in kinds.values()}
            found.metric, found.mode = metrics.pop() if len(metrics) == 1 else (None, "max")
            starting = [job for job in stages if job.needs is None and job.config["stage"] == "finetune"]
            for job in {job.config.get("init"): job for job in starting}.values():
                runner.check_start(merged(job.config))
        searched: list[Any] = []
        for job in kinds.values() if one_step else ():
            known = job.config["data"] in searched
            record = try_step(job, OmegaConf.load(conf / "debug" / "one_batch.yaml"), known, runner)
            found.shared += [] if known else sentences(record["data"]["overlap"])
            searched.append(job.config["data"])
    except (UserError, InstantiationException) as error:
        found.problem = f"{explain(error)} (job {job.name})"
    except Exception as error:
        found.unwritten = as_write_error(error, Path(tempfile.gettempdir()))
        found.problem = f"{type(error).__name__}: {error} (job {job.name})"
        found.trace = traceback.format_exc()
    return found


def monitor(config: dict[str, Any]) -> tuple[str, str]:
    """The validation metric that ranks runs of this config, and which way."""
    if config["stage"] == "pretrain":
        return "val/loss", "min"
    return get_object(config["objective"]["_target_"]).monitor


def try_step(job: Job, one_batch: DictConfig, known: bool, runner: Runner) -> dict[str, Any]:
    """Run the job under `debug=one_batch`, in a folder that is thrown away, and return its record.

    A job that starts from another one, which has not run yet, starts from scratch here. Where the data is `known`, it
    is not searched for rows that its parts share.
    """
    changes = {**ONE_STEP, **({"init": "scratch"} if job.needs else {})}
    trial = changed(merged(job.config, one_batch), changes)
    with tempfile.TemporaryDirectory() as folder, screen.quiet():
        run = RunFolder.create(trial, Path(folder), "preflight")
        run.note(**({"sweep": {"values": {}}} if known else {}))
        runner.run(trial, run, ())
        return run.record
