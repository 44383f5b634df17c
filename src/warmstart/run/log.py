"""The log file of a run, train.log."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from warmstart.core.screen import LogFormatter
from warmstart.run.files import writing


class LogFile(logging.FileHandler):
    """A log file handler that drops lines if the disk is full; the next write of another file then fails."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore disk errors; print other errors, as `logging.Handler` does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append log records of the block to a file.

    Raises:
        WriteError: the file cannot be opened.
    """
    with writing(path):
        handler = LogFile(path)
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger()
    previous_level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(previous_level)
        with contextlib.suppress(OSError):  # on a full disk
            handler.close()
