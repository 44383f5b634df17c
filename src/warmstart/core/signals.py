"""The handler of the signals that interrupt the program: SIGINT (Ctrl-C) and SIGTERM."""

from __future__ import annotations

import signal
from typing import Any

from warmstart.core.errors import Terminated


def interrupt(number: int, frame: Any = None) -> None:
    """Handle a signal: raise Terminated for SIGTERM, KeyboardInterrupt for any other."""
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
