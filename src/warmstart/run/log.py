"""The log of a run, train.log: what is logged while the run is recorded, appended line by line."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from warmstart.core.screen import LogFormatter
from warmstart.run.files import writing


class LogFile(logging.FileHandler):
    """A log without the lines that a full disk refuses: such a disk ends the run where it writes anything else."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave out a line that the disk refuses; print any other error, as logging does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextlib.contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Append what is logged inside the block to a file.

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
        with contextlib.suppress(OSError):  # of a full disk
            handler.close()
