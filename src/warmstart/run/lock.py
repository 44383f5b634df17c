"""A file lock that the operating system releases when its holder dies, with a heartbeat for other hosts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.reading import load_json
from warmstart.run.files import writing

BEAT_SECONDS = 5.0
POLL_SECONDS = 0.01
STALE_SECONDS = 60.0
NOTICE_SECONDS = 5.0  # of waiting, before the holder is printed
RESERVE = 2**16  # size in bytes of a held lock; releasing it lets a last record be written on a full disk


class Lock:
    """An exclusive `flock` on a file.

    The file contains the holder's process and host; its modification time is the heartbeat. On one host the `flock`
    decides. For holders on other hosts, whose `flock` may not be visible here, the lock counts as held while the
    heartbeat is less than a minute old. Call `start_heartbeat` to hold the lock for longer than that.
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor: int | None = None
        self.stopped = threading.Event()

    @property
    def is_acquired(self) -> bool:
        """Return whether this object holds the lock."""
        return self.descriptor is not None

    def acquire(self, timeout: float = 0.0) -> bool:
        """Acquire the lock; return False if another process still holds it after `timeout` seconds.

        Raises:
            WriteError: the disk is full, read-only or broken.
            UserError: the file system does not support locks.
        """
        started, noticed = time.monotonic(), False
        while not self._try():
            waited = time.monotonic() - started
            if waited >= timeout:
                return False
            if waited >= NOTICE_SECONDS and not noticed:
                screen.say(f"waiting for {self.owner()}, which holds {self.path}")
                noticed = True
            time.sleep(POLL_SECONDS)
        try:
            self._write_owner()
        except BaseException:
            self.release()
            raise
        return True

    def _try(self) -> bool:
        try:
            with writing(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        except OSError as error:
            raise UserError(f"cannot lock {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._is_same_file(descriptor) and not self._is_held_on_other_host():
                descriptor, self.descriptor = None, descriptor
            return self.is_acquired
        except BlockingIOError:
            return False
        except OSError as error:
            raise UserError(
                f"cannot lock {self.path}: {error.strerror}; use a file system that supports locks"
            ) from error
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _is_same_file(self, descriptor: int) -> bool:
        """Return whether the path still refers to the open file: another process may have removed the folder."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def start_heartbeat(self) -> None:
        """Reserve space in the file, and update its modification time in a thread until the lock is released.

        Raises:
            WriteError: the disk is full, read-only or broken.
        """
        self._write_owner(RESERVE)
        self.stopped = threading.Event()
        threading.Thread(target=_beat, args=(self.path, self.stopped), daemon=True, name="heartbeat").start()

    def _write_owner(self, size: int = 0) -> None:
        """Write the holder's process and host into the file, padded to `size` bytes."""
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        with writing(self.path):
            os.truncate(self.descriptor, 0)
            os.pwrite(self.descriptor, owner.ljust(size).encode(), 0)
            os.utime(self.descriptor)  # on NFS, this also sends the written data to the server

    def release(self) -> None:
        self.stopped.set()
        if self.descriptor is not None:
            self.release_reserve()  # else the lock would count as held on other hosts
            os.close(self.descriptor)
            self.descriptor = None

    def release_reserve(self) -> None:
        """Truncate the file, so that a full disk has space for a record."""
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                os.truncate(self.descriptor, 0)

    def owner(self) -> str:
        """Return a description of the holder for messages."""
        try:
            owner = load_json(self.path)
            return f"process {int(owner['pid'])} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def is_held(self) -> bool:
        """Return whether a process holds the lock."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:  # missing or not readable
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
        finally:
            os.close(descriptor)
        return self._is_held_on_other_host()

    def _is_held_on_other_host(self) -> bool:
        try:
            host = load_json(self.path)["host"]
            age = time.time() - self.path.stat().st_mtime
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return host != socket.gethostname() and age < STALE_SECONDS


def _beat(path: Path, stopped: threading.Event) -> None:
    while not stopped.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(path)
