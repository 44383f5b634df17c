"""What is made once from data and reused by every run: arrays and files in folders named by what they are made of."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import tokenizers

from warmstart.core import screen
from warmstart.core.errors import UserError, WriteError
from warmstart.run.checksums import check_folder, write_checksums
from warmstart.run.files import adding_folder, disk_error, remove_old_temporaries, temporary_path

Read = TypeVar("Read")

FORMAT = 3  # to be raised when entries are made in another way
DAY = 24 * 3600.0  # seconds

_verified: dict[Path, list[tuple]] = {}  # the files of entries, as they were when this process checked their SHA-256


def folder() -> Path:
    """The environment variable WARMSTART_CACHE, or a folder in the user's cache."""
    return Path(os.environ.get("WARMSTART_CACHE") or Path.home() / ".cache" / "warmstart")


def key(*parts: bytes | str) -> str:
    """SHA-256 of the parts, in order, and of what else the entries depend on."""
    digest = hashlib.sha256(f"{FORMAT} {tokenizers.__version__}".encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def texts_digest(texts: Iterable[str]) -> bytes:
    """SHA-256 over every text and its length."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def entry(kind: str, name: str, make: Callable[[Path], None], read: Callable[[Path], Read]) -> Read:
    """What `read` finds in the folder `kind/name` of the cache, which `make` fills where it is missing or damaged.

    Raises:
        UserError: the cache is no folder that can be written to.
        WriteError: its disk is full, read-only or broken.
    """
    final = folder() / kind / name
    try:
        _make(final, make)
        try:
            _check(final)
        except UserError as error:
            screen.say(f"warning: {error}: this entry of the cache is rebuilt", style="yellow")
            aside = temporary_path(final)
            with contextlib.suppress(FileNotFoundError):  # another process was first
                final.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
            _make(final, make)
        return read(final)
    except OSError as error:
        if error.filename is not None and folder() not in (Path(error.filename), *Path(error.filename).parents):
            raise  # of a file that `make` reads
        reason = disk_error(error)
        if reason is not None and not isinstance(error, PermissionError):
            raise WriteError(final, reason) from error
        raise UserError(
            f"WARMSTART_CACHE={folder()} cannot be written ({error.strerror or error}): give a folder that can"
        ) from error


def arrays(folder: Path, names: Iterable[str]) -> list[np.ndarray]:
    """Arrays of an entry, left on the disk."""
    return [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]


def _check(final: Path) -> None:
    """Compare an entry with its checksums, once in a process, and again where a file in it has changed since.

    Raises:
        UserError: it is damaged.
    """
    files = []
    with contextlib.suppress(FileNotFoundError):  # another process found it to be damaged
        for path in sorted(final.rglob("*")):
            stat = path.stat()
            files.append((path, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    if not files or _verified.get(final) != files:
        check_folder(final)
        _verified[final] = files


def _make(final: Path, make: Callable[[Path], None]) -> None:
    """Where an entry is not there yet, have `make` fill a folder that then becomes it, with checksums.

    Two processes may make the same one at a time; the first to finish wins, and none reads it incomplete. What killed
    processes left a day ago or more is removed.
    """
    if final.is_dir():
        return
    remove_old_temporaries(final.parent, DAY)
    with adding_folder(final) as folder:
        make(folder)
        write_checksums(folder)
