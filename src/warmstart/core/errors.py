"""Errors that the command line turns into an exit status and one or two lines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class UserError(Exception):
    """Something the user can mend; the message says what, where and how in a line or two. The process ends with 2."""


class WriteError(Exception):
    """A file could not be written, since the disk is full, read-only or broken. The process ends with 1.

    Args:
        path: of the file.
        reason: what the disk answered.
    """

    def __init__(self, path: Path, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason
        self.run: Path | None = None  # the folder of the run that failed by it

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.reason}"


class Interrupted(KeyboardInterrupt):
    """A signal interrupted the run in a folder, whose status is now `interrupted`. The process ends with 130.

    Args:
        run: the folder; None where the run is done already.
    """

    def __init__(self, run: Path | None):
        super().__init__(run)
        self.run = run


class CannotBatch(Exception):
    """These jobs cannot be trained together; the message says why. One after the other they can."""


class GroupFailed(Exception):
    """Jobs that were trained together failed as a group; each may yet do well alone."""


class Unmet(Exception):
    """The result is not the one that the command line requires; all is done and written. The process ends with 4."""


class Pruned(Exception):
    """A search stops this run early: others do better with what it has been given so far."""
