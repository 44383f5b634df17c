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

from warmstart.contracts import UserError

BEAT_SECONDS = 5.0
POLL_SECONDS = 0.01
STALE_SECONDS = 60.0


class Lock:
    """An exclusive `flock` on a file beside what it guards.

    The holder's process and host stand in the file, and its time of change is the heartbeat. On one machine the lock
    alone decides; where another host's lock does not reach this one, a heartbeat younger than a minute counts as held.
    """

    def __init__(self, path: Path):
        self.path = path
        self.descriptor: int | None = None
        self.stopped = threading.Event()

    def acquire(self, patience: float = 0.0) -> bool:
        """Take the lock; False where somebody else still has it after `patience` seconds."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise UserError(f"cannot lock {self.path}: {error.strerror}") from error
        deadline = time.monotonic() + patience
        while not self._try(descriptor):
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return False
            time.sleep(POLL_SECONDS)
        self.descriptor = descriptor
        return True

    def _try(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            raise UserError(f"cannot lock {self.path}: {error.strerror}; use a file system that has locks") from error
        if self._beats_elsewhere():
            fcntl.flock(descriptor, fcntl.LOCK_UN)
            return False
        return True

    def release(self) -> None:
        """Give the lock back."""
        self.stopped.set()
        if self.descriptor is not None:
            os.truncate(self.descriptor, 0)  # a signature that is left would count as held on another host
            os.close(self.descriptor)
            self.descriptor = None

    def beat(self) -> None:
        """Sign the file, and keep its time fresh from a thread until the lock is released."""
        os.truncate(self.path, 0)
        os.pwrite(self.descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)

        def keep_fresh() -> None:
            while not self.stopped.wait(BEAT_SECONDS):
                with contextlib.suppress(OSError):
                    os.utime(self.path)

        threading.Thread(target=keep_fresh, daemon=True, name="heartbeat").start()

    def is_held(self) -> bool:
        """Whether anybody is at work."""
        try:
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return self._beats_elsewhere()

    def _beats_elsewhere(self) -> bool:
        try:
            host = json.loads(self.path.read_text())["host"]
            age = time.time() - self.path.stat().st_mtime
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return host != socket.gethostname() and age < STALE_SECONDS
