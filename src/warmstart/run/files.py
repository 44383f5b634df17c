"""Atomic writing of files and folders, synced to the disk where the file system supports it."""

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

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG)  # a full, read-only or broken disk
REASONS = {number: os.strerror(number) for number in (*DISK_ERRORS, errno.EACCES, errno.EPERM)}
INCOMPLETE = "the file was written incompletely"
# Messages of torch and numpy.
INCOMPLETE_WRITE = re.compile(r"PytorchStreamWriter failed|\] \. unexpected pos|^\d+ requested and \d+ written$")
TEMPORARY = ".*.tmp"


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically.

    Raises:
        WriteError: the disk is full, read-only or broken; the old file is unchanged.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


@contextlib.contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Yield the path of a temporary file, which replaces `path` when the block ends without an error.

    Args:
        previous: new path of the old file. The old file is renamed after the new one is synced; a process that is
            killed between the two renames leaves no file at `path`.

    Raises:
        WriteError: as `write_atomically`.
    """
    temporary = temporary_path(path)
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
    """Yield a temporary folder, which replaces `path` when the block ends without an error.

    The replacement is not atomic: the old folder is renamed, then the new one, and the old one is removed. A process
    that is killed between the renames leaves no folder at `path`, and `remove_temporaries` removes both. Use it for
    content that can be written again: the `model/` of a resumed run, the curves of a report.

    Raises:
        WriteError: the disk is full, read-only or broken; the old folder is unchanged.
    """
    temporary, old = temporary_path(path), temporary_path(path)
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
    """Yield a temporary folder, which is renamed to `path` when the block ends without an error.

    If several processes do so at once, the folder of the first is kept, and the others are removed.

    Raises:
        OSError: the folder could not be written; there is none at `path`.
    """
    temporary = temporary_path(path)
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
    """Rename `path`, if it exists, to `old`, and `new` to `path`; on an error, rename `old` back."""
    existed = path.exists()
    try:
        if existed:
            os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        if existed and not path.exists():
            os.replace(old, path)
        raise


@contextlib.contextmanager
def creating(folder: Path) -> Iterator[None]:
    """Convert errors of creating a folder in the block.

    Raises:
        UserError: the folder exists or cannot be created.
        WriteError: the disk is full, read-only or broken.
    """
    try:
        yield
    except FileExistsError as error:
        raise UserError(f"{folder} exists already: remove it, or set another output_dir=") from error
    except OSError as error:
        if (reason := disk_error(error)) is not None:
            raise WriteError(folder, reason) from error
        raise UserError(f"cannot write {folder}: {error.strerror}; set a writable output_dir=") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert disk errors of any library in the block to a `WriteError` with the path of the file.

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
    """Return the reason, if an exception or one of its causes is a disk error; else None."""
    reason = None
    while error is not None:
        number = getattr(error, "errno", None)
        if isinstance(error, OSError) and number in REASONS:
            return REASONS[number]
        for number in DISK_ERRORS:  # torch and safetensors raise other types
            if f"os error {number})" in str(error) or REASONS[number] in str(error):
                return REASONS[number]
        if INCOMPLETE_WRITE.search(str(error)):
            reason = INCOMPLETE
        error = error.__cause__ or error.__context__
    return reason


def as_write_error(error: BaseException, path: Path) -> WriteError | None:
    """Return the `WriteError` of a disk error, with `path` if it names none; None for other exceptions."""
    if isinstance(error, WriteError):
        return error
    reason = disk_error(error)
    if isinstance(error, UserError) or reason not in {INCOMPLETE, *(REASONS[number] for number in DISK_ERRORS)}:
        return None  # permission errors can also come from reading
    name = getattr(error, "filename", None)
    failure = WriteError(Path(name) if isinstance(name, str) else path, reason)
    failure.__cause__ = error
    return failure


def sync(path: Path) -> None:
    """Sync a file or folder to the disk; file systems that cannot sync folders are ignored."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Sync a folder and its content to the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def temporary_path(path: Path) -> Path:
    """Return a unique temporary path in the folder of `path`, which `remove_temporaries` recognizes."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def remove_temporaries(folder: Path) -> None:
    """Remove temporary files of killed processes below a folder, to which no process may be writing."""
    for path in folder.rglob(TEMPORARY):
        _remove(path)


def remove_temporaries_of(path: Path) -> None:
    """Remove temporary files and folders of killed processes for this path."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        _remove(left)


def remove_old_temporaries(folder: Path, seconds: float) -> None:
    """Remove temporary files and folders directly in a folder that have not changed for `seconds`."""
    for path in folder.glob(TEMPORARY):
        with contextlib.suppress(OSError):  # another process renamed or removed it
            newest = max(entry.stat().st_mtime for entry in (path, *path.rglob("*")))
            if time.time() - newest > seconds:
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def check_links(path: Path, below: bool = True) -> None:
    """Check that a folder contains no symbolic links, which could lead writes outside the folder.

    Args:
        below: also check its subfolders.

    Raises:
        UserError: there is a link; the message names it.
    """
    for folder, names, files in os.walk(path):
        for name in (*names, *files):
            if (link := Path(folder, name)).is_symlink():
                raise UserError(f"{link} is a symbolic link, which a run does not follow: remove it")
        if not below:
            return
