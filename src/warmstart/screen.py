"""What the user sees: lines and progress on standard error, results on standard output."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

log = logging.getLogger("warmstart")

_quiet = 0


def console(results: bool = False) -> Console:
    """The console of progress (stderr), or of results (stdout)."""
    stream = sys.stdout if results else sys.stderr
    return Console(file=stream, highlight=False, soft_wrap=True, width=None if stream.isatty() else 160)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, lines go to the log alone: for runs that are part of a larger one."""
    global _quiet
    _quiet += 1
    try:
        yield
    finally:
        _quiet -= 1


def is_quiet() -> bool:
    """Whether lines are kept from the screen."""
    return _quiet > 0


def say(line: str, style: str | None = None) -> None:
    """Print one line for the user, and keep it in the run's log."""
    log.info(line)
    if not is_quiet():
        console().print(line, style=style, markup=False)


def error(message: str) -> None:
    """Say what went wrong, in red, whatever else is kept quiet."""
    log.error(message)
    console().print(f"error: {message}", style="bold red", markup=False)


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; what was not measured or is not finite is said in words, never as a number."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "diverged"
    return f"{value:.{digits}g}" if abs(value) < 1e5 else f"{value:.3e}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a result table."""
    if is_quiet():
        return
    grid = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        grid.add_row(*row)
    console(results=True).print(grid)


def next_command(*commands: str) -> None:
    """Tell the user what to type next."""
    if is_quiet():
        return
    for command in commands:
        console().print(f"next: {command}", style="cyan", markup=False)


def quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar, whatever is in it."""
    if re.fullmatch(r"[A-Za-z0-9_./-]+", str(path)):
        return str(path)
    return "'" + str(path).replace("'", "\\'") + "'"


def next_run(*words: str) -> None:
    """Tell the user which run to start next, in words that a shell takes as they are."""
    next_command(shlex.join(["python", "train.py", *words]))
