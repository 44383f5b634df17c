"""Starts tasks once the jobs they need are done, unless stopping was requested, and retries failed jobs."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from warmstart.core import screen
from warmstart.run.manifest import Job, Manifest
from warmstart.sweep.job import Outcome, Runner, note_death, run_group, run_job, run_sequence, without_plan
from warmstart.sweep.pool import Crash, Death, Pool, ThisProcess
from warmstart.sweep.view import View

REPORT_SECONDS = 10.0
REPORT_SHARE = 0.05  # maximum share of the time spent on intermediate reports


@dataclass(frozen=True)
class Rules:
    """Settings for failures and intermediate reports.

    Args:
        on_failure: continue, or stop.
        retries: number of times a failed job is run again.
        report: called periodically while jobs run.
        retry_failed: run each job that failed earlier once more, independent of `retries`.
    """

    on_failure: str = "continue"
    retries: int = 0
    report: Callable[[], None] | None = None
    retry_failed: bool = False


@dataclass
class Work:
    """A task for a worker: one job, a vmap group, a sequence of jobs, or a trial of a search.

    Args:
        jobs: its jobs; empty for a trial, which creates them while it runs.
        call: the task; returns one or more `Outcome`s, or the reason why its jobs must be run one by one.
        name: shown on the screen.
        died: records that the process of the task died; None if its jobs are then run one by one.
    """

    jobs: Sequence[Job]
    call: Callable[[], Any]
    name: str
    died: Callable[[str], Outcome] | None = None

    @property
    def needs(self) -> set[str]:
        """Return the names of the jobs that must be done first."""
        return {job.needs for job in self.jobs if job.needs is not None}


def single_job(manifest: Manifest, job: Job, runner: Runner) -> Work:
    """Return the task that runs one job."""
    sweep = without_plan(manifest)
    died = functools.partial(note_death, sweep, job)
    return Work([job], functools.partial(run_job, sweep, job, runner.run), job.name, died)


def several_jobs(manifest: Manifest, jobs: Sequence[Job], runner: Runner, is_training: bool) -> Work:
    """Return the task that trains similar jobs as a vmap group, or runs quick jobs sequentially in one process."""
    run, how = (run_group, runner.run_group) if is_training else (run_sequence, runner.run)
    name = f"{jobs[0].name} and {len(jobs) - 1} more"
    return Work(jobs, functools.partial(run, without_plan(manifest), jobs, how), name)


def count_starts(manifest: Manifest, name: str, counted: Mapping[str, int]) -> int:
    """Return the number of starts of a job: the larger of the recorded and the counted one.

    A job that fails before its record is written is only counted.
    """
    return max(counted.get(name, 0), manifest.attempts(name))


@dataclass
class Schedule:
    """Runs tasks until none is left.

    Args:
        done: names of finished jobs, which others may need.
        reasons: reasons for running jobs one by one that were printed.
        failures: errors of failed jobs, including those that could not be recorded in the run folder.
        stopped: whether a failure with on_failure=stop ended the schedule.
    """

    manifest: Manifest
    pool: Pool | ThisProcess
    rules: Rules
    view: View
    runner: Runner
    done: set[str] = field(default_factory=set)
    waiting: deque[Work] = field(default_factory=deque)
    active: list[Work] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    starts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    last_report: float = field(default_factory=time.monotonic)
    report_seconds: float = 0.0

    def run(self, work: Iterable[Work]) -> None:
        """Start each task when a worker is free and the jobs it needs are done; return when all have ended."""
        self.waiting.extend(work)
        while self.waiting or self.active:
            self.start_ready()
            self.view.running([work.name for work in self.active])
            for call, result in self.pool.finished(1.0):
                work = next(work for work in self.active if work.call is call)
                self.active.remove(work)
                self.handle(work, result)
            self.report_periodically()
            if not self.active and (self.stopped or not any(work.needs <= self.done for work in self.waiting)):
                return

    def start_ready(self) -> None:
        """Start tasks until the pool is full or none is ready."""
        while self.pool.has_room and not self.stopped:
            work = next((work for work in self.waiting if work.needs <= self.done), None)
            if work is None:
                return
            self.waiting.remove(work)
            self.active.append(work)
            self.starts |= {job.name: count_starts(self.manifest, job.name, self.starts) + 1 for job in work.jobs}
            self.pool.start(work.call)
            if isinstance(self.pool, ThisProcess):
                return

    def handle(self, work: Work, result: Any) -> None:
        """Count the outcomes of a task, and queue the jobs to run again."""
        if isinstance(result, (Death, Crash)):
            result = work.died(result.reason) if work.died else result.reason
        if isinstance(result, str):
            self.run_one_by_one(work, result)
            return
        jobs = {job.name: job for job in work.jobs}
        for outcome in [result] if isinstance(result, Outcome) else result:
            self.count(jobs.get(outcome.name), outcome)

    def run_one_by_one(self, work: Work, reason: str) -> None:
        """Queue the jobs of a group as single jobs."""
        if reason not in self.reasons:
            self.reasons.add(reason)
            self.view.say(f"{work.name}: run one by one: {reason}")
        left = []
        for job in work.jobs:
            starts = self.starts.pop(job.name, 0)  # the group's start does not count for single jobs
            record = self.manifest.record(job.name) or {}
            status = record.get("status")
            # a failure that was recorded before this attempt does not count
            if status == "done" or (status == "failed" and self.manifest.attempts(job.name) >= starts):
                self.count(job, Outcome(job.name, status, record.get("error")))
            else:
                left.append(job)
        self.waiting.extendleft(single_job(self.manifest, job, self.runner) for job in reversed(left))

    def count(self, job: Job | None, outcome: Outcome) -> None:
        """Show the outcome of a job, and queue it again if retries are left."""
        retry = False
        if outcome.state == "done":
            self.done.add(outcome.name)
        if outcome.state == "failed" and job is not None:
            retry = count_starts(self.manifest, job.name, self.starts) <= self.rules.retries
        if outcome.state == "failed":
            self.failures[outcome.name] = outcome.error or ""
        self.view.ended(outcome, retry)
        if retry:
            self.waiting.append(single_job(self.manifest, job, self.runner))
        elif outcome.state == "failed" and self.rules.on_failure == "stop" and not self.stopped:
            self.stopped = True
            self.view.say("on_failure=stop: no further job is started")

    def report_periodically(self) -> None:
        """Write the report, unless reports would take more than REPORT_SHARE of the time."""
        elapsed = time.monotonic() - self.last_report
        if self.rules.report is None or elapsed < max(REPORT_SECONDS, self.report_seconds / REPORT_SHARE):
            return
        started = time.monotonic()
        try:
            self.rules.report()
        except Exception as error:
            screen.log.warning("the tables could not be written: %s", error)
        self.last_report = time.monotonic()
        self.report_seconds = self.last_report - started
