"""One job of a sweep, in the process that calls this: locked, and its run folder always says what happened."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from warmstart.config.rewrite import merged
from warmstart.core import screen
from warmstart.core.errors import CannotBatch, GroupFailed, UserError, WriteError
from warmstart.run import cores
from warmstart.run.files import as_write_error, check_links, remove_temporaries
from warmstart.run.folder import LOCK, RunFolder
from warmstart.run.lock import Lock
from warmstart.run.manifest import RESUMABLE, Job, Manifest
from warmstart.sweep.runner import RunGroup, RunStage

PATIENCE = 5.0  # seconds for the process of a sweep that was killed to be gone too
OVER = ("done", "pruned")


class Outcome(NamedTuple):
    """How a job ended; `running` is one that another process is at work on, `error` is as in a run's record."""

    name: str
    state: str
    error: str | None = None
    score: float | None = None


def run_job(manifest: Manifest, job: Job, run_stage: RunStage, watchers: Sequence[Any] = ()) -> Outcome:
    """Run a job, or go on with it from its last checkpoint; what is over stays as it is.

    An exception is recorded, with its traceback in the job's own log, and not raised.
    """
    lock = manifest.lock(job.name)
    try:
        if not lock.acquire(PATIENCE):
            return Outcome(job.name, "running")
        lock.beat()
        with cores.using(threads_of(manifest, job)):
            return run_locked(manifest, job, lock, run_stage, watchers)
    except WriteError as error:
        return failed(job.name, error)
    except KeyboardInterrupt:
        note_interrupt(manifest, [job], [lock])
        raise
    finally:
        lock.release()


def run_locked(manifest: Manifest, job: Job, lock: Lock, run_stage: RunStage, watchers: Sequence[Any]) -> Outcome:
    """As `run_job`, with the job's lock held and its threads set."""
    try:
        run = open_run(manifest, job, lock)
    except (UserError, WriteError) as error:
        return failed(job.name, error)
    if run.record["status"] in OVER:
        return outcome_of(manifest, run)
    try:
        with screen.quiet(), run.recording():
            run_stage(merged(job.config), run, watchers)
    except Exception:
        if run.record["status"] == "running":  # else `recording` has written down why
            raise
    return outcome_of(manifest, run)


def run_group_locked(
    manifest: Manifest, jobs: Sequence[Job], locks: Sequence[Lock], train: RunGroup
) -> list[Outcome] | str:
    """As `run_group`, with the jobs' locks held and their threads set."""
    try:
        runs = [open_run(manifest, job, lock) for job, lock in zip(jobs, locks)]
    except UserError as error:
        return str(error)
    try:
        with screen.quiet():
            train([merged(job.config) for job in jobs], runs)
    except (GroupFailed, WriteError) as reason:
        failure = as_write_error(reason.__cause__ or reason, manifest.folder)
        if failure is None:
            return f"together they failed: {reason}"
        return [give_up(manifest, run, failure) for run in runs]
    except CannotBatch as reason:
        for run in runs:
            shutil.rmtree(run.path)
        return str(reason)
    return [outcome_of(manifest, run) for run in runs]


def threads_of(manifest: Manifest, job: Job) -> int | None:
    """CPU threads of a job that has a checkpoint to resume from, or whose config says how many; else None."""
    path, asked = manifest.path(job.name), (job.config.get("trainer") or {}).get("threads")
    resumed = any((path / part).exists() for part in RESUMABLE)
    recorded = cores.recorded_threads(path) if resumed else None
    return recorded or (asked if isinstance(asked, int) else None)


def run_in_turn(manifest: Manifest, jobs: Sequence[Job], run_stage: RunStage) -> list[Outcome]:
    """Run jobs one after the other."""
    return [run_job(manifest, job, run_stage) for job in jobs]


def run_group(manifest: Manifest, jobs: Sequence[Job], train: RunGroup) -> list[Outcome] | str:
    """Train jobs of one kind in one go; where they cannot be, the reason, and no trace of an attempt."""
    locks = [manifest.lock(job.name) for job in jobs]
    try:
        if not all(lock.acquire(PATIENCE) for lock in locks):
            return "another process is at work on one of them"
        for lock in locks:
            lock.beat()
        if any((manifest.record(job.name) or {}).get("status") in OVER for job in jobs):
            return "some of them have been run meanwhile"
        with cores.using(threads_of(manifest, jobs[0])):
            return run_group_locked(manifest, jobs, locks, train)
    except WriteError as error:
        return [failed(job.name, error) for job in jobs]
    except KeyboardInterrupt:
        note_interrupt(manifest, jobs, locks)
        raise
    finally:
        for lock in locks:
            lock.release()


def give_up(manifest: Manifest, run: RunFolder, error: BaseException) -> Outcome:
    """Record that a job failed, also where the disk is so full that only its lock's reserve has room for it."""
    if run.record["status"] not in OVER:
        run.note(status="failed", error=f"{type(error).__name__}: {error}")
        run.lock.give_reserve()
        with contextlib.suppress(WriteError):  # its folder then says that it was interrupted
            run.update()
    return outcome_of(manifest, run)


def open_run(manifest: Manifest, job: Job, lock: Lock) -> RunFolder:
    """The job's run folder, locked: as it is when over or with a checkpoint to go on from, else made anew.

    Raises:
        UserError: it is of another config, is damaged, or holds links to elsewhere.
        WriteError: the disk is full, read-only or broken.
    """
    path = manifest.path(job.name)
    attempts = manifest.attempts(job.name)
    if (path / "run.json").exists():
        run = RunFolder.open(path)
        run.lock = lock
        if run.record.get("config_sha256") != job.sha256:
            raise UserError(f"{path} is a run of another config: remove it, and the job is run")
        if run.record["status"] in OVER:
            return run
    check_links(path)
    if attempts == 0 or not any((path / part).exists() for part in RESUMABLE):
        clear(path)
        run = RunFolder.create(merged(job.config), path.parent, path.name, lock)
    remove_temporaries(path)
    run.update(status="running", error=None, sweep={"values": job.values, "attempts": attempts + 1})
    return run


def clear(path: Path) -> None:
    """Remove what is in a run folder besides its lock."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def note_death(manifest: Manifest, job: Job, reason: str) -> Outcome:
    """Record that the process of a job died before it could say so itself."""
    lock = manifest.lock(job.name)
    try:
        if not lock.acquire(PATIENCE):
            return Outcome(job.name, "running")
        run = RunFolder.open(manifest.path(job.name)) if manifest.record(job.name) else open_run(manifest, job, lock)
        if run.record["status"] not in OVER:
            run.update(status="failed", error=reason)
        return outcome_of(manifest, run)
    except (UserError, WriteError) as error:
        return Outcome(job.name, "failed", f"{reason}; {error}")
    finally:
        lock.release()


def note_interrupt(manifest: Manifest, jobs: Sequence[Job], locks: Sequence[Lock]) -> None:
    """Record that a signal came while those of the jobs whose locks this process holds were being set up."""
    for job, lock in zip(jobs, locks):
        if lock.is_mine and (manifest.record(job.name) or {}).get("status") in ("running", "interrupted"):
            RunFolder.open(manifest.path(job.name)).update(status="interrupted", error="interrupted by the user")


def failed(name: str, error: Exception) -> Outcome:
    """Return the outcome of a job that an exception ended before its record could hold it."""
    return Outcome(name, "failed", f"{type(error).__name__}: {error}")


def write_error(error: str | None) -> WriteError | None:
    """Return the `WriteError` that ended a job, given its outcome's or record's `error`; None for any other reason."""
    found = re.fullmatch(f"{WriteError.__name__}: cannot write (.+): (.+?)", error or "", re.DOTALL)
    return WriteError(Path(found[1]), found[2]) if found else None


def outcome_of(manifest: Manifest, run: RunFolder) -> Outcome:
    """What a run's record says."""
    score = run.record["metrics"].get(manifest.metric)
    return Outcome(run.path.name, run.record["status"], run.record["error"], score)


def without_plan(manifest: Manifest) -> Manifest:
    """The same sweep without its list of jobs: what a worker needs to know."""
    return replace(manifest, jobs=[])
