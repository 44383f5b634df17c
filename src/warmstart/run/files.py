"""The one writer of files: each is complete or not there, and synced with its folder where the file system can."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from warmstart.core.errors import UserError, WriteError

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
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield the path of a temporary file beside `path`, which takes its place, synced, when the block ends well.

    Args:
        path: of the file.
        previous: where to keep the old file. It is renamed once the new one is on the disk, so a process that is
            killed before the second rename leaves the old file there, and none at `path`.

    Raises:
        WriteError: as `write_atomically`.
    """
    temporary = temporary_of(path)
    with writing(path):
        try:
            yield temporary
            sync(temporary)
            if previous is None:
                os.replace(temporary, path)
            else:
                _exchange(temporary, path, previous)
            sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, which takes its place, with all files synced, when the block ends well.

    A folder cannot be replaced in one step: the old one is renamed, the new one too, the old one removed. Between the
    renames a reader finds none. A process that is killed there leaves none; what it leaves, the old folder as well, is
    removed as temporary files are. So use it for what can be written again: the `model/` of a run that resumes, the
    curves of a report.

    Raises:
        WriteError: the disk is full, read-only or broken; the old folder is as it was.
    """
    temporary, old = temporary_of(path), temporary_of(path)
    with writing(path):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            sync_all(temporary)
            _exchange(temporary, path, old)
            sync(path.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def adding_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path`, with all files synced, when the block ends well.

    Several processes may do so at a time: the first to finish wins, and the others remove theirs.

    Raises:
        OSError: as the operating system gives it; there is no folder then.
    """
    temporary = temporary_of(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync_all(temporary)
        try:
            os.rename(temporary, path)
        except OSError:
            if not path.is_dir():
                raise
        sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(new: Path, path: Path, old: Path) -> None:
    """Rename `path` to `old` where it exists, and `new` to `path`; on an error, `path` is renamed back."""
    is_there = path.exists()
    try:
        if is_there:
            os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        if is_there and not path.exists():
            os.replace(old, path)
        raise


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
    """Write a file, or the names in a folder, to the disk; some file systems do that for files only."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Write a folder and all that is in it to the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def temporary_of(path: Path) -> Path:
    """A name beside `path` that no other process takes, and that `remove_temporaries` knows."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left below a folder; no process may be writing there."""
    for path in folder.rglob(TEMPORARY):
        _remove(path)


def remove_temporaries_of(path: Path) -> None:
    """Remove what a process that was killed while it wrote this file or folder has left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        _remove(left)


def remove_old_temporaries(folder: Path, seconds: float) -> None:
    """Remove temporary files and folders in a folder, not below it, of which nothing has been written for so long."""
    for path in folder.glob(TEMPORARY):
        with contextlib.suppress(OSError):  # another process renames or removes it
            newest = max(part.stat().st_mtime for part in (path, *path.rglob("*")))
            if time.time() - newest > seconds:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_links(path: Path, below: bool = True) -> None:
    """Refuse a folder that holds links to elsewhere, which would be written through.

    Args:
        path: of the folder.
        below: check the folders in it too.

    Raises:
        UserError: names the link.
    """
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            if (link := Path(folder, name)).is_symlink():
                raise UserError(f"{link} is a symbolic link, and a run writes to its own folder only: remove it")
        if not below:
            return
