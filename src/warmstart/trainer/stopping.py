"""Ctrl-C and termination signals, heeded between two batches, where no file is half written and no lock is held."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl


class StopBetweenBatches(pl.Callback):
    """Notes a signal while it listens, and raises KeyboardInterrupt at the end of the batch; a second one at once."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Inside, signals are noted, unless they are ignored or somebody else (a cluster's launcher) waits for them."""
        ours = (signal.SIG_DFL, signal.default_int_handler)
        found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        is_main = threading.current_thread() is threading.main_thread()
        before = {number: handler for number, handler in found.items() if is_main and handler in ours}
        for number in before:
            signal.signal(number, self.note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def note(self, number: int, frame: Any) -> None:
        """The signal handler."""
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_train_batch_end(self, *args: Any) -> None:
        """Stop here if asked to."""
        self.heed()

    def on_validation_batch_end(self, *args: Any) -> None:
        """Stop here if asked to."""
        self.heed()

    def heed(self) -> None:
        """Raise KeyboardInterrupt if a signal came."""
        if self.asked:
            raise KeyboardInterrupt
