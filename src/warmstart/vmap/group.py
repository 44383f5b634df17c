"""Small jobs that differ in numbers only, trained at once; each has the run folder that it would have alone."""

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
from warmstart.training.adapter_delta import extract_adapters
from warmstart.training.assemble import assemble
from warmstart.training.hparams import conclude
from warmstart.training.logger import RunLogger
from warmstart.training.memory import forget_peak_memory, peak_memory_mb
from warmstart.training.record import examples, note_data
from warmstart.training.trainer import StopBetweenBatches, build_trainer
from warmstart.training.visualization.features import ROWS, linear_cka, pooled_features
from warmstart.vmap.eligibility import check_config, check_model, check_stack
from warmstart.vmap.loop import Job, VmapLoop
from warmstart.vmap.stack import numbers


def run(configs: Sequence[DictConfig], runs: Sequence[RunFolder]) -> None:
    """Finetune or pretrain all `configs`, whose run folders are open; each ends with status done or failed.

    A job that fails does not stop the others, and its error is not raised. There are no checkpoints: a group that is
    killed starts anew. `cost.seconds` is the group's wall time divided by the number of its jobs, `cost.together`, and
    `cost.peak_memory_mb` the peak of the group.

    Args:
        configs: composed configs of one stage that differ in the numbers of `sweep.plan.NUMBERS` only.
        runs: their run folders.

    Raises:
        CannotBatch: they have to be run one by one; nothing was written.
        GroupFailed: something stopped all of them, such as too little memory; what was not done is left interrupted.
        KeyboardInterrupt: a signal came, and what was not done is recorded as interrupted.
    """
    check_config(configs[0])
    try:
        device = build_trainer(configs[0].trainer, runs[0].path, None, []).strategy.root_device
        signals = StopBetweenBatches()
        built = build_jobs(configs, runs, device)
        loops = [VmapLoop(jobs, device, signals) for jobs in alike(built)]
    except UserError as error:
        raise CannotBatch(str(error)) from error
    for loop in loops:
        check(loop)
    with signals.listening():
        failures = [failure for loop in loops if (failure := finish(loop)) is not None]
    if signals.asked:
        raise KeyboardInterrupt
    if failures:
        raise GroupFailed(f"{type(failures[0]).__name__}: {failures[0]}") from failures[0]


def build_jobs(configs: Sequence[DictConfig], runs: Sequence[RunFolder], device: torch.device) -> list[Job]:
    """Every job with its parts; the data is read once, and encoded once where it is encoded alike.

    Raises:
        CannotBatch: the first of them is not one to be multiplied.
    """
    splits = components.build_source(configs[0]).load(components.get_object(configs[0].objective._target_).target)
    jobs: list[Job] = []
    for config, run in zip(configs, runs):
        jobs.append(Job(config, run, *assemble(config, splits, jobs[0].data if jobs else None)))
        if len(jobs) == 1:
            check_model(config, jobs[0].module, first_rows(jobs[0]), device)
    return jobs


def first_rows(job: Job) -> Batch:
    """A raw batch to try steps on.

    Raises:
        CannotBatch: the rows are not alike in shape.
    """
    if isinstance(job.data.parts["train"][0], PaddedRows):
        raise CannotBatch("rows of different lengths are padded batch by batch")
    return Batch(*(part if part is None else part[: job.data.batch_size] for part in job.data.parts["train"]))


def alike(jobs: Sequence[Job]) -> list[list[Job]]:
    """Groups with the same loss and preprocessor, sorted by what the optimizer is told."""

    def key(job: Job) -> str:
        loss = job.config.get("loss")
        return json.dumps([OmegaConf.to_container(loss) if loss else None, job.data.preprocessor.state()])

    ordered = sorted(jobs, key=lambda job: (key(job), *numbers(job.module.optimizer)))
    return [list(group) for _, group in itertools.groupby(ordered, key)]


def check(loop: VmapLoop) -> None:
    """Refuse a group whose steps cannot be done at once.

    Raises:
        CannotBatch: says why.
    """
    if len({job.data.rows["train"] for job in loop.jobs}) > 1:
        raise CannotBatch("the jobs have different numbers of training rows")
    interval, epochs = loop.settings.val_check_interval or 1, loop.settings.check_val_every_n_epoch
    if epochs is not None and interval > loop.per_epoch:
        raise CannotBatch(f"trainer.val_check_interval={interval} is more than the {loop.per_epoch} steps of an epoch")
    job = loop.jobs[0]
    check_stack(job.config, job.module, loop.stack, first_rows(job), loop.device)


def finish(loop: VmapLoop) -> Exception | None:
    """Train a group and close its records; if a signal came before, only close them.

    Returns:
        What stopped the whole group, if that was not a signal; its jobs are left interrupted then.
    """
    forget_peak_memory()
    started, failure = time.monotonic(), None
    try:
        loop.signals.check()
        for job in loop.jobs:
            begin(job)
        loop.run()
    except BaseException as error:
        failure = error
        loop.signals.asked |= not isinstance(error, Exception)
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
            end(job, loop, seconds)
    return failed


def begin(job: Job) -> None:
    """What is known before the first step: data, lineage, config."""
    note_data(job.run, job.config, job.data)
    job.run.update(status="running", error=None, **job.lineage)
    if job.run.record["transfer"] is not None:
        job.start = pooled_features(job.module, job.data.sample("validation", ROWS))
    job.logger = RunLogger(job.run.path)
    job.logger.log_text("config", (job.run.path / "config.yaml").read_text())


def end(job: Job, loop: VmapLoop, seconds: float) -> None:
    """Save the best weights, write metrics and cost, or raise what the job failed by."""
    steps = loop.step if job.steps is None else job.steps
    screen.log.info("trained together, as one of %d jobs", len(loop.jobs))
    try:
        if job.error is not None:
            raise job.error
        save_scores(job.run, job.scores)
        if job.start is not None:
            after = pooled_features(job.module, job.data.sample("validation", ROWS))
            job.run.note(cka=linear_cka(job.start, after))
        model = (job.module.backbone, job.module.objective, job.data.spec, job.data.preprocessor)
        if job.config.stage == "finetune":
            extract_adapters(job.run, job.module)
        save_model(job.run, job.config, *model, plain=job.config.stage == "pretrain")
        metrics = {**job.last, **job.best, **job.test}
        conclude(job.run, job.config, job.logger, metrics, job.last, job.best, steps)
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
