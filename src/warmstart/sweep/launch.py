"""From a plan to running processes: what is left of it, in a pool that the launcher's settings describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.run import cores
from warmstart.run.manifest import RESUMABLE, Job, Manifest
from warmstart.sweep import search
from warmstart.sweep.plan import kind
from warmstart.sweep.pool import Pool, ThisProcess, once, preload
from warmstart.sweep.runner import Runner
from warmstart.sweep.schedule import Rules, Schedule, Work, alone, in_group, in_turn
from warmstart.sweep.view import View

TRAIN = ("pretrain", "finetune")
QUICK = ("baseline",)  # stages that take less time than a process of their own


def run(manifest: Manifest, launcher: Mapping[str, Any], rules: Rules, runner: Runner) -> dict[str, str]:
    """Run what is missing of a plan; return why jobs failed, by name.

    Args:
        manifest: the plan; its jobs' states are read from their run folders.
        launcher: `hydra.launcher`, whose keys are those of conf/hydra/launcher/pool.yaml or vmap.yaml.
        rules: about failures and reports.
        runner: runs the jobs.
    """
    states = {name: manifest.state(name) for name in manifest.names()}
    if manifest.search is not None:
        total = manifest.search["trials"]
        work = [search.trial_work(manifest, slot, runner) for slot in search.trials_left(manifest).values()]
        over = total - len(work)
    else:
        total = len(manifest.jobs)
        work = grouped(manifest, jobs_left(manifest, states, rules), launcher.get("together") or 1, runner)
        over = sum(state in ("done", "pruned") for state in states.values())
    preload(runner.modules, (job.config for job in manifest.jobs))
    pool = open_pool(launcher, earlier_threads(manifest))
    view = View(total, over)
    try:
        done = {name for name, state in states.items() if state == "done"}
        schedule = Schedule(manifest, pool, rules, view, runner, done)
        schedule.run(work)
        return schedule.failures
    finally:
        view.close()
        pool.close()


def jobs_left(manifest: Manifest, states: Mapping[str, str], rules: Rules) -> list[Job]:
    """What has not ended, and what failed and may be tried again."""
    left = []
    for job in manifest.jobs:
        state = states[job.name]
        failed = state == "failed" and (rules.again or manifest.attempts(job.name) <= rules.retries)
        if failed or state in ("planned", "interrupted"):
            left.append(job)
        elif state == "running":
            screen.say(f"{job.name} is being run by another process, and left to it")
    return left


def grouped(manifest: Manifest, jobs: Sequence[Job], size: int, runner: Runner) -> list[Work]:
    """Training jobs of one kind in groups of at most `size`, quick ones in turn; those that were broken off alone."""
    if size == 1:
        return [alone(manifest, job, runner) for job in jobs]
    work: list[Work] = []
    groups: dict[tuple[str, str | None], list[Job]] = {}
    for job in jobs:
        if any((manifest.path(job.name) / part).exists() for part in RESUMABLE):
            work.append(alone(manifest, job, runner))
        elif job.config["stage"] in TRAIN:
            groups.setdefault((kind(job.config), job.needs), []).append(job)
        elif job.config["stage"] in QUICK:
            groups.setdefault((job.config["stage"], job.needs), []).append(job)
        else:
            work.append(alone(manifest, job, runner))
    for group in groups.values():
        gather = in_group if group[0].config["stage"] in TRAIN else in_turn
        for start in range(0, len(group), size):
            part = group[start : start + size]
            work.append(gather(manifest, part, runner) if len(part) > 1 else alone(manifest, part[0], runner))
    return work


def earlier_threads(manifest: Manifest) -> int | None:
    """CPU threads of the jobs that have been run, so that the others of a resumed sweep round alike; None at first."""
    return next(filter(None, (cores.threads_in(manifest.record(name)) for name in manifest.names())), None)


def open_pool(launcher: Mapping[str, Any], earlier: int | None = None) -> Pool | ThisProcess:
    """Workers as the launcher says: by default one per device, and the free cores shared out among them.

    Args:
        launcher: `hydra.launcher`.
        earlier: CPU threads of a job before the sweep was resumed.
    """
    chosen = cores.automatic()
    if launcher.get("threads"):
        chosen = chosen._replace(threads=launcher["threads"], reason=f"hydra.launcher.threads={launcher['threads']}")
    elif earlier is not None:
        chosen = chosen._replace(threads=earlier, reason="as before")
    if launcher["workers"] == 0:
        cores.apply(chosen)
        screen.say(f"{cores.counted(chosen.threads)}: {chosen.reason}")
        return ThisProcess()
    devices = once(count_devices)
    workers = launcher["workers"] or max(1, devices)
    pool = Pool(workers, launcher["threads"] or earlier, devices, launcher["isolate"])
    each = f"{workers} worker{'' if workers == 1 else 's'} with {cores.counted(pool.threads)}"
    screen.say(f"{each}{'' if workers == 1 else ' each'}: {chosen.reason}")
    return pool


def check_settings(launcher: Mapping[str, Any]) -> None:
    """Refuse settings of a launcher of ours that cannot be.

    Raises:
        UserError: names the setting and its value.
    """
    for key in ("workers", "threads", "together"):
        value = launcher.get(key)
        least = 0 if key == "workers" else 1
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise UserError(f"hydra.launcher.{key}={value}: must be a whole number, {least} or more")
    if not isinstance(launcher.get("isolate", True), bool):
        raise UserError(f"hydra.launcher.isolate={launcher['isolate']}: must be true or false")


def count_devices() -> int:
    """CUDA devices of this machine; imports torch."""
    import torch

    return torch.cuda.device_count()
