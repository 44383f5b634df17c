"""Signals during a training: Ctrl-C and SIGTERM save and stop it between two batches, SIGUSR1 saves only."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl

from warmstart.core import screen
from warmstart.core.signals import interrupt
from warmstart.distributed.processes import largest, world

Handler = Callable[[int, Any], None]

DEFAULT = (signal.SIG_DFL, signal.default_int_handler, interrupt)


@contextlib.contextmanager
def handling(handler: Handler = interrupt, save: Handler | None = None) -> Iterator[None]:
    """Handle SIGINT and SIGTERM with `handler` inside the context, unless they are ignored or have another handler.

    Lightning converts an interrupt to an exit and then ignores SIGINT: the exit is converted to KeyboardInterrupt, and
    the handlers are restored.

    Args:
        save: handler of SIGUSR1, which `main` ignores; None to leave it as it is.
    """
    chosen = {signal.SIGINT: (handler, DEFAULT), signal.SIGTERM: (handler, DEFAULT)}
    if save is not None:
        chosen[signal.SIGUSR1] = (save, (signal.SIG_DFL, signal.SIG_IGN))
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in chosen} if is_main else {}
    for number, found in before.items():
        own, replaced = chosen[number]
        if found in replaced:
            signal.signal(number, own)
    try:
        yield
    except SystemExit as exit_:
        raise KeyboardInterrupt from exit_
    finally:
        for number, found in before.items():
            if found is not None:
                signal.signal(number, found)


class StopBetweenBatches:
    """A request by SIGINT or SIGTERM to stop after the current batch.

    At a second signal, the interrupt is raised at once; a second SIGTERM, which a scheduler may send to a process and
    to its group, is ignored.
    """

    def __init__(self) -> None:
        self.received, self.number = False, signal.SIGINT

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which signals are handled."""
        return handling(self.note)

    def note(self, number: int, frame: Any) -> None:
        """Handle a signal."""
        if self.received and not number == self.number == signal.SIGTERM:
            interrupt(number)
        self.received, self.number = True, number

    def check(self) -> None:
        """Raise the interrupt if a signal was received."""
        if self.received:
            interrupt(self.number)


class SaveBetweenBatches(pl.Callback):
    """Saves last.ckpt after the current batch if a signal was received, and then stops unless it was SIGUSR1.

    A checkpoint is written where a resumed run continues exactly: between two batches of an epoch, or in a validation,
    which is then repeated. After the last batch of an epoch without a validation, it is written after the next batch;
    after the last batch of a training, none is written.

    Args:
        trainer: with `BestAndLast` among its callbacks; this callback must be the last one.
    """

    def __init__(self, trainer: pl.Trainer):
        self.trainer = trainer
        self.stop = StopBetweenBatches()
        self.is_requested = False

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which signals are handled."""
        return handling(self.note_stop, self.note_save)

    def note_stop(self, number: int, frame: Any) -> None:
        """Handle SIGINT or SIGTERM."""
        self.trainer._signal_connector.received_sigterm = False  # else Lightning would exit at the end of the epoch
        self.stop.note(number, frame)

    def note_save(self, number: int, frame: Any) -> None:
        """Handle SIGUSR1."""
        self.is_requested = True

    def on_train_batch_end(self, *args: Any) -> None:
        """Save, and stop, unless the epoch or the training ends or a validation follows."""
        self._agree()
        loop = self.trainer.fit_loop
        is_last = loop.epoch_loop._is_training_done or self.trainer.should_stop
        if self._is_due and not is_last and not loop.epoch_loop._should_check_val_fx(loop._data_fetcher):
            self._save()

    def on_validation_start(self, *args: Any) -> None:
        """Save, and stop."""
        self._agree()
        if self._is_due:
            self._save()

    def on_validation_batch_end(self, *args: Any) -> None:
        """Save and stop; SIGUSR1 is handled at the end of the validation, which saves, as all by several processes."""
        if self.stop.received and world() == 1:
            self._save()

    def on_validation_end(self, *args: Any) -> None:
        """Stop after the checkpoint of a validation."""
        self._agree()
        self._conclude()

    def _agree(self) -> None:
        """Combine the signals of all processes."""
        if world() > 1:
            number, is_requested = largest([self.stop.number * self.stop.received, int(self.is_requested)])
            self.is_requested = bool(is_requested)
            if number:
                self.stop.received, self.stop.number = True, number

    @property
    def _is_due(self) -> bool:
        return self.is_requested or self.stop.received

    def _save(self) -> None:
        self.trainer.checkpoint_callback.save(self.trainer)
        self._conclude()

    def _conclude(self) -> None:
        """Print that a checkpoint was written at SIGUSR1; raise the interrupt if a signal to stop was received."""
        if self.is_requested:
            self.is_requested = False
            screen.say(f"SIGUSR1: saved a checkpoint at step {self.trainer.global_step}")
        self.stop.check()
