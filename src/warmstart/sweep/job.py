"""The interface through which a sweep runs jobs without importing the stages."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from omegaconf import DictConfig

from warmstart.config.rewrite import merged
from warmstart.core import screen
from warmstart.core.errors import CannotBatch, GroupFailed, UserError, WriteError
from warmstart.run import cores
from warmstart.run.files import as_write_error, check_links, remove_temporaries
from warmstart.run.folder import LOCK, RunFolder
from warmstart.run.lock import Lock
from warmstart.run.manifest import RESUMABLE, Job, Manifest

RunStage = Callable[[DictConfig, RunFolder, Sequence[Any]], Any]
RunGroup = Callable[[Sequence[DictConfig], Sequence[RunFolder]], None]


class Runner(Protocol):
    """Runs jobs in any process: it must be picklable, and must not import torch when it is created.

    A worker process imports `modules` before its first job.
    """

    modules: Sequence[str]

    def run(self, config: DictConfig, run: RunFolder, callbacks: Sequence[Any]) -> Any:
        """Run a job in its open run folder; `callbacks` are additional callbacks for the Trainer."""

    def run_group(self, configs: Sequence[DictConfig], runs: Sequence[RunFolder]) -> None:
        """Train similar jobs at once, in their open run folders.

        Raises:
            CannotBatch: the jobs must be run one by one; nothing was written.
            GroupFailed: an error stopped all jobs; the unfinished ones are interrupted.
        """

    def check(self, config: DictConfig) -> None:
        """Check that the components of a config can be built and are compatible.

        Raises:
            UserError: they cannot, or are not.
        """

    def check_start(self, config: DictConfig) -> None:
        """Check that the initial weights and the teacher of a config exist.

        Raises:
            UserError: they are missing, damaged or unsuitable.
        """

    def pruning(self, trial: Any, metric: str) -> Any:
        """Return a callback that reports the metric to an Optuna trial, and raises Pruned if the trial should stop."""


LOCK_TIMEOUT = 5.0  # seconds for the worker of a killed sweep to end
ENDED = ("done", "pruned")


class Outcome(NamedTuple):
    """The outcome of a job; state `running` means that another process runs it, `error` is as in a run's record."""

    name: str
    state: str
    error: str | None = None
    score: float | None = None


def run_job(manifest: Manifest, job: Job, run_stage: RunStage, callbacks: Sequence[Any] = ()) -> Outcome:
    """Run a job, or resume it from its last checkpoint; a job that has ended is not run again.

    Exceptions are recorded, with the traceback in the job's log, and not raised.
    """
    try:
        with holding(manifest, [job]) as locks:
            if locks is None:
                return Outcome(job.name, "running")
            with cores.using(threads_of(manifest, job)):
                return run_locked(manifest, job, locks[0], run_stage, callbacks)
    except WriteError as error:
        return failed(job.name, error)


@contextlib.contextmanager
def holding(manifest: Manifest, jobs: Sequence[Job]) -> Iterator[list[Lock] | None]:
    """Yield the locks of the jobs, held in the block; None if another process holds one.

    A signal in the block is recorded in the jobs as an interrupt.
    """
    locks = [manifest.lock(job.name) for job in jobs]
    try:
        if not all(lock.acquire(LOCK_TIMEOUT) for lock in locks):
            yield None
            return
        for lock in locks:
            lock.start_heartbeat()
        yield locks
    except KeyboardInterrupt:
        note_interrupt(manifest, jobs, locks)
        raise
    finally:
        for lock in locks:
            lock.release()


def run_locked(manifest: Manifest, job: Job, lock: Lock, run_stage: RunStage, callbacks: Sequence[Any]) -> Outcome:
    """Implement `run_job` with the lock held and the number of threads set."""
    try:
        run = open_run(manifest, job, lock)
    except (UserError, WriteError) as error:
        return failed(job.name, error)
    if run.record["status"] in ENDED:
        return outcome_of(manifest, run)
    try:
        with screen.quiet(), run.recording():
            run_stage(merged(job.config), run, callbacks)
    except Exception:
        if run.record["status"] == "running":  # else `recording` has recorded the error
            raise
    return outcome_of(manifest, run)


def run_group_locked(
    manifest: Manifest, jobs: Sequence[Job], locks: Sequence[Lock], train: RunGroup
) -> list[Outcome] | str:
    """Implement `run_group` with the locks held and the number of threads set."""
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
            return f"the vmap group failed: {reason}"
        return [record_failure(manifest, run, failure) for run in runs]
    except CannotBatch as reason:
        for run in runs:
            shutil.rmtree(run.path)
        return str(reason)
    return [outcome_of(manifest, run) for run in runs]


def threads_of(manifest: Manifest, job: Job) -> int | None:
    """Return the CPU threads of a job: those recorded if it resumes, else those of its config; None for automatic."""
    path, threads = manifest.path(job.name), (job.config.get("trainer") or {}).get("threads")
    resumed = any((path / file).exists() for file in RESUMABLE)
    recorded = cores.recorded_threads(path) if resumed else None
    return recorded or (threads if isinstance(threads, int) else None)


def run_sequence(manifest: Manifest, jobs: Sequence[Job], run_stage: RunStage) -> list[Outcome]:
    """Run jobs sequentially."""
    return [run_job(manifest, job, run_stage) for job in jobs]


def run_group(manifest: Manifest, jobs: Sequence[Job], train: RunGroup) -> list[Outcome] | str:
    """Train similar jobs as a vmap group; return their outcomes, or the reason why they must be run one by one."""
    try:
        with holding(manifest, jobs) as locks:
            if locks is None:
                return "another process is running one of the jobs"
            if any((manifest.record(job.name) or {}).get("status") in ENDED for job in jobs):
                return "another process has run some of the jobs"
            with cores.using(threads_of(manifest, jobs[0])):
                return run_group_locked(manifest, jobs, locks, train)
    except WriteError as error:
        return [failed(job.name, error) for job in jobs]


def record_failure(manifest: Manifest, run: RunFolder, error: BaseException) -> Outcome:
    """Record that a job failed; on a full disk, use the space that its lock reserved."""
    if run.record["status"] not in ENDED:
        run.note(status="failed", error=f"{type(error).__name__}: {error}")
        run.lock.release_reserve()
        with contextlib.suppress(WriteError):  # the record is then read as interrupted
            run.update()
    return outcome_of(manifest, run)


def open_run(manifest: Manifest, job: Job, lock: Lock) -> RunFolder:
    """Open the run folder of a job that has ended or has a checkpoint; else create a new one.

    Raises:
        UserError: the folder has another config, is damaged, or contains symbolic links.
        WriteError: the disk is full, read-only or broken.
    """
    path = manifest.path(job.name)
    attempts = manifest.attempts(job.name)
    if (path / "run.json").exists():
        run = RunFolder.open(path)
        run.lock = lock
        if run.record.get("config_sha256") != job.sha256:
            raise UserError(f"{path} is a run of another config: remove it, and resume the sweep")
        if run.record["status"] in ENDED:
            return run
    check_links(path)
    if attempts == 0 or not any((path / file).exists() for file in RESUMABLE):
        clear(path)
        run = RunFolder.create(merged(job.config), path.parent, path.name, lock)
    remove_temporaries(path)
    run.update(status="running", error=None, sweep={"values": job.values, "attempts": attempts + 1})
    return run


def clear(path: Path) -> None:
    """Empty a run folder except for its lock."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK:
            entry.unlink()


def note_death(manifest: Manifest, job: Job, reason: str) -> Outcome:
    """Record that the process of a job died."""
    lock = manifest.lock(job.name)
    try:
        if not lock.acquire(LOCK_TIMEOUT):
            return Outcome(job.name, "running")
        run = RunFolder.open(manifest.path(job.name)) if manifest.record(job.name) else open_run(manifest, job, lock)
        if run.record["status"] not in ENDED:
            run.update(status="failed", error=reason)
        return outcome_of(manifest, run)
    except (UserError, WriteError) as error:
        return Outcome(job.name, "failed", f"{reason}; {error}")
    finally:
        lock.release()


def note_interrupt(manifest: Manifest, jobs: Sequence[Job], locks: Sequence[Lock]) -> None:
    """Record as interrupted those jobs whose locks this process holds."""
    for job, lock in zip(jobs, locks):
        if lock.is_acquired and (manifest.record(job.name) or {}).get("status") in ("running", "interrupted"):
            RunFolder.open(manifest.path(job.name)).update(status="interrupted", error="interrupted by the user")


def failed(name: str, error: Exception) -> Outcome:
    """Return the outcome of a job with an exception that is not in its record."""
    return Outcome(name, "failed", f"{type(error).__name__}: {error}")


def write_error(error: str | None) -> WriteError | None:
    """Return the `WriteError` that ended a job, given its outcome's or record's `error`; None for any other reason."""
    found = re.fullmatch(f"{WriteError.__name__}: cannot write (.+): (.+?)", error or "", re.DOTALL)
    return WriteError(Path(found[1]), found[2]) if found else None


def outcome_of(manifest: Manifest, run: RunFolder) -> Outcome:
    """Return the outcome that a run's record holds."""
    score = run.record["metrics"].get(manifest.metric)
    return Outcome(run.path.name, run.record["status"], run.record["error"], score)


def without_plan(manifest: Manifest) -> Manifest:
    """Return the sweep without its list of jobs, which a worker does not need."""
    return replace(manifest, jobs=[])
