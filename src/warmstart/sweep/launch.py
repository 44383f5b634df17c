"""Runs the unfinished jobs of a plan in a pool with the launcher's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.run import cores
from warmstart.run.manifest import RESUMABLE, Job, Manifest
from warmstart.sweep import search
from warmstart.sweep.job import Runner
from warmstart.sweep.plan import group_key
from warmstart.sweep.pool import Pool, ThisProcess, preload, run_once
from warmstart.sweep.schedule import Rules, Schedule, Work, several_jobs, single_job
from warmstart.sweep.view import View

TRAIN = ("pretrain", "finetune")
QUICK = ("baseline", "screen")  # stages faster than the start of a process


def run(manifest: Manifest, launcher: Mapping[str, Any], rules: Rules, runner: Runner) -> dict[str, str]:
    """Run the unfinished jobs of a plan; return the errors of failed jobs by name.

    Args:
        launcher: `hydra.launcher`, with the keys of conf/hydra/launcher/pool.yaml or vmap.yaml.
    """
    states = {name: manifest.state(name) for name in manifest.names()}
    if manifest.search is not None:
        total = manifest.search["trials"]
        work = [search.trial_work(manifest, slot, runner) for slot in search.trials_left(manifest).values()]
        ended = total - len(work)
    else:
        total = len(manifest.jobs)
        work = grouped(manifest, jobs_left(manifest, states, rules), launcher.get("together") or 1, runner)
        ended = sum(state in ("done", "pruned") for state in states.values())
    preload(runner.modules, (job.config for job in manifest.jobs))
    pool = open_pool(launcher, earlier_threads(manifest), max(map(devices_of, manifest.jobs), default=1))
    view = View(total, ended)
    try:
        done = {name for name, state in states.items() if state == "done"}
        schedule = Schedule(manifest, pool, rules, view, runner, done)
        schedule.run(work)
        return schedule.failures
    finally:
        view.close()
        pool.close()


def jobs_left(manifest: Manifest, states: Mapping[str, str], rules: Rules) -> list[Job]:
    """Return the jobs to run: unfinished ones, and failed ones that may be retried."""
    left = []
    for job in manifest.jobs:
        state = states[job.name]
        failed = state == "failed" and (rules.retry_failed or manifest.attempts(job.name) <= rules.retries)
        if failed or state in ("planned", "interrupted"):
            left.append(job)
        elif state == "running":
            screen.say(f"{job.name} is skipped: another process is running it")
    return left


def grouped(manifest: Manifest, jobs: Sequence[Job], size: int, runner: Runner) -> list[Work]:
    """Group jobs into tasks of at most `size`: vmap groups of similar training jobs, sequences of quick jobs.

    A job with a checkpoint is a separate task.
    """
    if size == 1:
        return [single_job(manifest, job, runner) for job in jobs]
    work: list[Work] = []
    groups: dict[tuple[str, str | None], list[Job]] = {}
    for job in jobs:
        if any((manifest.path(job.name) / file).exists() for file in RESUMABLE):
            work.append(single_job(manifest, job, runner))
        elif job.config["stage"] in TRAIN:
            groups.setdefault((group_key(job.config), job.needs), []).append(job)
        elif job.config["stage"] in QUICK:
            groups.setdefault((repr(job.config.get("baseline")), job.needs), []).append(job)  # which share computations
        else:
            work.append(single_job(manifest, job, runner))
    for group in groups.values():
        is_training = group[0].config["stage"] in TRAIN
        for start in range(0, len(group), size):
            chunk = group[start : start + size]
            is_one = len(chunk) == 1
            work.append(
                single_job(manifest, chunk[0], runner) if is_one else several_jobs(manifest, chunk, runner, is_training)
            )
    return work


def earlier_threads(manifest: Manifest) -> int | None:
    """Return the CPU threads of earlier jobs, or None; a resumed sweep uses the same number, for reproducibility."""
    return next(filter(None, (cores.threads_in(manifest.record(name)) for name in manifest.names())), None)


def devices_of(job: Job) -> int:
    """Return the number of devices of a job."""
    return (job.config.get("trainer") or {}).get("devices") or 1


def open_pool(launcher: Mapping[str, Any], earlier: int | None = None, per_task: int = 1) -> Pool | ThisProcess:
    """Open the launcher's pool: by default as many workers as the devices suffice for; they share the free cores.

    Args:
        earlier: CPU threads of the jobs before the sweep was resumed.
        per_task: number of devices of a job.
    """
    choice = cores.automatic()
    if launcher.get("threads"):
        choice = choice._replace(threads=launcher["threads"], reason=f"hydra.launcher.threads={launcher['threads']}")
    elif earlier is not None:
        choice = choice._replace(threads=earlier, reason="as in the earlier jobs")
    if launcher["workers"] == 0:
        cores.apply(choice)
        screen.say(f"{cores.thread_count(choice.threads)}: {choice.reason}")
        return ThisProcess()
    devices = run_once(count_devices)
    workers = launcher["workers"] or max(1, devices // per_task)
    pool = Pool(workers, launcher["threads"] or earlier, devices, launcher["isolate"], per_task)
    size = f"{workers} worker{'' if workers == 1 else 's'} with {cores.thread_count(pool.threads)}"
    screen.say(f"{size}{'' if workers == 1 else ' each'}: {choice.reason}")
    return pool


def check_settings(launcher: Mapping[str, Any]) -> None:
    """Check the settings of the launchers `pool` and `vmap`.

    Raises:
        UserError: a setting has an invalid value; the message names both.
    """
    for key in ("workers", "threads", "together"):
        value = launcher.get(key)
        least = 0 if key == "workers" else 1
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UserError(f"hydra.launcher.{key}={value}: must be a whole number, {least} or more")
    if not isinstance(launcher.get("isolate", True), bool):
        raise UserError(f"hydra.launcher.isolate={launcher['isolate']}: must be true or false")


def count_devices() -> int:
    """Return the number of CUDA devices; imports torch."""
    import torch

    return torch.cuda.device_count()
