"""The one writer of files: each is complete or not there, synced with its folder; an error names the file."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from warmstart.contracts import UserError, WriteError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)  # full, read-only or broken
DISK = {number: os.strerror(number) for number in (*FULL, errno.EACCES, errno.EPERM)}
INCOMPLETE = "the file could not be written to its end"
TORN = re.compile(
    r"PytorchStreamWriter failed|\] \. unexpected pos|^\d+ requested and \d+ written$"
)  # of torch and numpy
TEMPORARY = ".*.tmp"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace a file by one with this content, in one step.

    Raises:
        WriteError: the disk is full, read-only or broken; the old file is as it was.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, which takes its place, synced, when the block ends well.

    Raises:
        WriteError: as `write_atomically`.
    """
    temporary = temporary_of(path)
    with writing(path):
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """The same for a folder and all files in it: an old one is removed, so a reader sees the old, none, or the new.

    Raises:
        WriteError: as `write_atomically`.
    """
    temporary, old = temporary_of(path), temporary_of(path)
    with writing(path):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for folder, _, names in os.walk(temporary, topdown=False):
                for name in names:
                    sync(Path(folder, name))
                sync(Path(folder))
            if path.exists():
                os.replace(path, old)
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong on the disk inside the block, whichever library writes, into an error that names the file.

    Raises:
        WriteError: the disk is full, read-only or broken.
    """
    try:
        yield
    except Exception as error:
        reason = disk_error(error)
        if reason is None or isinstance(error, WriteError):
            raise
        raise WriteError(path, reason) from error


def disk_error(error: BaseException | None) -> str | None:
    """What the disk answered, where an exception, or one that it came from, is about that; else None."""
    answer = None
    while error is not None:
        number = getattr(error, "errno", None)
        if isinstance(error, OSError) and number in DISK:
            return DISK[number]
        for number in FULL:  # torch and safetensors write in languages that have no OSError
            if f"os error {number})" in str(error) or DISK[number] in str(error):
                return DISK[number]
        if TORN.search(str(error)):
            answer = INCOMPLETE
        error = error.__cause__ or error.__context__
    return answer


def as_write_error(error: BaseException, path: Path) -> WriteError | None:
    """Return an exception as an error that a file could not be written; None where it is about something else.

    Args:
        error: of whatever library wrote; one that says which file it is about.
        path: the file, where the exception does not name it.
    """
    if isinstance(error, WriteError):
        return error
    reason = disk_error(error)
    if isinstance(error, UserError) or reason not in {INCOMPLETE, *(DISK[number] for number in FULL)}:
        return None  # a missing permission may be that of a file that is read
    name = getattr(error, "filename", None)
    failure = WriteError(Path(name) if isinstance(name, str) else path, reason)
    failure.__cause__ = error
    return failure


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk and not only in memory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def temporary_of(path: Path) -> Path:
    """A name beside `path` that no other process takes, and that `remove_temporaries` knows."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left below a folder; nobody may be writing there."""
    for path in folder.rglob(TEMPORARY):
        _remove(path)


def remove_temporaries_of(path: Path) -> None:
    """Remove what a process that was killed while it wrote this file or folder has left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
