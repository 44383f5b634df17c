"""Fixtures: command lines in this process, so that torch is imported once."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tests.compositions import reused
from warmstart import main
from warmstart.config.expand import expand
from warmstart.config.validate import explain
from warmstart.core import screen
from warmstart.core.errors import UserError

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background
os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch is not loaded yet; a second thread only slows models this small

TENSORBOARD = OmegaConf.create({"tensorboard": {"_target_": "warmstart.training.logger.TensorBoard"}})
FAST = ("visualization=[]", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1")


@dataclass
class Outcome:
    """What a command left behind."""

    status: int
    out: str
    err: str
    folder: Path

    @property
    def error(self) -> str:
        return "\n".join(line for line in self.err.splitlines() if line.startswith("error:"))

    def runs(self, stage: str) -> list[Path]:
        return sorted(path.parent for path in (self.folder / stage).glob("*/*/run.json"))

    def run(self, stage: str) -> Path:
        return self.runs(stage)[-1]

    def record(self, stage: str) -> dict:
        return json.loads((self.run(stage) / "run.json").read_text())


@pytest.fixture(scope="session", autouse=True)
def compositions() -> Iterator[None]:
    with reused():
        yield


@pytest.fixture
def composed() -> Callable[..., DictConfig]:
    """The config that a command line composes to."""

    def call(*words: str) -> DictConfig:
        with initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)):
            return compose("train", overrides=expand(list(words)))

    return call


@pytest.fixture
def cli(tmp_path: Path, capfd: pytest.CaptureFixture) -> Callable[..., Outcome]:
    """`python train.py WORDS`, with its outputs in a temporary folder."""

    def call(*words: str, output_dir: Path | None = None) -> Outcome:
        folder = output_dir or tmp_path / "outputs"
        with initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)):
            try:
                typed = any(word.startswith("experiment=") for word in words)
                spelled = expand([*words, f"output_dir={folder}"])
                status = main.run(compose("train", overrides=spelled), typed)
            except (UserError, HydraException, OmegaConfBaseException) as error:
                screen.error(explain(error))
                status = main.USER_ERROR
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err, folder)

    return call


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """A complete command line in this process: flags, sweeps and printed output as in a process of its own."""

    def call(*words: str, output_dir: Path | None = None) -> Outcome:
        folder = output_dir or tmp_path / "outputs"
        monkeypatch.setattr(sys, "argv", ["train.py", *words, f"output_dir={folder}"])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        before = signal.getsignal(signal.SIGTERM)
        status = 0
        try:
            main.main()
        except SystemExit as left:
            status = left.code
        finally:
            signal.signal(signal.SIGTERM, before)
            GlobalHydra.instance().clear()
            HydraConfig.instance().cfg = None
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err, folder)

    return call
