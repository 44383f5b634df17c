"""How far a sweep is: one bar in a terminal, a line per finished job elsewhere; failures at once in both."""

from __future__ import annotations

import time
from collections import Counter

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from warmstart.core import screen
from warmstart.sweep.job import Outcome

LINES = 25  # at most about so many for a sweep that goes well


class View:
    """Counts jobs as they end.

    Args:
        total: jobs in all.
        over: jobs that were over before.
    """

    def __init__(self, total: int, over: int):
        self.total, self.count = total, over
        self.states: Counter[str] = Counter()
        self.started = time.monotonic()
        self.bar: Progress | None = None
        console = screen.console()
        if console.is_terminal and not screen.is_quiet():
            columns = (TextColumn("jobs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task("", total=total, completed=over, state="")

    def running(self, names: list[str]) -> None:
        """Show what is being worked on."""
        if self.bar is not None:
            failed = f"{self.states['failed']} failed  " if self.states["failed"] else ""
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            self.bar.update(self.task, state=f"{failed}now {', '.join(names[:2])}{more}")

    def ended(self, outcome: Outcome, again: bool) -> None:
        """Count a job that ended; `again` says that it will be tried once more."""
        if not again:
            self.count += 1
            self.states[outcome.state] += 1
        if outcome.state == "failed":
            self.say(f"failed: {outcome.name}: {outcome.error}{' (will be tried again)' if again else ''}", "red")
        elif self.bar is None and self.count % max(1, self.total // LINES) == 0:
            score = "" if outcome.score is None else f"  {screen.number(outcome.score)}"
            seconds = time.monotonic() - self.started
            self.say(f"{self.count} of {self.total}  {outcome.state}  {outcome.name}{score}  ({seconds:.0f} s)")
        if self.bar is not None:
            self.bar.update(self.task, completed=self.count)

    def say(self, line: str, style: str | None = None) -> None:
        """A line above the bar."""
        if self.bar is not None:
            line = screen.safe(line)
            screen.log.info(line)
            self.bar.console.print(line, style=style, markup=False)
        else:
            screen.say(line, style=style)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
