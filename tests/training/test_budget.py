"""Limits of time and tokens end a run, at the end of its learning-rate schedule."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch

from warmstart.training.budget import Budget, Stopwatch, seconds
from warmstart.training.callbacks.curves import Curves
from warmstart.training.schedule import wsd

RATE = 0.01
WORDS = (
    "stage=pretrain",
    "visualization=[]",
    "scheduler=wsd",
    "trainer.log_every_n_steps=1",
    "trainer.check_val_every_n_epoch=null",
    "trainer.val_check_interval=50",
    f"optimizer.lr={RATE}",
)


def rates(run: Path) -> list[float]:
    with open(run / "metrics.csv", newline="") as stream:
        return [float(row["value"]) / RATE for row in csv.DictReader(stream) if row["name"] == "learning_rate"]


def spent(run: Path) -> float:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["Budget"]["seconds"]


def test_tokens_become_steps_and_the_schedule_ends_with_them(cli):
    outcome = cli(*WORDS, "trainer.max_epochs=-1", "trainer.max_tokens=3000", "data.batch_size=32")
    assert outcome.status == 0, outcome.err
    assert outcome.record("pretrain")["cost"]["steps"] == 3000 // 32  # digits have no tokens: examples are counted
    factors = rates(outcome.run("pretrain"))
    assert max(factors) == pytest.approx(1)
    assert factors[-1] == pytest.approx(0)


def test_accumulated_batches_count_each(cli):
    words = ("trainer.max_tokens=1500", "trainer.accumulate_grad_batches=2", "data.batch_size=32")
    outcome = cli(*WORDS, "trainer.max_epochs=-1", *words)
    assert outcome.status == 0, outcome.err
    assert outcome.record("pretrain")["cost"]["steps"] == 1500 // 64


def test_the_limit_that_comes_first_holds(cli):
    outcome = cli(*WORDS, "trainer.max_epochs=1", "trainer.max_tokens=1e9", "trainer.max_time=01:00:00")
    assert outcome.status == 0, outcome.err
    factors = rates(outcome.run("pretrain"))
    assert outcome.record("pretrain")["cost"]["steps"] == len(factors) < 50
    assert factors[-1] == pytest.approx(0)


@pytest.mark.parametrize("epochs", [-1, 1_000_000])
def test_the_schedule_ends_with_the_time(epochs: int, cli):
    outcome = cli(*WORDS, f"trainer.max_epochs={epochs}", "trainer.max_time=1.5")
    assert outcome.status == 0, outcome.err
    run = outcome.run("pretrain")
    factors = rates(run)
    assert max(factors) == pytest.approx(1)
    assert factors[-1] < 0.5  # a step is some hundredth of the time that the decay takes; a busy machine stalls
    assert 1.5 <= spent(run) < 3


def test_a_resumed_run_has_the_time_that_was_left(cli, monkeypatch: pytest.MonkeyPatch):
    original = Curves.on_train_batch_end

    def interrupting(self, trainer, *args):
        original(self, trainer, *args)
        (budget,) = (callback for callback in trainer.callbacks if isinstance(callback, Budget))
        if budget.stopwatch.seconds > 0.9 and trainer.global_step % 50 == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Curves, "on_train_batch_end", interrupting)
        stopped = cli(*WORDS, "trainer.max_epochs=1_000_000", "trainer.max_time=1.5")
    assert stopped.status == 130
    run = stopped.run("pretrain")
    before, steps = spent(run), len(rates(run))
    assert 0.5 < before < 1.5
    resumed = cli("stage=pretrain", f"resume={run}")
    assert resumed.status == 0, resumed.err
    factors = rates(run)
    assert len(factors) > steps
    assert 1.5 <= spent(run) < 3
    assert factors[-1] < 0.5
    assert all(later <= earlier for earlier, later in zip(factors[steps:], factors[steps + 1 :]))


def test_a_schedule_follows_whichever_limit_is_nearer():
    budget = Budget(max_time="00:01:40")
    budget.stopwatch = Stopwatch(elapsed=90.0)
    assert budget.by_time(wsd)(7, math.inf) == pytest.approx(0.5)
    assert budget.by_time(wsd)(95, 100) == pytest.approx(wsd(95, 100))
    assert budget.by_time(wsd)(5, 100) == pytest.approx(0.5)


def test_validation_does_not_count():
    watch = Stopwatch()
    watch.start()
    watch.stop()
    stopped = watch.seconds
    assert watch.seconds == stopped
    watch.start()
    watch.start()
    assert watch.seconds >= stopped


def test_times_are_read_and_nonsense_is_refused(cli):
    assert seconds("01:02:03") == 3723
    assert seconds(90) == 90
    for value in ("00:00:00", "0", "-3", "10:00", "soon"):
        refused = cli("stage=pretrain", f"trainer.max_time={value}")
        assert refused.status == 2
        assert "trainer.max_time" in refused.error
        assert "hours:minutes:seconds" in refused.error
    endless = cli("stage=pretrain", "trainer.max_epochs=-1")
    assert endless.status == 2
    assert "trainer has no limit" in endless.error
    assert "trainer.max_tokens" in endless.error
    unknown = cli("stage=pretrain", "trainer.max_time=10", "snapshots=2")
    assert unknown.status == 2
    assert "remove trainer.max_time" in unknown.error
