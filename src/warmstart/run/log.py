"""The log of a run, train.log: what is logged while the run is recorded, appended line by line."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from warmstart.run.files import writing
from warmstart.screen import LogFormatter


class LogFile(logging.FileHandler):
    """A log that stays silent on the screen where its disk is full: what the run itself cannot write ends it."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Leave the line out."""


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
