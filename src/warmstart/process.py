"""A process of a training with several devices: `python -m warmstart.process RUN ERRORS TRUSTED...`."""

from __future__ import annotations

import contextlib
import importlib
import signal
import sys
from pathlib import Path

from hydra import initialize_config_dir

from warmstart.config.expand import CONF
from warmstart.core import screen
from warmstart.core.signals import interrupt
from warmstart.run import cores
from warmstart.run.folder import RunFolder
from warmstart.run.lock import Lock


class HeldLock(Lock):
    """The lock of a run that the process holds which started this one."""

    @property
    def is_acquired(self) -> bool:
        """Return true."""
        return True

    def release(self) -> None:
        """Do nothing."""


def main(path: str, errors: str, *trust: str) -> None:
    """Train a run, of which other processes train other parts.

    Args:
        path: of the run folder.
        errors: folder for a file with the error of this process.
        trust: packages whose classes the config may instantiate.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, interrupt)
    run = RunFolder.open(Path(path))
    run.lock = HeldLock(run.lock.path)
    config = run.config(trust)
    cores.configure(config)
    processes = importlib.import_module("warmstart.training.processes")
    with processes.noting_error(Path(errors)):
        processes.join()
        quiet = screen.quiet() if processes.rank() else contextlib.nullcontext()
        with quiet, initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            importlib.import_module(f"warmstart.stages.{config.stage}").train_run(config, run)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException:  # which is noted, and printed by the process that started this one
        sys.exit(1)
