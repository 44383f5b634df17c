"""`extend=RUN` continues a finished training for longer; `resume=auto` finds the run of its command line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from tests.records import change_run
from tests.stages.test_resume import stop_at

from warmstart.run.folder import RunFolder

WORDS = ("visualization=[]", "scheduler=constant")
SHORT = ("stage=pretrain", *WORDS, "trainer.max_steps=40")


def weights(outcome, stage: str = "pretrain") -> str:
    return outcome.record(stage)["weights_sha256"]


@pytest.mark.parametrize(
    "words",
    [
        ("stage=pretrain", "feature_rows=0"),
        ("stage=finetune", "init=scratch", "trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=10"),
    ],
)
def test_an_extended_run_equals_one_of_that_length(words: tuple[str, ...], command: Callable, tmp_path):
    stage = words[0].removeprefix("stage=")
    longer = command(*words, *WORDS, "trainer.max_steps=70", output_dir=tmp_path / "longer")
    short = command(*words, *WORDS, "trainer.max_steps=40")
    source = short.run(stage)
    before = (source / "run.json").read_bytes()
    extended = command(f"extend={source}", "trainer.max_steps=70")
    assert extended.status == 0, extended.err
    assert "learning rates are those of the schedule over this length" in extended.err
    assert weights(extended, stage) == weights(longer, stage)
    record = extended.record(stage)
    assert record["extends"]["id"] == source.name
    assert record["cost"]["steps"] == 70
    assert (source / "run.json").read_bytes() == before


def test_the_learning_rate_follows_the_longer_schedule(command: Callable):
    words = ("stage=pretrain", "visualization=[]", "scheduler=cosine", "trainer.log_every_n_steps=1")
    source = command(*words, "trainer.max_steps=20").run("pretrain")
    run = command(f"extend={source}", "trainer.max_epochs=2").run("pretrain")
    rows = (line.split(",") for line in (run / "metrics.csv").read_text().splitlines())
    rates = {int(row[0]): float(row[2]) for row in rows if row[1] == "learning_rate"}
    assert rates[20] < 1e-5 < rates[21] < rates[1]
    assert rates[40] < 1e-5


def test_what_cannot_be_extended(command: Callable, cli: Callable):
    source = command(*SHORT).run("pretrain")

    def error(*words: str) -> str:
        ended = command(*words)
        assert ended.status == 2
        assert len(ended.err.splitlines()) <= 2, ended.err
        return ended.err

    assert "needs a length" in error(f"extend={source}")
    assert "has 40 already" in error(f"extend={source}", "trainer.max_steps=40")
    assert "remove seed=1" in error(f"extend={source}", "trainer.max_steps=50", "seed=1")
    assert "no such folder" in error(f"extend={source}x", "trainer.max_steps=50")
    assert "for a single run" in error("-m", f"extend={source}", "trainer.max_steps=50")
    change_run(source, status="interrupted")
    assert f"resume={source}" in error(f"extend={source}", "trainer.max_steps=50")
    change_run(source, status="done")
    os.remove(source / "checkpoints" / "last.ckpt")
    assert "has no checkpoints/last.ckpt" in error(f"extend={source}", "trainer.max_steps=50")


def test_resume_auto_starts_resumes_and_leaves_the_run_of_its_command_line(
    command: Callable, monkeypatch: pytest.MonkeyPatch
):
    words = (*SHORT, "resume=auto")
    with monkeypatch.context() as patch:
        stop_at(patch, 30)
        stopped = command(*words)
    assert stopped.status == 130
    (run,) = stopped.runs("pretrain")
    other = command(*SHORT, "seed=1", "resume=auto")
    assert len(other.runs("pretrain")) == 2
    resumed = command(*words)
    assert resumed.status == 0, resumed.err
    assert len(resumed.runs("pretrain")) == 2
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    again = command(*words)
    assert again.status == 0
    assert "nothing is left to do" in again.err
    change_run(run, status="running")
    folder = RunFolder.open(run)
    folder.hold()
    try:
        held = command(*words)
    finally:
        folder.lock.release()
    assert held.status == 2
    assert "is running it" in held.err
    assert "for a single run" in command("-m", *words).err
