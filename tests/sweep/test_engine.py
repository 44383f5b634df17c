"""Sweeps: folder and tables, failed jobs, interruption and resuming."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tests.conftest import Outcome
from tests.records import change_run

from warmstart.core.errors import UserError
from warmstart.sweep import engine

ROOT = Path(__file__).parents[2]
CALM: list[tuple[Path, Outcome]] = []
WORDS = ("stage=finetune", "init=scratch", "visualization=[]", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")

LOSSES = """
import os, signal
import torch
from warmstart.loss import accepts
from warmstart.loss.cross_entropy import cross_entropy

def spoil(how):
    calls = 0

    @accepts("category")
    def loss(outputs, targets):
        nonlocal calls
        calls += 1
        value = cross_entropy(outputs, targets)
        return how(value) if calls > 5 else value
    return loss

def explode(value):
    raise RuntimeError("boom [red]")

def starve(value):
    raise MemoryError("no memory for this")

def die(value):
    os.kill(os.getpid(), signal.SIGKILL)

raises, hungry, killed = spoil(explode), spoil(starve), spoil(die)
diverges = spoil(lambda value: value * torch.nan)
"""


def sweep_of(output_dir: Path) -> Path:
    (folder,) = output_dir.glob("sweep/*/*/*")
    return folder


def records(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("runs/*/run.json"))}


def numbers(folder: Path) -> pd.DataFrame:
    table = pd.read_csv(folder / "jobs.csv")
    return table.drop(columns=["seconds"])


@pytest.fixture
def sweep(command: Callable[..., Outcome]) -> Callable[..., Outcome]:
    """A sweep whose jobs run in this process."""

    def call(*words: str, output_dir: Path | None = None) -> Outcome:
        return command("-m", *words, "hydra.launcher.workers=0", output_dir=output_dir)

    return call


@pytest.fixture
def calm(sweep: Callable[..., Outcome], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A sweep of four jobs that was never disturbed, run once."""
    if not CALM:
        out = tmp_path_factory.mktemp("calm") / "outputs"
        done = sweep(*WORDS, "loss=cross_entropy,focal", "seed=0,1", output_dir=out)
        assert done.status == 0, done.err
        CALM.append((sweep_of(out), done))
    return CALM[0]


def test_every_job_is_a_run_folder_and_the_tables_say_how_they_did(calm):
    folder, done = calm
    runs = records(folder)
    plan = {job["name"]: job for job in json.loads((folder / "manifest.json").read_text())["jobs"]}
    assert len(runs) == len({record["id"] for record in runs.values()}) == 4
    for name, record in runs.items():
        assert record["status"] == "done"
        assert record["config_sha256"] == plan[name]["sha256"]
        assert (folder / "runs" / name / "model" / "model.safetensors").exists()
    board = pd.read_csv(folder / "leaderboard.csv")
    for loss in ("cross_entropy", "focal"):
        scores = [runs[name]["metrics"]["val/accuracy"] for name, job in plan.items() if job["values"]["loss"] == loss]
        (row,) = board[board["loss"] == loss].to_dict("records")
        assert row["n"] == 2
        assert row["mean"] == pytest.approx(sum(scores) / 2)
    assert "focal" in done.out
    assert "4 of 4" in done.err
    assert (folder / "sweep.html").exists()


def test_a_job_alone_gives_the_same_numbers_as_in_a_sweep(calm, command):
    folder, _ = calm
    done = command(*WORDS, "loss=focal", "seed=1")
    assert done.status == 0, done.err
    alone = done.record("finetune")
    (inside,) = [record for name, record in records(folder).items() if "focal" in name and record["seed"] == 1]
    assert alone["metrics"] == inside["metrics"]
    assert alone["model_sha256"] == inside["model_sha256"]


def test_what_is_missing_is_run_and_nothing_twice(calm, command, tmp_path: Path):
    folder = tmp_path / "outputs" / "sweep"
    shutil.copytree(calm[0], folder)
    before = {name: record["id"] for name, record in records(folder).items()}
    names = list(before)
    shutil.rmtree(folder / "runs" / names[0])
    change_run(folder / "runs" / names[1], status="running")
    again = command("-m", f"sweep.resume={folder}", "hydra.launcher.workers=2")
    assert again.status == 0, again.err
    after = records(folder)
    assert {name for name in after if after[name]["id"] != before[name]} == {names[0]}
    assert [after[name]["sweep"]["attempts"] for name in names] == [1, 2, 1, 1]
    pd.testing.assert_frame_equal(numbers(folder), numbers(calm[0]))


def test_resuming_with_other_overrides_is_refused(calm, command, tmp_path: Path):
    folder = calm[0]
    for words, reason in (
        (("-m", f"sweep.resume={folder}", "optimizer.lr=0.5"), "remove optimizer.lr=0.5"),
        (("-m", f"sweep.resume={tmp_path}"), "no manifest.json"),
        ((f"sweep.resume={folder}",), "add -m"),
    ):
        outcome = command(*words)
        assert outcome.status == 2
        assert reason in outcome.error


@pytest.mark.parametrize(
    "words",
    [("sweep.retries=x",), ("sweep.retries=0,1",), ("sweep.resume=/tmp/a,/tmp/b",), ("hydra.launcher.workers=1.5",)],
    ids=lambda words: words[0],
)
def test_settings_of_a_sweep_are_checked_before_planning(words: tuple[str, ...], command):
    outcome = command("-m", *WORDS, "seed=0,1", *words)
    assert outcome.status == 2
    assert words[0].split("=")[0] in outcome.error
    assert len(outcome.err.splitlines()) <= 2
    assert not outcome.folder.exists()


def test_failing_jobs_leave_the_others_alone_and_are_shown(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    for name in ("raises", "hungry", "killed", "diverges"):
        (tmp_path / "conf" / "loss" / f"{name}.yaml").write_text(f"_target_: losses.{name}\n")
    (tmp_path / "losses.py").write_text(LOSSES)
    monkeypatch.syspath_prepend(tmp_path)
    words = (*WORDS, "loss=raises,hungry,killed,diverges,cross_entropy", "sweep.retries=1", "sweep.preflight=false")
    done = command("--config-dir", str(tmp_path / "conf"), "-m", *words)
    assert done.status == 3, done.err
    folder = sweep_of(done.folder)
    runs = {name.partition("-")[2]: record for name, record in records(folder).items()}
    assert {name: record["status"] for name, record in runs.items()} == {
        "raises": "failed",
        "hungry": "failed",
        "killed": "failed",
        "diverges": "failed",
        "cross_entropy": "done",
    }
    reasons = {
        "raises": "boom [red]",
        "hungry": "MemoryError",
        "killed": "SIGKILL",
        "diverges": "diverged: the training loss",
    }
    for name, reason in reasons.items():
        assert reason in runs[name]["error"]
        assert runs[name]["sweep"]["attempts"] == 2
        assert reason in done.err
    assert "Traceback" not in done.out + done.err
    (log,) = folder.glob("runs/*raises*/train.log")
    assert "Traceback" in log.read_text()
    assert "explode" in log.read_text()
    assert "4 jobs of 5 failed" in done.err


def test_jobs_trained_together_come_out_as_alone(calm, sweep):
    words = (*WORDS, "loss=cross_entropy,focal", "seed=0,1", "hydra/launcher=vmap")
    done = sweep(*words)
    assert done.status == 0, done.err
    folder = sweep_of(done.folder)
    assert "trained in a vmap group of 2 jobs" in next(folder.glob("runs/*/train.log")).read_text()
    alone, together = numbers(calm[0]), numbers(folder)
    pd.testing.assert_frame_equal(together[alone.columns], alone, rtol=1e-4)


def test_jobs_that_do_not_fit_a_vmap_group_are_run_alone_with_a_reason(sweep):
    words = (*WORDS, "backbone.dropout=0.1", "seed=0,1", "hydra/launcher=vmap")
    done = sweep(*words)
    assert done.status == 0, done.err
    assert "run one by one: backbone=mlp draws random numbers" in done.err
    runs = records(sweep_of(done.folder))
    assert [(record["status"], record["sweep"]["attempts"]) for record in runs.values()] == [("done", 1)] * 2


def test_lengths_in_the_file_of_a_sweep_count(sweep, monkeypatch: pytest.MonkeyPatch):
    def shown(config, loader, overrides, runner):
        raise UserError(" ".join(overrides))

    monkeypatch.setattr(engine, "plan", shown)
    error = sweep("sweep=loss_lr_epochs").error
    assert "trainer.max_epochs=5,20 trainer.min_steps=null" in error


def test_a_transfer_is_a_plan_for_the_same_engine(command):
    words = ("transfer.labels=[1]", "transfer.seeds=2", "trainer.max_steps=4", "trainer.val_check_interval=4")
    done = command(*words, "pretrain.trainer.max_epochs=1")
    assert done.status == 0, done.err
    folder = done.run("transfer")
    runs = records(folder)
    assert len(runs) == 1 + 9 * 2 + 2 * 2
    assert {record["status"] for record in runs.values()} == {"done"}
    assert "random_probe" in done.out
    assert "trained in a vmap group of 2 jobs" in (folder / "runs" / "probe-1-seed0" / "train.log").read_text()


def test_what_no_job_could_do_is_refused_before_the_first_starts(sweep):
    done = sweep(*WORDS, "loss=cross_entropy,mse", "seed=0,1")
    assert done.status == 2
    assert "loss=mse is incompatible with objective=classification" in done.err
    assert "no job was started" in done.err
    assert not done.folder.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "kill"])
def test_an_interrupted_sweep_prints_the_command_that_resumes_it(number: signal.Signals, tmp_path: Path):
    words = (*WORDS, "seed=0,1", "sweep.preflight=false", f"output_dir={tmp_path}", "trainer.max_epochs=100000")
    line = [sys.executable, str(ROOT / "train.py"), "-m", *words]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("sweep/*/*/*/runs/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as a terminal does
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else 75), err
    assert "Traceback" not in err
    folder = sweep_of(tmp_path)
    assert f"sweep.resume={folder}" in err
    assert [(record["status"], record["error"]) for record in records(folder).values()] == [
        ("interrupted", "interrupted by the user")
    ]


def test_a_missing_teacher_is_refused_before_the_first_job_starts(sweep):
    words = ("stage=pretrain", "objective=distill", "visualization=[]", "seed=0,1", "sweep.preflight=false")
    done = sweep(*words, "teacher=hf:/nowhere")
    assert done.status == 2
    assert "teacher=hf:/nowhere: there is no such folder" in done.err
    assert not done.folder.exists()
