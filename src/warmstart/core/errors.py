"""Exceptions that the command line converts to an exit status and a message."""

from __future__ import annotations

from pathlib import Path


class UserError(Exception):
    """An error that the user can correct; the message states what, where and what to do. Exit status 2."""


class WriteError(Exception):
    """A file could not be written: the disk is full, read-only or broken. The exit status is 1.

    Args:
        path: of the file.
        reason: the message of the operating system.
    """

    def __init__(self, path: Path, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason
        self.run: Path | None = None  # the folder of the failed run

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.reason}"


class Terminated(KeyboardInterrupt):
    """SIGTERM was received. The exit status is 75 (EX_TEMPFAIL)."""


class Interrupted(KeyboardInterrupt):
    """A signal interrupted a run, whose status is now `interrupted`. The exit status is 130, for SIGTERM 75.

    Args:
        run: its folder; None if the run is already done.
    """

    def __init__(self, run: Path | None):
        super().__init__(run)
        self.run = run


def interrupt_of(error: BaseException | None) -> KeyboardInterrupt | None:
    """Return the interrupt among an error, its causes and contexts; None if there is none.

    A signal that arrives in a `with` block of a half-built object is followed by an error of its exit, which OmegaConf
    reports as an error of the config.
    """
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def is_terminated(error: BaseException | None) -> bool:
    """Return whether SIGTERM is among an error, its causes and contexts, which can form a circle."""
    left, seen = [error], set()
    while left:
        found = left.pop()
        if isinstance(found, Terminated):
            return True
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            left += [found.__cause__, found.__context__]
    return False


class CannotBatch(Exception):
    """The jobs cannot be trained in a vmap group, only separately; the message states the reason."""


class GroupFailed(Exception):
    """A vmap group failed; each of its jobs can still be trained separately."""


class Unmet(Exception):
    """The verdict differs from the required one; all results are written. The exit status is 4."""


class Pruned(Exception):
    """The pruner of a search stopped this run."""
