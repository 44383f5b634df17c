"""Runs in several processes: the same batches and numbers as in one, also resumed with another number of them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import initialize_config_dir
from omegaconf import DictConfig
from safetensors.torch import load_file
from tests.distributed.several import in_processes, started

from warmstart.config.expand import CONF
from warmstart.config.pipeline import prepare
from warmstart.core.errors import UserError, WriteError
from warmstart.data.loader import GatherLoader
from warmstart.process import HeldLock
from warmstart.run.folder import RunFolder
from warmstart.stages import finetune, pretrain
from warmstart.training import processes

SMALL = (
    *("experiment=digits", "visualization=[]", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1"),
    *(
        "trainer.log_every_n_steps=1",
        "data.batch_size=64",
        "trainer.precision=32-true",
    ),
)
AUGMENTED = (
    *("stage=pretrain", "objective=contrastive", "backbone=resnet", "backbone.widths=[8,8]", "backbone.blocks=[1,1]"),
    *("data/augment=image", "optimizer=sgd", "optimizer.lr=0.002"),  # larger steps amplify rounding
)
TASK = ("stage=finetune", "init=scratch", "trainer.min_steps=null", "data.labels_per_class=10", "data.batch_size=17")


class Stop(pl.Callback):
    """Interrupts after some steps."""

    def __init__(self, steps: int):
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == self.steps:
            raise KeyboardInterrupt


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hash of the row numbers of each training batch of this process."""
    found: list[str] = []
    batch = GatherLoader.batch

    def noted(loader: GatherLoader, rows: Any, *part: Any) -> Any:
        if loader.seed is not None:
            found.append(hashlib.sha256(rows.numpy().tobytes()).hexdigest())
        return batch(loader, rows, *part)

    monkeypatch.setattr(GatherLoader, "batch", noted)
    return found


def train(config: DictConfig, path: Path, seen: list[str], count: int, *callbacks: pl.Callback) -> list[list[str]]:
    """Train the run in `path` in several processes; return the hashes that each has seen."""

    def in_one(rank: int) -> list[str]:
        run = RunFolder.open(path)
        run.lock = HeldLock(run.lock.path)
        try:
            stage_of(config, run, callbacks)
        except KeyboardInterrupt:
            assert callbacks
        return seen

    return in_processes(path.parent / f"processes{count}{len(callbacks)}", in_one, count)


def stage_of(config: DictConfig, run: RunFolder | None, callbacks: Sequence[pl.Callback] = ()) -> RunFolder:
    """Train a run as a process of a command does, which has the config files."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return (pretrain if config.stage == "pretrain" else finetune).train_run(config, run, callbacks)


def opened(config: DictConfig, folder: Path) -> Path:
    run = RunFolder.create(config, folder)
    run.lock.release()
    return run.path


def steps(path: Path) -> dict[tuple[str, int], float]:
    with open(path / "metrics.csv") as stream:
        return {(row["name"], int(row["step"])): float(row["value"]) for row in csv.DictReader(stream)}


def same(one: Path, other: Path) -> None:
    ours, theirs = steps(one), steps(other)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert theirs[key] == pytest.approx(value, rel=1e-5, abs=1e-4), key
    weights = load_file(other / "model" / "model.safetensors")
    for name, value in load_file(one / "model" / "model.safetensors").items():
        assert torch.allclose(weights[name].float(), value.float(), atol=1e-4), name


def test_a_pretraining_with_augmentation_and_batch_norm(composed: Callable[..., DictConfig], tmp_path: Path, seen):
    words = (*AUGMENTED, *SMALL, f"output_dir={tmp_path}")
    config = prepare(composed(*words), True)
    alone = stage_of(config, None).path
    order = seen.copy()
    seen.clear()
    path = opened(config, tmp_path / "two")
    for found in train(config, path, seen, 2):
        assert found == order
    same(alone, path)
    record = json.loads((path / "run.json").read_text())
    assert record["status"] == "done"
    assert {name: record["cost"][name] for name in ("steps", "examples")} == {"steps": 40, "examples": 2514}


def test_a_run_resumes_with_another_number_of_processes(composed: Callable[..., DictConfig], tmp_path: Path, seen):
    config = prepare(composed(*AUGMENTED[:1], *SMALL, "trainer.val_check_interval=10", f"output_dir={tmp_path}"), True)
    alone = stage_of(config, None).path
    order = seen.copy()
    seen.clear()
    path = opened(config, tmp_path / "some")
    train(config, path, seen, 2, Stop(13))
    assert json.loads((path / "run.json").read_text())["status"] == "interrupted"
    train(config, path, seen, 4, Stop(34))
    stage_of(config, RunFolder.open(path))
    assert seen == order[30:]
    same(alone, path)


def test_a_finetuning_and_its_test_scores(composed: Callable[..., DictConfig], tmp_path: Path, seen):
    config = prepare(composed(*TASK, *SMALL[:-2], f"output_dir={tmp_path}"), True)
    alone = stage_of(config, None).path
    path = opened(config, tmp_path / "two")
    train(config, path, seen, 2)
    same(alone, path)
    scores = [np.load(folder / "test_scores.npy") for folder in (alone, path)]
    assert np.array_equal(*scores)
    ours, theirs = (json.loads((folder / "run.json").read_text())["metrics"] for folder in (alone, path))
    assert theirs == pytest.approx(ours, abs=1e-4)


def errors(config: DictConfig, path: Path, change: Callable[[int], Any]) -> list[BaseException]:
    """The error of each of two processes, after `change` in each."""

    def in_one(rank: int) -> BaseException | None:
        found = change(rank) or config
        run = RunFolder.open(path)
        run.lock = HeldLock(run.lock.path)
        try:
            stage_of(found, run)
        except BaseException as error:
            return error
        return None

    return in_processes(path.parent / "processes", in_one)


def test_processes_with_other_code_or_without_the_data_end_with_one_line(
    composed: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = prepare(composed(*AUGMENTED[:1], *SMALL, f"output_dir={tmp_path}"), True)
    table = composed("stage=pretrain", "experiment=table", f"data.root={tmp_path / 'gone.csv'}", "data.target=y")

    def other_code(rank: int) -> None:
        monkeypatch.setattr(processes, "code_sha256", lambda: str(rank))

    found = errors(config, opened(config, tmp_path / "code"), other_code)
    assert [type(error) for error in found] == [UserError] * 2
    assert "process 1 has a different code" in str(found[0])
    found = errors(config, opened(config, tmp_path / "data"), lambda rank: table if rank else None)
    assert [type(error) for error in found] == [UserError] * 2
    assert str(found[0]).startswith("process 1: ")
    assert "gone.csv" in str(found[0])


def test_a_full_disk_of_the_first_process(composed: Callable[..., DictConfig], tmp_path: Path):
    config = prepare(composed(*AUGMENTED[:1], *SMALL, f"output_dir={tmp_path}"), True)
    path = opened(config, tmp_path / "full")

    def limit(rank: int) -> None:
        if rank == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2**18, 2**18))

    first, second = errors(config, path, limit)
    assert isinstance(first, WriteError)
    assert second is not None
    assert json.loads((path / "run.json").read_text())["status"] == "failed"
    stage_of(config, RunFolder.open(path))
    assert json.loads((path / "run.json").read_text())["status"] == "done"


def test_devices_start_processes_inside_a_sweep(command: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "start", started)
    swept = ("-m", "hydra.launcher.workers=0", "sweep.preflight=false", "trainer.devices=2", "seed=3")
    ended = command(*swept, "stage=pretrain", *SMALL)
    assert ended.status == 0, ended.err
    (run,) = (ended.folder / "sweep").rglob("run.json")
    assert json.loads(run.read_text())["status"] == "done"
    alone = command("stage=pretrain", *SMALL, "seed=3", output_dir=tmp_path / "alone")
    same(alone.run("pretrain"), run.parent)


def test_a_killed_process_ends_the_run_which_can_be_resumed(cli: Callable, tmp_path: Path):
    killer = os.fork()
    if killer == 0:
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline and not kill_second(tmp_path):
            time.sleep(0.05)
        os._exit(0)
    started = time.monotonic()
    ended = cli("stage=pretrain", *SMALL, "trainer.max_epochs=2000", "trainer.devices=2")
    os.kill(killer, 9)
    os.waitpid(killer, 0)
    assert ended.status == 1
    assert "process 1 of 2" in ended.err
    assert time.monotonic() - started < 90
    record = ended.record("pretrain")
    assert record["status"] == "failed"
    assert "process 1 of 2" in (ended.run("pretrain") / "train.log").read_text()
    config = RunFolder.open(ended.run("pretrain")).config()
    assert config.trainer.devices == 2


def kill_second(folder: Path) -> bool:
    """Kill the second process of a run in the folder once it has a checkpoint; return whether it did."""
    if not list(folder.rglob("last.ckpt")):
        return False
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, variables = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and b"warmstart.process" in words and b"\0RANK=1\0" in b"\0" + variables:
            os.kill(int(path.name), 9)
            return True
    return False


def test_processes_stop_together_when_the_time_is_over(composed: Callable[..., DictConfig], tmp_path: Path):
    words = (*AUGMENTED[:1], *SMALL, "trainer.max_epochs=-1", "trainer.max_time=1", "scheduler=cosine")
    config = prepare(composed(*words, f"output_dir={tmp_path}"), True)
    path = opened(config, tmp_path / "timed")
    first, second = train(config, path, [], 2)
    assert first == second
    assert json.loads((path / "run.json").read_text())["status"] == "done"
