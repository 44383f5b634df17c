"""Trains small jobs that differ in numeric settings only as one vmap group, with a complete run folder per job."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Sequence

import torch
from omegaconf import DictConfig, OmegaConf

from warmstart.core import screen
from warmstart.core.batch import Batch
from warmstart.core.errors import CannotBatch, GroupFailed, UserError
from warmstart.data.storage.ragged import PaddedRows
from warmstart.run.folder import RunFolder
from warmstart.run.saved import save_model
from warmstart.run.scores import save_scores
from warmstart.training import components
from warmstart.training.assemble import assemble, extract_adapters
from warmstart.training.logger import RunLogger
from warmstart.training.memory import peak_memory_mb, reset_peak_memory
from warmstart.training.record import conclude, examples, note_data
from warmstart.training.signals import StopBetweenBatches
from warmstart.training.start import check_parent
from warmstart.training.trainer import build_trainer
from warmstart.training.visualization.features import ROWS, linear_cka, pooled_features
from warmstart.vmap.eligibility import check_config, check_model, check_stack
from warmstart.vmap.loop import Job, VmapLoop
from warmstart.vmap.stack import lr_and_weight_decay


def run(configs: Sequence[DictConfig], runs: Sequence[RunFolder]) -> None:
    """Finetune or pretrain all `configs` at once; each run ends with status done or failed.

    A failed job does not stop the others, and its error is recorded, not raised. No checkpoints are written: a killed
    group restarts from step 0. `cost.seconds` is the group's wall time divided by its number of jobs (`cost.together`),
    `cost.peak_memory_mb` the peak of the group.

    Args:
        configs: composed configs of one stage that differ in the settings of `sweep.plan.NUMERIC_SETTINGS` only.
        runs: their open run folders.

    Raises:
        CannotBatch: the jobs must be run one by one; nothing was written.
        GroupFailed: an error such as too little memory stopped all jobs; the unfinished ones are interrupted.
        KeyboardInterrupt: a signal came; unfinished jobs are recorded as interrupted.
    """
    check_config(configs[0])
    try:
        device = build_trainer(configs[0].trainer, runs[0].path, None, []).strategy.root_device
        signals = StopBetweenBatches()
        built = build_jobs(configs, runs, device)
        loops = [VmapLoop(jobs, device, signals) for jobs in group_jobs(built)]
    except UserError as error:
        raise CannotBatch(str(error)) from error
    for loop in loops:
        check(loop)
    with signals.listening():
        failures = [failure for loop in loops if (failure := train_group(loop)) is not None]
    signals.check()
    if failures:
        raise GroupFailed(f"{type(failures[0]).__name__}: {failures[0]}") from failures[0]


def build_jobs(configs: Sequence[DictConfig], runs: Sequence[RunFolder], device: torch.device) -> list[Job]:
    """Build every job; the data is read once, and encoded once per preprocessor.

    Raises:
        CannotBatch: the first job cannot be part of a vmap group.
        UserError: a job cannot be built, or has started from other weights before.
    """
    splits = components.build_source(configs[0]).load(components.get_object(configs[0].objective._target_).target)
    jobs: list[Job] = []
    for config, run in zip(configs, runs):
        job = Job(config, run, *assemble(config, splits, jobs[0].data if jobs else None))
        check_parent(run, job.lineage["parent"])
        jobs.append(job)
        if len(jobs) == 1:
            check_model(config, jobs[0].module, first_rows(jobs[0]), device)
    return jobs


def first_rows(job: Job) -> Batch:
    """Return a raw batch of training rows for trial steps.

    Raises:
        CannotBatch: the rows have variable lengths.
    """
    if isinstance(job.data.parts["train"][0], PaddedRows):
        raise CannotBatch("variable-length sequences are padded per batch")
    return Batch(*(part if part is None else part[: job.data.batch_size] for part in job.data.parts["train"]))


def group_jobs(jobs: Sequence[Job]) -> list[list[Job]]:
    """Group jobs with the same loss and preprocessor, sorted by learning rate and weight decay."""

    def key(job: Job) -> str:
        loss = job.config.get("loss")
        return json.dumps([OmegaConf.to_container(loss) if loss else None, job.data.preprocessor.state()])

    ordered = sorted(jobs, key=lambda job: (key(job), *lr_and_weight_decay(job.module.optimizer)))
    return [list(group) for _, group in itertools.groupby(ordered, key)]


def check(loop: VmapLoop) -> None:
    """Check that the jobs of a group have the same number of rows and the same kind of steps.

    Raises:
        CannotBatch: they do not.
    """
    if len({job.data.rows["train"] for job in loop.jobs}) > 1:
        raise CannotBatch("the jobs have different numbers of training rows")
    interval, epochs = loop.settings.val_check_interval or 1, loop.settings.check_val_every_n_epoch
    if epochs is not None and interval > loop.per_epoch:
        raise CannotBatch(f"trainer.val_check_interval={interval} is more than the {loop.per_epoch} steps of an epoch")
    job = loop.jobs[0]
    check_stack(job.config, job.module, loop.stack, first_rows(job), loop.device)


def train_group(loop: VmapLoop) -> Exception | None:
    """Train a group and close its records; if stopping was requested before, only close them.

    Returns:
        The error that stopped the complete group, unless it was a signal; the unfinished jobs are then interrupted.
    """
    reset_peak_memory()
    started, failure = time.monotonic(), None
    try:
        loop.signals.check()
        for job in loop.jobs:
            start_job(job)
        loop.run()
    except BaseException as error:
        failure = error
        loop.signals.received |= not isinstance(error, Exception)
    seconds = (time.monotonic() - started) / len(loop.jobs)
    failed = failure if isinstance(failure, Exception) else None
    for job in loop.jobs:
        if failed is not None and job.error is None:
            if job.logger is not None:
                job.logger.close()
            job.run.update(status="interrupted", error=f"{type(failed).__name__}: {failed}")
            continue
        job.error = job.error or failure
        with contextlib.suppress(BaseException), job.run.recording():
            end_job(job, loop, seconds)
    return failed


def start_job(job: Job) -> None:
    """Record data, lineage and config before the first step."""
    note_data(job.run, job.config, job.data)
    job.run.update(status="running", error=None, **job.lineage)
    if job.run.record["transfer"] is not None:
        job.initial_features = pooled_features(job.module, job.data.sample("validation", ROWS))
    job.logger = RunLogger(job.run.path, job.config.logger)
    job.logger.log_text("config", (job.run.path / "config.yaml").read_text())


def end_job(job: Job, loop: VmapLoop, seconds: float) -> None:
    """Save the best weights, metrics and cost of a job; raise its error if it failed."""
    steps = loop.step if job.steps is None else job.steps
    screen.log.info("trained in a vmap group of %d jobs", len(loop.jobs))
    try:
        if job.error is not None:
            raise job.error
        save_scores(job.run, job.scores)
        if job.initial_features is not None:
            after = pooled_features(job.module, job.data.sample("validation", ROWS))
            job.run.note(cka=linear_cka(job.initial_features, after))
        model = (job.module.backbone, job.module.objective, job.data.spec, job.data.preprocessor)
        if job.config.stage == "finetune":
            extract_adapters(job.run, job.module)
        save_model(job.run, job.config, *model, plain=job.config.stage == "pretrain")
        metrics = {**job.last, **job.best, **job.test}
        conclude(job.run, job.config, loop.settings, job.logger, metrics, job.last, job.best, steps)
    finally:
        cost = {
            "seconds": seconds,
            "steps": steps,
            "examples": examples(steps, loop.per_epoch, job.data),
            "peak_memory_mb": peak_memory_mb(),
            "together": len(loop.jobs),
        }
        job.run.note(cost={**(job.run.record["cost"] or {}), **cost})
        if job.logger is not None:
            job.logger.close()
