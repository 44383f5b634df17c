"""The operations of an Optuna study in a file, one a line, each with a checksum of it and of all before it."""

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
    """A storage backend of Optuna's that detects damage.

    A line is a SHA-256, a space and an operation in JSON; the SHA-256 is of the line before's and the operation. A last
    line without its end, which a full disk or a power cut leaves, is not read, and the next writer removes it.

    Args:
        path: of the file, made where it is missing.
        lock: held while the file is written.
    """

    def __init__(self, path: Path, lock: Lock):
        self.path, self.lock = path, lock
        self.logs: list[dict[str, Any]] = []
        self.digests: list[str] = []
        self.size = 0  # bytes that were read
        if not path.exists():
            with writing(path):
                path.touch()
        found = os.stat(path)
        self.identity = found.st_dev, found.st_ino

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Return the operations from this number on.

        Raises:
            UserError: a line is not as it was written.
        """
        with open(self.path, "rb") as stream:
            stream.seek(self.size)
            for line in stream:
                if not line.endswith(b"\n"):
                    break
                digest, _, text = line.decode("utf-8", "replace").rstrip("\n").partition(" ")
                if digest != chained(self.digest, text):
                    raise UserError(
                        f"{self.path} is damaged: the SHA-256 of line {len(self.logs) + 1} is not the recorded one; "
                        "remove the file to search anew: runs that are done are kept"
                    )
                self.logs.append(json.loads(text))
                self.digests.append(digest)
                self.size += len(line)
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append operations, all or none.

        Raises:
            WriteError: the disk is full, read-only or broken.
            UserError: the file is damaged, or no longer the one that was read.
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
        """Return whether the file at the path is still the one that was read, with nothing removed from it."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self.identity and found.st_size >= self.size

    @property
    def digest(self) -> str:
        """The SHA-256 of the last line that was read, which is one of all lines."""
        return self.digests[-1] if self.digests else ""


def append(descriptor: int, content: bytes, size: int) -> None:
    """Write all of it and sync, or restore the file's size."""
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        os.fsync(descriptor)
    except OSError:
        os.truncate(descriptor, size)
        raise


def chained(digest: str, text: str) -> str:
    """Return the SHA-256 of a line, given that of the line before it."""
    return hashlib.sha256(f"{digest}{text}".encode()).hexdigest()
