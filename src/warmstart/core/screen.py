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
from rich.text import Text

# What a terminal acts upon instead of showing it, but for line ends and tabs; marks that turn the direction of text;
# and halves of characters, which cannot be encoded.
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
PLAIN = re.compile(r"(?!(null|true|false|nan|inf)\Z)(\.{1,2}/)*[a-z_/][a-z0-9_./-]*", re.IGNORECASE | re.ASCII)

log = logging.getLogger("warmstart")

_quiet = 0


def console(results: bool = False) -> Console:
    """The console of progress (stderr), or of results (stdout)."""
    stream = sys.stdout if results else sys.stderr
    width = None if stream.isatty() else 160
    return Console(file=stream, highlight=False, emoji=False, soft_wrap=True, width=width)


def safe(text: str) -> str:
    """Return a text with what a terminal would act upon as escapes, such as \\x1b; line ends and tabs stay."""
    return UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


class LogFormatter(logging.Formatter):
    """Formats records as `safe` texts, so that a log can be shown in a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the traceback if there is one."""
        return safe(super().format(record))


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
    line = safe(line)
    log.info(line)
    if not is_quiet():
        console().print(line, style=style, markup=False)


def error(message: str) -> None:
    """Say what went wrong, in red, whatever else is kept quiet."""
    message = safe(message)
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
    """Print a result table; its texts are shown as they are, without markup."""
    if is_quiet():
        return
    grid = Table(title=Text(safe(title)), title_justify="left", title_style="bold", header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(Text(safe(column)), justify="left" if index == 0 else "right")
    for row in rows:
        grid.add_row(*(Text(safe(cell)) for cell in row))
    console(results=True).print(grid)


def next_command(*commands: str) -> None:
    """Tell the user what to type next."""
    if is_quiet():
        return
    for command in commands:
        console().print(f"next: {safe(command)}", style="cyan", markup=False)


def quoted(value: Path | str) -> str:
    """Return a path or a text as a value of Hydra's grammar, whatever is in it."""
    text = str(value)
    if PLAIN.fullmatch(text):
        return text
    if "${" in text:  # which OmegaConf would resolve
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    text = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + (r"\'" if found[2] else ""), text)
    return f"'{text}'"


def command(*words: str) -> str:
    """Return a command line that a shell (bash, zsh) takes as these words."""
    return " ".join(_shell_word(word) for word in words)


def next_run(*words: str) -> None:
    """Tell the user which run to start next, in words that a shell takes as they are."""
    next_command(command("python", "train.py", *words))


def _shell_word(word: str) -> str:
    """Quote a word; one that cannot be printed in one line as it is, with escapes."""
    if not re.search(r"[\n\t]", word) and not UNSAFE.search(word):
        return shlex.quote(word)
    return "$'" + "".join(_escaped(char) for char in word) + "'"


def _escaped(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    if char not in "\n\t" and not UNSAFE.match(char):
        return char
    errors = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in char.encode(errors=errors))
