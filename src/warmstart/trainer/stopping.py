"""Ctrl-C and termination signals: as KeyboardInterrupt, in training between two batches, where no lock is held."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl

DEFAULT = (signal.SIG_DFL, signal.default_int_handler)


@contextlib.contextmanager
def handling(handler: Callable[[int, Any], None] = signal.default_int_handler) -> Iterator[None]:
    """Inside, `handler` gets SIGINT and SIGTERM, unless they are ignored or something else waits for them.

    Lightning turns an interrupt into an exit and ignores SIGINT from then on: the exit comes out as KeyboardInterrupt,
    and the handlers are as before.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    for number, found in before.items():
        if found in DEFAULT:
            signal.signal(number, handler)
    try:
        yield
    except SystemExit as exit_:
        raise KeyboardInterrupt from exit_
    finally:
        for number, found in before.items():
            if found is not None:
                signal.signal(number, found)


class StopBetweenBatches(pl.Callback):
    """Notes a signal while it listens, and raises KeyboardInterrupt at the end of the batch; a second one at once."""

    def __init__(self) -> None:
        self.asked = False

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which signals are noted."""
        return handling(self.note)

    def note(self, number: int, frame: Any) -> None:
        """Handle a signal."""
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
