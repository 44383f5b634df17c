"""A file with the operations of an Optuna study, one per line, each with a checksum of all lines up to it."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from warmstart.core.errors import UserError
from warmstart.run.files import writing
from warmstart.run.lock import Lock


class Journal(BaseJournalBackend):
    """A backend of Optuna's JournalStorage that detects damage.

    A line is a SHA-256, a space and an operation in JSON. The SHA-256 covers that of the previous line and the
    operation. An incomplete last line, as after a full disk or a power failure, is ignored, and removed by the next
    write.

    Args:
        path: of the file; created if missing.
        lock: held while the file is written.
    """

    def __init__(self, path: Path, lock: Lock):
        self.path, self.lock = path, lock
        self.logs: list[dict[str, Any]] = []
        self.digests: list[str] = []
        self.size = 0  # bytes read so far
        if not path.exists():
            with writing(path):
                path.touch()
        found = os.stat(path)
        self.identity = found.st_dev, found.st_ino

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the operations with at least this number.

        Raises:
            UserError: the checksum of a line is wrong.
        """
        with open(self.path, "rb") as stream:
            stream.seek(self.size)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                digest, _, text = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
                if digest != chained(self.digest, text):
                    raise UserError(
                        f"{self.path} is damaged: line {len(self.logs) + 1} does not match its SHA-256; "
                        "remove the file to restart the search: finished runs are kept"
                    )
                self.logs.append(json.loads(text))
                self.digests.append(digest)
                self.size += len(line)
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, all or none.

        Raises:
            WriteError: the disk is full, read-only or broken.
            UserError: the file is damaged, or was replaced or shortened since it was read.
        """
        self.lock.acquire(math.inf)
        try:
            if not self.is_continued():
                raise UserError(f"{self.path} was removed or shortened while it was in use; resume the search")
            self.read_logs(len(self.logs))
            digest, lines = self.digest, []
            for log in logs:
                text = json.dumps(log, separators=(",", ":"))
                digest = chained(digest, text)
                lines.append(f"{digest} {text}\n")
            with writing(self.path), open(self.path, "r+b", buffering=0) as stream:
                stream.truncate(self.size)
                stream.seek(self.size)
                append(stream.fileno(), "".join(lines).encode(), self.size)
        finally:
            self.lock.release()

    def is_continued(self) -> bool:
        """Return whether the path still refers to the file that was read, at no smaller size."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self.identity and found.st_size >= self.size

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the last line read, which covers all lines."""
        return self.digests[-1] if self.digests else ""


def append(descriptor: int, content: bytes, size: int) -> None:
    """Write the content and sync; on an error, truncate the file to `size` bytes."""
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except OSError:
        os.truncate(descriptor, size)
        raise


def chained(digest: str, text: str) -> str:
    """Return the SHA-256 of a line, given that of the previous line."""
    return hashlib.sha256(f"{digest}{text}".encode()).hexdigest()
