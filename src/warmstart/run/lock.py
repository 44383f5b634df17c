"""Who is at work on something: a lock that is free once its holder dies, and a heartbeat for other machines."""

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
NOTICE_SECONDS = 5.0  # of waiting, until a line says for whom
RESERVE = 2**16  # bytes that a held lock takes on the disk, given back to write a last record where it is full


class Lock:
    """An exclusive `flock` on a file.

    The holder's process and host stand in the file, and its time of change is the heartbeat. On one machine the lock
    alone decides; where another host's lock does not reach this one, a heartbeat younger than a minute counts as held.
    Who holds it for longer calls `beat`.
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor: int | None = None
        self.stopped = threading.Event()

    @property
    def is_mine(self) -> bool:
        """Whether this object holds the lock."""
        return self.descriptor is not None

    def acquire(self, patience: float = 0.0) -> bool:
        """Take the lock and sign the file; False where another still has it after `patience` seconds.

        Raises:
            WriteError: the disk is full, read-only or broken.
            UserError: the file system has no locks.
        """
        started, noticed = time.monotonic(), False
        while not self._try():
            waited = time.monotonic() - started
            if waited >= patience:
                return False
            if waited >= NOTICE_SECONDS and not noticed:
                screen.say(f"waiting for {self.owner()}, which holds {self.path}")
                noticed = True
            time.sleep(POLL_SECONDS)
        try:
            self._sign()
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
            if self._is_there(descriptor) and not self._beats_elsewhere():
                descriptor, self.descriptor = None, descriptor
            return self.is_mine
        except BlockingIOError:
            return False
        except OSError as error:
            raise UserError(f"cannot lock {self.path}: {error.strerror}; use a file system that has locks") from error
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _is_there(self, descriptor: int) -> bool:
        """Whether the open file is still the one at the path: another process may have removed the folder."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def beat(self) -> None:
        """Reserve some bytes in the file, and keep its time fresh from a thread until the lock is released.

        Raises:
            WriteError: the disk is full, read-only or broken.
        """
        self._sign(RESERVE)
        self.stopped = threading.Event()
        threading.Thread(target=_beat, args=(self.path, self.stopped), daemon=True, name="heartbeat").start()

    def _sign(self, size: int = 0) -> None:
        """Write the holder's process and host into the file, padded to `size` bytes."""
        owner = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        with writing(self.path):
            os.truncate(self.descriptor, 0)
            os.pwrite(self.descriptor, owner.ljust(size).encode(), 0)
            os.utime(self.descriptor)  # a client of NFS sends what was written before it sets the time

    def release(self) -> None:
        """Give the lock back."""
        self.stopped.set()
        if self.descriptor is not None:
            self.give_reserve()  # a signature that is left would count as held on another host
            os.close(self.descriptor)
            self.descriptor = None

    def give_reserve(self) -> None:
        """Give back the file's bytes, so that a full disk has room for a record."""
        if self.descriptor is not None:
            with contextlib.suppress(OSError):
                os.truncate(self.descriptor, 0)

    def owner(self) -> str:
        """The holder, for a message."""
        try:
            signed = load_json(self.path)
            return f"process {int(signed['pid'])} on {signed['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"

    def is_held(self) -> bool:
        """Return whether a process holds the lock."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except OSError:  # there is none, or none that this user may read
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return False
        finally:
            os.close(descriptor)
        return self._beats_elsewhere()

    def _beats_elsewhere(self) -> bool:
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
