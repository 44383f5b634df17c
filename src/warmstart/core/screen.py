"""Output for the user: messages and progress on standard error, results on standard output."""

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
from rich.text import Text

# Control characters except line ends and tabs, marks that change the text direction, and surrogates, which cannot be
# encoded.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
PLAIN = re.compile(r"(?!(null|true|false|nan|inf)\Z)(\.{1,2}/)*[a-z_/][a-z0-9_./-]*", re.IGNORECASE | re.ASCII)

log = logging.getLogger("warmstart")

_quiet = 0


def console(results: bool = False) -> Console:
    """Return the console of progress (stderr) or of results (stdout)."""
    stream = sys.stdout if results else sys.stderr
    width = None if stream.isatty() else 160
    return Console(file=stream, highlight=False, emoji=False, soft_wrap=True, width=width)


def safe(text: str) -> str:
    """Return a text with control characters escaped, such as \\x1b, except line ends and tabs."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


class LogFormatter(logging.Formatter):
    """Formats records with `safe`, so that a log can be displayed in a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback if there is one."""
        return safe(super().format(record))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Write messages only to the log inside the context, for runs that are part of a larger one."""
    global _quiet
    _quiet += 1
    try:
        yield
    finally:
        _quiet -= 1


def be_quiet() -> None:
    """Write messages only to the log from now on."""
    global _quiet
    _quiet += 1


def is_quiet() -> bool:
    """Return whether messages are written only to the log."""
    return _quiet > 0


def say(line: str, style: str | None = None) -> None:
    """Print a message, and write it to the run's log."""
    line = safe(line)
    log.info(line)
    if not is_quiet():
        console().print(line, style=style, markup=False)


def error(message: str) -> None:
    """Print an error, in red, even inside `quiet`."""
    message = safe(message)
    log.error(message)
    console().print(f"error: {message}", style="bold red", markup=False)


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as text for a table: `-` for None and `diverged` for NaN or infinity."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "diverged"
    return f"{value:.{digits}g}" if abs(value) < 1e5 else f"{value:.3e}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table of results; its texts are not interpreted as markup."""
    if is_quiet():
        return
    grid = Table(title=Text(safe(title)), title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(Text(safe(column)), justify="left" if index == 0 else "right")
    for row in rows:
        grid.add_row(*(Text(safe(cell)) for cell in row))
    console(results=True).print(grid)


def next_command(*commands: str) -> None:
    """Print commands that the user may run next."""
    if is_quiet():
        return
    for command in commands:
        console().print(f"next: {safe(command)}", style="cyan", markup=False)


def quoted(value: Path | str) -> str:
    """Return a path or a text as a quoted value in Hydra's grammar."""
    text = str(value)
    if PLAIN.fullmatch(text):
        return text
    if "${" in text:  # which OmegaConf would resolve
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + (r"\'" if found[2] else ""), text)
    return f"'{text}'"


def command(*arguments: str) -> str:
    """Return a command line with the arguments quoted for a shell (bash, zsh)."""
    return " ".join(_quoted_for_shell(argument) for argument in arguments)


def next_run(*overrides: str) -> None:
    """Print the command that starts a run with these overrides, quoted for a shell."""
    next_command(command("python", "train.py", *overrides))


def _quoted_for_shell(argument: str) -> str:
    """Quote an argument; one with control characters is written with escapes."""
    if not re.search(r"[\n\t]", argument) and not UNSAFE.search(argument):
        return shlex.quote(argument)
    return "$'" + "".join(_escaped(char) for char in argument) + "'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if char not in "\n\t" and not UNSAFE.match(char):
        return char
    errors = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in char.encode(errors=errors))
