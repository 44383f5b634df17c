"""A process of a training with several devices: `python -m warmstart.process RUN ERRORS QUIET TRUSTED...`."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from hydra import initialize_config_dir

from warmstart.config.expand import CONF
from warmstart.core import screen
from warmstart.core.signals import interrupt
from warmstart.distributed import environment
from warmstart.run import cores
from warmstart.run.folder import RunFolder
from warmstart.run.lock import Lock
from warmstart.run.process_error import noting

PARENT_SECONDS = 1.0


class HeldLock(Lock):
    """The lock of a run that the process holds which started this one."""

    @property
    def is_acquired(self) -> bool:
        """Return true."""
        return True

    def release(self) -> None:
        """Do nothing."""


def exit_with_parent(parent: int) -> None:
    """Exit at once when the process that started this one has ended; it holds the lock of the run."""
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)


def main(path: str, errors: str, is_quiet: str, *trust: str) -> None:
    """Train a run, of which other processes train other parts.

    Args:
        path: of the run folder.
        errors: folder for a file with the error of this process, and for temporary files.
        is_quiet: 1 if nothing is printed.
        trust: packages whose classes the config may instantiate.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=exit_with_parent, args=(os.getppid(),), daemon=True).start()
    tempfile.tempdir = errors
    with noting(Path(errors)):
        run = RunFolder.open(Path(path))
        run.lock = HeldLock(run.lock.path)
        config = run.config(trust)
        cores.configure(config, run.path)
        importlib.import_module("warmstart.training.processes").join()
        if int(is_quiet) or environment.number() > 0:
            screen.be_quiet()
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            importlib.import_module(f"warmstart.stages.{config.stage}").train_run(config, run)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException:  # which is noted, and printed by the process that started this one
        sys.exit(1)
