"""Read text files: UTF-8, with or without gzip compression."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pandas as pd

from warmstart.core.errors import UserError

GZIP = ".gz"
NAMED = 5  # names in a message


def suffix_of(path: Path) -> str:
    """Return the extension of the format, in lower case: .csv for TABLE.CSV.gz."""
    return Path(path.name.lower().removesuffix(GZIP)).suffix


def read_text(path: str | Path) -> str:
    r"""Read a text file as UTF-8, with line ends converted to \n; a .gz file is decompressed.

    Raises:
        UserError: the file is missing, empty, binary, truncated or in another encoding.
    """
    path = Path(path)
    data = _read_bytes(path)
    if not data.strip():
        raise UserError(f"{path} is empty")
    if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path} is binary, not text: byte {data.index(0)} is zero")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        found = data[error.start]
        raise UserError(f"{path} is not UTF-8 text (byte {error.start} is 0x{found:02x}): save it as UTF-8") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def first_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a text file, each with \n at its end, without reading the complete file.

    Raises:
        OSError, EOFError, ValueError, zlib.error: the file is missing, damaged or not UTF-8.
    """
    with (gzip.open if path.suffix.lower() == GZIP else open)(path, "rt", encoding="utf-8-sig") as file:
        yield from file


def read_lines(path: str | Path) -> pd.Series:
    """Read the lines of a text file that are not blank, indexed by line number, from 1.

    Raises:
        UserError: as in `read_text`.
    """
    lines = pd.Series(read_text(path).split("\n"), dtype=object)
    lines.index += 1
    return lines[lines.str.strip() != ""]


def check_is_file(path: Path) -> None:
    """Raise UserError if the path is not a file."""
    if not path.is_file():
        raise UserError(f"{path}: this is a folder, not a file" if path.is_dir() else f"{path}: there is no such file")


def listed(names: Sequence[str]) -> str:
    """Return the first names for a message, with ... if there are more."""
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def first_duplicate(names: list[str]) -> str | None:
    """Return the first name that occurs twice, or None."""
    if len(set(names)) == len(names):
        return None
    return next(name for number, name in enumerate(names) if name in names[:number])


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if path.suffix.lower() != GZIP:
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is truncated or damaged, or is not a gzip file: {error}") from error


CHUNK = 64  # items per task: with one, the overhead exceeds the time to decode a small image

Item, Result = TypeVar("Item"), TypeVar("Result")


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Map a function over items in threads; return the results in order, or raise the first error."""

    def chunk(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + CHUNK]]

    with ThreadPoolExecutor() as pool:
        return [result for results in pool.map(chunk, range(0, len(items), CHUNK)) for result in results]
