"""Progress of a sweep: a bar in a terminal, else lines for finished jobs; failures are printed at once in both."""

from __future__ import annotations

import time
from collections import Counter

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from warmstart.core import screen
from warmstart.sweep.job import Outcome

LINES = 25  # approximate maximum for a sweep without failures


class View:
    """Counts jobs as they end.

    Args:
        ended: jobs that had ended before the sweep was resumed.
    """

    def __init__(self, total: int, ended: int):
        self.total, self.count = total, ended
        self.states: Counter[str] = Counter()
        self.started = time.monotonic()
        self.bar: Progress | None = None
        console = screen.console()
        if console.is_terminal and not screen.is_quiet():
            columns = (TextColumn("jobs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
            self.bar = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
            self.bar.start()
            self.task = self.bar.add_task("", total=total, completed=ended, state="")

    def running(self, names: list[str]) -> None:
        """Show the names of the running tasks."""
        if self.bar is not None:
            failed = f"{self.states['failed']} failed  " if self.states["failed"] else ""
            more = f" and {len(names) - 2} more" if len(names) > 2 else ""
            self.bar.update(self.task, state=f"{failed}now {', '.join(names[:2])}{more}")

    def ended(self, outcome: Outcome, retry: bool) -> None:
        """Count a job that ended, unless it will be retried, and print its outcome."""
        if not retry:
            self.count += 1
            self.states[outcome.state] += 1
        if outcome.state == "failed":
            self.say(f"failed: {outcome.name}: {outcome.error}{' (will be retried)' if retry else ''}", "red")
        elif self.bar is None and self.count % max(1, self.total // LINES) == 0:
            score = "" if outcome.score is None else f"  {screen.number(outcome.score)}"
            seconds = time.monotonic() - self.started
            self.say(f"{self.count} of {self.total}  {outcome.state}  {outcome.name}{score}  ({seconds:.0f} s)")
        if self.bar is not None:
            self.bar.update(self.task, completed=self.count)

    def say(self, line: str, style: str | None = None) -> None:
        """Print a line above the bar."""
        if self.bar is not None:
            line = screen.safe(line)
            screen.log.info(line)
            self.bar.console.print(line, style=style, markup=False)
        else:
            screen.say(line, style=style)

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.stop()
