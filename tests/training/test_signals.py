"""A signal during a training saves a checkpoint, from which a resumed run ends as an uninterrupted one."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from tests.stages.test_resume import assert_same_record

from warmstart.training.callbacks.curves import Curves
from warmstart.training.checkpoint import read_checkpoint
from warmstart.training.modules import FinetuneModule

# 100 rows are 4 batches per epoch, validated after the batches 6, 12 and 18 of 20.
WORDS = (
    *("stage=finetune", "init=scratch", "data.labels_per_class=10", "data.batch_size=32", "visualization=[]"),
    *("trainer.max_epochs=5", "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=6"),
    *("trainer.log_every_n_steps=1", "data/augment=shift", "backbone.dropout=0.1"),
)
ACCUMULATED = ("trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=1.0")
EPOCHS = ("trainer.check_val_every_n_epoch=2", "trainer.val_check_interval=1.0")


def send_at(monkeypatch: pytest.MonkeyPatch, signals: dict[int, signal.Signals | None]) -> None:
    """Send a signal during these batches, counted from 1; None raises an interrupt that saves nothing."""
    original = Curves.on_train_batch_end

    def sending(self, trainer, *args):
        original(self, trainer, *args)
        number = signals.get(trainer.fit_loop.total_batch_idx + 1, 0)
        if number is None:
            raise KeyboardInterrupt
        if number:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Curves, "on_train_batch_end", sending)


def send_in_validation(monkeypatch: pytest.MonkeyPatch, validation: int) -> None:
    original, count = FinetuneModule.validation_step, [0]

    def sending(self, batch, batch_idx):
        count[0] += batch_idx == 0
        if count[0] == validation:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(FinetuneModule, "validation_step", sending)


@pytest.fixture(autouse=True)
def handlers() -> None:
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGUSR1)]
    yield
    for number, handler in before:
        assert signal.getsignal(number) is handler


def saved_step(run: Path) -> int:
    return read_checkpoint(run / "checkpoints/last.ckpt")["global_step"]


@pytest.mark.parametrize(
    ("words", "batch", "saved"),
    [
        ((), 3, 3),  # before the first validation
        ((), 8, 9),  # the last of an epoch, without a validation
        ((), 20, 18),  # the last of the training: nothing is saved
        (EPOCHS, 8, 8),  # before the validation at the end of an epoch
        (ACCUMULATED, 10, 4),  # 2 steps per epoch; in the middle of the fifth
        (("strategy=lp_ft",), 11, 11),
    ],
)
def test_sigterm_saves_and_leaves_and_a_resumed_run_is_the_same(
    words: tuple[str, ...], batch: int, saved: int, cli, monkeypatch: pytest.MonkeyPatch
):
    first = cli(*WORDS, *words).run("finetune")
    with monkeypatch.context() as patch:
        send_at(patch, {batch: signal.SIGTERM})
        stopped = cli(*WORDS, *words)
    assert stopped.status == 75
    run = stopped.run("finetune")
    assert run != first
    assert "interrupted by SIGTERM" in stopped.err
    assert f"resume={run}" in stopped.err
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert saved_step(run) == saved
    resumed = cli(f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert_same_record(run, first)


@pytest.mark.parametrize(("validation", "words"), [(2, ("average=ema",)), (1, EPOCHS)])
def test_a_validation_that_sigterm_ends_is_repeated(
    validation: int, words: tuple[str, ...], cli, monkeypatch: pytest.MonkeyPatch
):
    words = (*WORDS, *words)
    first = cli(*words).run("finetune")
    with monkeypatch.context() as patch:
        send_in_validation(patch, validation)
        stopped = cli(*words)
    assert stopped.status == 75
    run = stopped.run("finetune")
    with monkeypatch.context() as patch:  # in the same epoch, after the repeated validation
        send_at(patch, {saved_step(run) + 2: signal.SIGTERM})
        assert cli(f"resume={run}").status == 75
    assert cli(f"resume={run}").status == 0
    assert_same_record(run, first)


def test_sigusr1_saves_and_goes_on(cli, monkeypatch: pytest.MonkeyPatch):
    first = cli(*WORDS).run("finetune")
    with monkeypatch.context() as patch:
        send_at(patch, {2: signal.SIGUSR1, 10: signal.SIGUSR1, 11: None})
        stopped = cli(*WORDS)
    run = stopped.run("finetune")
    assert [line for line in stopped.err.splitlines() if "SIGUSR1" in line] == [
        f"SIGUSR1: saved a checkpoint at step {step}" for step in (2, 10)
    ]
    assert saved_step(run) == 10
    with monkeypatch.context() as patch:
        send_at(patch, {13: signal.SIGUSR1})
        resumed = cli(f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert_same_record(run, first)


def test_ctrl_c_saves_too_and_a_second_one_stops_at_once(cli, monkeypatch: pytest.MonkeyPatch):
    send_at(monkeypatch, {9: signal.SIGINT})
    stopped = cli(*WORDS)
    assert stopped.status == 130
    assert saved_step(stopped.run("finetune")) == 9
    original = Curves.on_train_batch_end

    def twice(self, trainer, *args):
        original(self, trainer, *args)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Curves, "on_train_batch_end", twice)
    stopped = cli(*WORDS)
    assert stopped.status == 130
    assert not (stopped.run("finetune") / "checkpoints").exists()
