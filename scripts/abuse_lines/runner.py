"""Run a command line in this process until a run folder would be created, and classify the outcome."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from unittest import mock

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from scripts.abuse_lines.lines import Line

import warmstart.stages.transfer  # noqa: F401  (slow to import, so before a line's time is taken)
from warmstart import main
from warmstart.config.expand import expand
from warmstart.config.rewrite import freeze, without
from warmstart.config.validate import explain
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.run.folder import RunFolder
from warmstart.run.manifest import Manifest
from warmstart.sweep import engine
from warmstart.sweep.plan import Composer

SECONDS = 60
LINES = 2  # of a refusal
LONGEST = 900  # characters of them


class Begins(BaseException):
    """All checks are passed: a run folder or a sweep would be made now."""


class TooSlow(BaseException):
    """The command line takes too long."""


@dataclass
class Seen:
    """What came of a line: accepted, refused, or a defect, with its message."""

    kind: str
    message: str = ""


def stop(*_: object, **__: object) -> None:
    """Stand in for what writes the first file."""
    raise Begins


def alarmed(number: int, frame: FrameType | None) -> None:
    """Handle SIGALRM."""
    raise TooSlow


@contextlib.contextmanager
def up_to_the_run() -> Iterator[None]:
    """Inside, no run folder and no sweep is made, and a sweep is planned in this process."""
    with (
        mock.patch.object(RunFolder, "create", stop),
        mock.patch.object(Manifest, "write", stop),
        mock.patch.object(engine, "run_once", lambda task: task()),
        mock.patch.object(engine, "preload"),
    ):
        yield


class Reader(Composer):
    """Composes a config per command line, once per choice of groups, and keeps what steers a sweep."""

    def base(self, choices: tuple[str, ...]) -> DictConfig:
        """What the groups alone compose to."""
        if choices not in self.bases:
            base = self.loader.load_configuration("train", list(choices), RunMode.RUN)
            self.bases[choices] = freeze(without(base, {"hydra"}))
        return self.bases[choices]

    def run(self, words: tuple[str, ...]) -> None:
        """Do what `main.main` does for words without flags, and leave by SystemExit."""
        try:
            words = expand(words)
            overrides = self.parse(words)
            config = copy.deepcopy(self.base(tuple(word for word in words if self.selects_group(self.parsed[word]))))
            values = [override for override in overrides if not self.selects_group(override)]
            self.loader._apply_overrides_to_config(values, config)
        except (UserError, HydraException, OmegaConfBaseException) as error:
            screen.error(explain(error))
            sys.exit(main.USER_ERROR)
        sys.exit(main.run(config, any(word.startswith("experiment=") for word in words)))


@functools.cache
def reader() -> Reader:
    """Make the one reader; parts that offer others need Hydra initialised."""
    if not GlobalHydra.instance().is_initialized():
        initialize_config_dir(version_base="1.3", config_dir=str(main.CONF))
    return Reader([main.CONF])


def complete(words: tuple[str, ...]) -> None:
    """Do all that `python train.py WORDS` does."""
    GlobalHydra.instance().clear()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with mock.patch.object(sys, "argv", ["train.py", *words]):
            main.main()
    finally:
        signal.signal(signal.SIGTERM, before)
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        initialize_config_dir(version_base="1.3", config_dir=str(main.CONF))


def call(words: tuple[str, ...], folder: Path, runs: bool = False, wholly: bool = False) -> Seen:
    """What `python train.py WORDS` does.

    Args:
        words: of the command line.
        folder: for outputs, empty.
        runs: whether to run it to its end, and not only up to where a run folder is made.
        wholly: whether by Hydra's own door, for flags, sweeps and words that main itself refuses.
    """
    if not any(word.startswith("output_dir=") for word in words):
        words = (*words, f"output_dir={folder}")
    out, err = io.StringIO(), io.StringIO()
    act = complete if wholly else reader().run
    before = signal.signal(signal.SIGALRM, alarmed)
    signal.alarm(SECONDS)
    status: int | str | None = None
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            contextlib.nullcontext() if runs else up_to_the_run(),
        ):
            act(words)
        status = 0
    except Begins:
        return Seen("accepted") if not left(folder) else Seen("defect", "left files behind")
    except TooSlow:
        return Seen("defect", f"takes more than {SECONDS} s")
    except SystemExit as ended:
        status = ended.code
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a panic of a library in Rust is no Exception
        return Seen("defect", f"{type(error).__name__}: {error}")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return judge(status, err.getvalue().strip(), folder, runs)


def judge(status: int | str | None, printed: str, folder: Path, runs: bool) -> Seen:
    """The kind of an outcome, by its status, what was printed, and the files that it left."""
    lines = printed.splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    message = "\n".join(lines[errors[0] :]) if errors else printed
    if "Traceback" in printed:
        return Seen("defect", f"traceback: {' | '.join(lines[-3:])}")
    if status in (0, None):
        return Seen("accepted")
    if status != main.USER_ERROR:
        return Seen("defect", f"status {status}: {' | '.join(lines[-3:])}")
    if not errors or len(lines) - errors[0] > LINES or len(message) > LONGEST:
        return Seen("defect", f"refused in {len(lines)} lines, {len(message)} characters: {message[:300]}")
    if left(folder) and not runs:
        return Seen("defect", f"refused, but left {left(folder)[0]}: {message}")
    return Seen("refused", message.removeprefix("error: "))


def left(folder: Path) -> list[str]:
    """The files below a folder, and those in the working directory."""
    return [str(path) for path in (*folder.rglob("*"), *Path(os.getcwd()).iterdir())]


def short(line: Line) -> tuple[str, ...]:
    """The words of an accepted training, with one step in the place of its length."""
    limits = {
        "trainer.max_epochs": "1",
        "trainer.max_steps": "1",
        "trainer.check_val_every_n_epoch": "1",
        "trainer.val_check_interval": "null",
        "trainer.limit_val_batches": "1",
        "trainer.limit_test_batches": "1",
    }
    own = line.key.removeprefix("+")
    return (*line.words, *(f"{key}={value}" for key, value in limits.items() if key != own))
