"""Which task starts next: what its job needs is done, retries are left, and nobody has called a halt."""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from warmstart.core import screen
from warmstart.run.manifest import Job, Manifest
from warmstart.sweep.job import Outcome, note_death, run_group, run_in_turn, run_job, without_plan
from warmstart.sweep.pool import Crash, Death, Pool, ThisProcess
from warmstart.sweep.runner import Runner
from warmstart.sweep.view import View

REPORT_SECONDS = 10.0
REPORT_SHARE = 0.05  # of the time, at most, goes into reports on the way


@dataclass(frozen=True)
class Rules:
    """What to do about failures, and how to report on the way.

    Args:
        on_failure: continue, or stop.
        retries: how often a failed job is run again.
        report: called now and then while jobs run.
        again: run each job that failed before once more, whatever `retries` is.
    """

    on_failure: str = "continue"
    retries: int = 0
    report: Callable[[], None] | None = None
    again: bool = False


@dataclass
class Work:
    """One task for a worker: a job alone, several to be trained together, or one trial of a search.

    Args:
        jobs: its jobs; empty for a trial, which makes them as it goes.
        call: the task itself; it gives an `Outcome`, several, or the reason why its jobs must be run one by one.
        name: what to call it on the screen.
        died: records that the task's process died; None where its jobs are then run one by one.
    """

    jobs: Sequence[Job]
    call: Callable[[], Any]
    name: str
    died: Callable[[str], Outcome] | None = None

    @property
    def needs(self) -> set[str]:
        """Jobs that must be done first."""
        return {job.needs for job in self.jobs if job.needs is not None}


def alone(manifest: Manifest, job: Job, runner: Runner) -> Work:
    """A job by itself."""
    lean = without_plan(manifest)
    died = functools.partial(note_death, lean, job)
    return Work([job], functools.partial(run_job, lean, job, runner.run), job.name, died)


def in_group(manifest: Manifest, jobs: Sequence[Job], runner: Runner) -> Work:
    """Jobs of one kind, trained in one go."""
    name = f"{jobs[0].name} and {len(jobs) - 1} more"
    return Work(jobs, functools.partial(run_group, without_plan(manifest), jobs, runner.run_group), name)


def in_turn(manifest: Manifest, jobs: Sequence[Job], runner: Runner) -> Work:
    """Quick jobs, one after the other in one process."""
    name = f"{jobs[0].name} and {len(jobs) - 1} more"
    return Work(jobs, functools.partial(run_in_turn, without_plan(manifest), jobs, runner.run), name)


def starts_of(manifest: Manifest, name: str, counted: Mapping[str, int]) -> int:
    """How often a job was started: as its record says, or as was counted, since it may fail before it has a record."""
    return max(counted.get(name, 0), manifest.attempts(name))


@dataclass
class Schedule:
    """Works through tasks until none is left.

    Args:
        manifest: the sweep.
        pool: where tasks run.
        rules: about failures.
        view: where they are shown.
        runner: runs the jobs.
        done: names of jobs that are done, for those that need them.
        starts: how often each job was started.
        failures: why jobs failed, also where that could not be recorded in their folders.
    """

    manifest: Manifest
    pool: Pool | ThisProcess
    rules: Rules
    view: View
    runner: Runner
    done: set[str] = field(default_factory=set)
    waiting: deque[Work] = field(default_factory=deque)
    at_work: list[Work] = field(default_factory=list)
    reasons: set[str] = field(default_factory=set)
    starts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    halted: bool = False
    reported: float = field(default_factory=time.monotonic)
    reporting: float = 0.0

    def run(self, work: Iterable[Work]) -> None:
        """Start each task as soon as there is room and what it needs is done; return when all have ended."""
        self.waiting.extend(work)
        while self.waiting or self.at_work:
            self.start_what_can()
            self.view.running([work.name for work in self.at_work])
            for call, result in self.pool.finished(1.0):
                work = next(work for work in self.at_work if work.call is call)
                self.at_work.remove(work)
                self.digest(work, result)
            self.report_now_and_then()
            if not self.at_work and (self.halted or not any(work.needs <= self.done for work in self.waiting)):
                return

    def start_what_can(self) -> None:
        """Fill the pool."""
        while self.pool.has_room and not self.halted:
            work = next((work for work in self.waiting if work.needs <= self.done), None)
            if work is None:
                return
            self.waiting.remove(work)
            self.at_work.append(work)
            self.starts |= {job.name: starts_of(self.manifest, job.name, self.starts) + 1 for job in work.jobs}
            self.pool.start(work.call)
            if isinstance(self.pool, ThisProcess):
                return

    def digest(self, work: Work, result: Any) -> None:
        """Count what ended, queue what is to be tried again."""
        if isinstance(result, (Death, Crash)):
            result = work.died(result.reason) if work.died else result.reason
        if isinstance(result, str):
            self.fall_back(work, result)
            return
        jobs = {job.name: job for job in work.jobs}
        for outcome in [result] if isinstance(result, Outcome) else result:
            self.count(jobs.get(outcome.name), outcome)

    def fall_back(self, work: Work, reason: str) -> None:
        """Jobs that could not be trained together are trained one by one."""
        if reason not in self.reasons:
            self.reasons.add(reason)
            self.view.say(f"{work.name} and the like: one by one, since {reason}")
        left = []
        for job in work.jobs:
            begun = self.starts.pop(job.name, 0)  # one that could not be trained together has not been started
            record = self.manifest.record(job.name) or {}
            over = record.get("status") == "failed" and self.manifest.attempts(job.name) >= begun  # not earlier
            if over or record.get("status") == "done":
                self.count(job, Outcome(job.name, record["status"], record.get("error")))
            else:
                left.append(job)
        self.waiting.extendleft(alone(self.manifest, job, self.runner) for job in reversed(left))

    def count(self, job: Job | None, outcome: Outcome) -> None:
        """Show how a job ended, and try it again where that is allowed."""
        again = False
        if outcome.state == "done":
            self.done.add(outcome.name)
        if outcome.state == "failed" and job is not None:
            again = starts_of(self.manifest, job.name, self.starts) <= self.rules.retries
        if outcome.state == "failed":
            self.failures[outcome.name] = outcome.error or ""
        self.view.ended(outcome, again)
        if again:
            self.waiting.append(alone(self.manifest, job, self.runner))
        elif outcome.state == "failed" and self.rules.on_failure == "stop" and not self.halted:
            self.halted = True
            self.view.say("on_failure=stop: no further job is started")

    def report_now_and_then(self) -> None:
        """Refresh the tables, as long as that costs little."""
        idle = time.monotonic() - self.reported
        if self.rules.report is None or idle < max(REPORT_SECONDS, self.reporting / REPORT_SHARE):
            return
        started = time.monotonic()
        try:
            self.rules.report()
        except Exception as error:
            screen.log.warning("the tables could not be written: %s", error)
        self.reported = time.monotonic()
        self.reporting = self.reported - started
