"""Run a command line in a forked process that can be killed at any point."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.kills.points import Points

from warmstart import main

STAGES = ("pretrain", "finetune", "evaluate", "predict", "generate", "export", "soup", "transfer")
MODULES = (
    *(f"warmstart.stages.{stage}" for stage in STAGES),
    "warmstart.vmap.group",
    "warmstart.sweep.engine",
    "transformers",
)
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LIMIT = 300.0  # seconds after which a command counts as hanging


@dataclass(frozen=True)
class Kill:
    """A signal to send at a point, or so many seconds after the start.

    Args:
        number: the signal.
        point: the number of a point of `Points`.
        seconds: since the start.
    """

    number: signal.Signals
    point: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        where = f"at point {self.point}" if self.point is not None else f"after {self.seconds:.2f} s"
        return f"{self.number.name} {where}"


@dataclass
class Ended:
    """How a command ended.

    Args:
        status: its exit status; negative for a signal.
        output: what it printed.
        points: a line for each point that it came to.
        killed: whether the signal was sent.
        seconds: how long it took.
    """

    status: int
    output: str
    points: list[str]
    killed: bool
    seconds: float

    @property
    def where(self) -> str:
        """The last point that it came to."""
        return self.points[-1] if self.points else "before its first point"

    @property
    def errors(self) -> list[str]:
        """Its lines of errors."""
        return [line for line in self.output.splitlines() if line.startswith("error:")]


class Command:
    """`python train.py WORDS` in a process of its own.

    Args:
        folder: where it runs, and below which points are counted.
        words: its arguments; output_dir should be a relative path.
        kill: the signal to send.
    """

    count = 0

    def __init__(self, folder: Path, words: Sequence[str], kill: Kill | None = None):
        Command.count += 1
        place = folder.with_name(f"{folder.name}.logs")
        folder.mkdir(parents=True, exist_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        self.log, self.trace = (place / f"{Command.count:04d}.{name}" for name in ("log", "points"))
        self.kill, self.started, self.killed = kill, time.monotonic(), False
        self.pid = os.fork()
        if self.pid == 0:
            self._run(folder, list(words))

    def _run(self, folder: Path, words: list[str]) -> None:
        """Be the command; does not return."""
        status = 70
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.chdir(folder)
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
            sys.argv = ["train.py", *words]
            kill = self.kill or Kill(signal.SIGKILL)
            Points(folder, self.trace, kill.point, kill.number).install()
            prepare()
            main.main()
            status = 0
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        except KeyboardInterrupt:
            status = -signal.SIGINT
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status % 256)

    def wait(self) -> Ended:
        """Send the signal when its time has come, and wait for the end."""
        seconds = self.kill.seconds if self.kill is not None else None
        due = None if seconds is None else self.started + seconds
        while True:
            ended, code = os.waitpid(self.pid, os.WNOHANG)
            now = time.monotonic()
            if ended:
                break
            if due is not None and now >= due:
                os.kill(self.pid, self.kill.number)
                due, self.killed = None, True
            if now - self.started > LIMIT:
                os.killpg(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        points = self.trace.read_text().splitlines() if self.trace.exists() else []
        status = os.waitstatus_to_exitcode(code)
        status = status - 256 if status > 127 and status != main.INTERRUPTED else status
        output = self.log.read_text(errors="replace") if self.log.exists() else ""
        killed = (
            self.killed
            or bool(points and any(line.endswith(" KILL") for line in points[-1:]))
            or any(line.endswith(" KILL") for line in points)
        )
        return Ended(status, output, points, killed, time.monotonic() - self.started)


def prepare() -> None:
    """Have a sweep or transfer run its jobs in the process itself, where points are counted."""
    from warmstart.stages import transfer
    from warmstart.sweep import engine, launch

    transfer.launcher = lambda: {"workers": 0, "together": transfer.GROUP_SIZE}
    launch.open_pool = lambda *settings: launch.ThisProcess()
    engine.run_once = lambda task: task()


def preload(names: Sequence[str] = MODULES) -> None:
    """Import what commands need, once, and keep to one thread."""
    import torch

    torch.set_num_threads(1)
    for name in names:
        importlib.import_module(name)
