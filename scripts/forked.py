"""Run command lines in forked processes, so that a script that runs hundreds of them imports torch once."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a fork may use no thread pool of its parent's

import torch  # noqa: F401 - imported once, before the forks
import transformers  # noqa: F401

from warmstart import main
from warmstart.stages import finetune, pretrain, transfer  # noqa: F401
from warmstart.sweep import engine, pool

SECONDS = 120  # after which a command is killed


@dataclass
class Ended:
    """What a command left: its exit status (None where it was killed for time), and what it printed."""

    status: int | None
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines of its error message; those that say what to type next are left out."""
        lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in self.err.splitlines()]
        start = next((number for number, line in enumerate(lines) if line.startswith("error:")), len(lines))
        return [line for line in lines[start:] if line.strip() and not line.startswith("next:")]

    @property
    def crashed(self) -> bool:
        """Whether a traceback was printed."""
        return "Traceback (most recent call last)" in self.err + self.out


def command(words: list[str], folder: Path, before: object = None) -> Ended:
    """Run `python train.py WORDS` in a fork.

    Args:
        words: of the command line.
        folder: for what it prints, outside of what the command writes to.
        before: called in the fork first, such as to limit its resources.
    """
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for path, number in ((out, 1), (err, 2)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
            if before is not None:
                before()
            engine.run_once = pool.call  # no further process for the survey of a sweep
            sys.argv = ["train.py", *words]
            main.main()
            status = 0
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    deadline = time.monotonic() + SECONDS
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Ended(None, out.read_text(), err.read_text())
        time.sleep(0.01)
    code = os.waitstatus_to_exitcode(ended[1])
    return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"))
