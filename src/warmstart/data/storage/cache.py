"""Cache of arrays and files computed from data, in folders named by the hash of their inputs."""

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

FORMAT = 3  # increase it when the computation of entries changes
DAY = 24 * 3600.0  # seconds

_verified: dict[Path, list[tuple]] = {}  # file sizes and times of entries whose checksums this process has verified


def folder() -> Path:
    """Return the environment variable WARMSTART_CACHE, or a folder in the cache folder of the user."""
    return Path(os.environ.get("WARMSTART_CACHE") or Path.home() / ".cache" / "warmstart")


def key(*parts: bytes | str) -> str:
    """Return the SHA-256 of the parts, the cache format and the version of tokenizers."""
    digest = hashlib.sha256(f"{FORMAT} {tokenizers.__version__}".encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def texts_digest(texts: Iterable[str]) -> bytes:
    """Return the SHA-256 of all texts and their lengths."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def entry(kind: str, name: str, make: Callable[[Path], None], read: Callable[[Path], Read]) -> Read:
    """Return the result of `read` for the folder `kind/name` of the cache; call `make` if it is missing or damaged.

    Raises:
        UserError: the cache is not a writable folder.
        WriteError: the disk is full, read-only or broken.
    """
    final = folder() / kind / name
    try:
        _make(final, make)
        try:
            _check(final)
        except UserError as error:
            screen.say(f"warning: {error}: this cache entry is rebuilt", style="yellow")
            damaged = temporary_path(final)
            with contextlib.suppress(FileNotFoundError):  # another process was first
                final.rename(damaged)
            shutil.rmtree(damaged, ignore_errors=True)
            _make(final, make)
        return read(final)
    except OSError as error:
        if error.filename is not None and folder() not in (Path(error.filename), *Path(error.filename).parents):
            raise  # an error of a file that `make` reads
        reason = disk_error(error)
        if reason is not None and not isinstance(error, PermissionError):
            raise WriteError(final, reason) from error
        raise UserError(
            f"WARMSTART_CACHE={folder()} cannot be written ({error.strerror or error}): set it to a writable folder"
        ) from error


def arrays(folder: Path, names: Iterable[str]) -> list[np.ndarray]:
    """Open arrays of an entry as memory maps."""
    return [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]


def _check(final: Path) -> None:
    """Verify the checksums of an entry, once per process, and again if a file has changed.

    Raises:
        UserError: the entry is damaged.
    """
    files = []
    with contextlib.suppress(FileNotFoundError):  # another process removed a damaged entry
        for path in sorted(final.rglob("*")):
            stat = path.stat()
            files.append((path, stat.st_size, stat.st_mtime_ns, stat.st_ino))
    if not files or _verified.get(final) != files:
        check_folder(final)
        _verified[final] = files


def _make(final: Path, make: Callable[[Path], None]) -> None:
    """Create a missing entry: `make` fills a temporary folder, which is then renamed, with checksums.

    If two processes create the same entry, that of the first to finish is kept, and none reads an incomplete entry.
    Temporary folders of killed processes are removed after a day.
    """
    if final.is_dir():
        return
    remove_old_temporaries(final.parent, DAY)
    with adding_folder(final) as folder:
        make(folder)
        write_checksums(folder)
