"""strategy=auto: uses labelled rows only, stays within its cost, reports confidence, runs normally."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from warmstart import main
from warmstart.config.rewrite import merged
from warmstart.core.batch import Splits
from warmstart.core.errors import CannotBatch, UserError, WriteError
from warmstart.data.sources.image.digits import Digits
from warmstart.run.lock import Lock
from warmstart.run.manifest import Manifest
from warmstart.stages.runner import StageRunner
from warmstart.strategy.auto import Auto, Entry, lower_bound, ranked
from warmstart.strategy.full import Full
from warmstart.strategy.lp_ft import LPFT
from warmstart.sweep import launch
from warmstart.sweep.plan import Composer, grid
from warmstart.sweep.schedule import Rules
from warmstart.training.callbacks.curves import Curves
from warmstart.vmap.eligibility import check_config

START = ("stage=finetune", "init=scratch", "visualization=[]")
LENGTH = ("trainer.max_epochs=-1", "trainer.max_steps=16", "trainer.check_val_every_n_epoch=null")
SMALL = (*START, *LENGTH, "trainer.val_check_interval=4", "data.labels_per_class=3", "optimizer.lr=0.01")
PAIR = ("strategy=auto", "strategy.candidates=[lp_ft,full]", "strategy.rates=[1]")


def read(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def jobs(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("selection/runs/*/run.json"))}


def make(candidates: Sequence[str] = ("lp_ft", "full"), rates: Sequence[float] = (1.0,), cost: float = 3.0) -> Auto:
    options = {"lp_ft": LPFT(), **{name: Full() for name in ("full", "a", "b", "c", "d", "e")}}
    return Auto(options, list(candidates), list(rates), cost)


def scrambled(load: Callable[..., Splits]) -> Callable[..., Splits]:
    """The same rows, of which those that validate and test have the labels of others."""

    def call(*args) -> Splits:
        splits = load(*args)
        for rows in (splits.validation, splits.test):
            rows.y = np.random.default_rng(0).permutation(rows.y)
        return splits

    return call


def test_the_run_is_that_of_the_strategy_taken_by_labelled_rows_alone(cli, monkeypatch: pytest.MonkeyPatch):
    outcome = cli(*SMALL, *PAIR)
    assert outcome.status == 0, outcome.err
    folder, record = outcome.run("finetune"), outcome.record("finetune")
    auto, tried = record["auto"], jobs(folder)
    assert f"selects {auto['strategy']}" in outcome.err
    assert "3.00 times the examples of the final run" in outcome.out
    assert "warmstart.strategy.auto" in (folder / "config.yaml").read_text()
    assert [len(row["scores"]) for row in auto["tried"]] == [3, 3]
    scores = {row["strategy"]: row["scores"] for row in auto["tried"]}
    gains = [theirs - ours for theirs, ours in zip(scores["full"], scores["lp_ft"])]
    assert auto["gain"]["by_fold"] == pytest.approx(gains)
    assert len(tried) == 6
    assert auto["selection_steps"] == sum(job["cost"]["steps"] for job in tried.values())
    assert auto["selection_examples"] == sum(job["cost"]["examples"] for job in tried.values())
    assert 2 < auto["cost"] == auto["selection_examples"] / record["cost"]["examples"] <= 3
    assert 0 < auto["seconds"] < record["cost"]["seconds"]
    assert not [name for job in tried.values() for name in job["metrics"] if name.startswith("test/")]
    assert not list(folder.glob("selection/runs/*/checkpoints")) + list(folder.glob("selection/runs/*/model"))
    assert len((folder / "selection" / "candidates.csv").read_text().splitlines()) == 3

    alone = cli(*SMALL, f"strategy={auto['strategy']}", f"optimizer.lr={auto['lr']}").record("finetune")
    assert alone["weights_sha256"] == record["weights_sha256"]
    assert cli("stage=evaluate", f"run={folder}").status == 0

    monkeypatch.setattr(Digits, "load", scrambled(Digits.load))
    other = cli(*SMALL, *PAIR).record("finetune")
    assert other["metrics"] != record["metrics"]
    for key in ("tried", "strategy", "lr", "why", "gain"):
        assert other["auto"][key] == auto[key]


def test_a_run_interrupted_during_or_after_the_selection_repeats_no_job(cli, monkeypatch: pytest.MonkeyPatch):
    first = cli(*SMALL, *PAIR).run("finetune")
    original, steps = Curves.on_train_batch_end, 0

    def interrupting(self, *args):
        nonlocal steps
        original(self, *args)
        steps += 1
        if steps in (30, 84):
            raise KeyboardInterrupt

    monkeypatch.setattr(Curves, "on_train_batch_end", interrupting)
    words = (*SMALL, *PAIR)
    for done in (2, 6):
        stopped = cli(*words)
        assert stopped.status == 130
        folder = next(path for path in stopped.runs("finetune") if path != first)
        before = {name: job["id"] for name, job in jobs(folder).items() if job["status"] == "done"}
        assert len(before) == done
        words = ("stage=finetune", f"resume={folder}")
    assert "auto" in read(folder)
    resumed = cli(*words)
    assert resumed.status == 0, resumed.err
    assert len(resumed.runs("finetune")) == 2
    assert {name: job["id"] for name, job in jobs(folder).items()} == before
    one, two = read(first), read(folder)
    assert two["weights_sha256"] == one["weights_sha256"]
    assert two["auto"]["tried"] == one["auto"]["tried"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("data.labels_per_class=1",), "only one labelled row"),
        (("trainer.max_steps=8",), "a run of 8 steps is too short"),
        (("strategy.candidates=[lp_ft]",), "the only candidate"),
    ],
)
def test_without_a_selection_lp_ft_is_used_with_a_message(words: tuple[str, ...], why: str, cli):
    outcome = cli(*SMALL, *PAIR, *words)
    assert outcome.status == 0, outcome.err
    auto = outcome.record("finetune")["auto"]
    assert (auto["strategy"], auto["lr"], auto["tried"], auto["selection_steps"]) == ("lp_ft", 0.01, [], 0)
    assert why in auto["why"]
    assert why in outcome.err


def test_an_incompatible_candidate_is_reported_and_dropped(cli):
    words = (*SMALL, *PAIR, "strategy.options.partial.blocks=9")
    outcome = cli(*words, "strategy.candidates=[partial,full]")
    assert outcome.status == 0, outcome.err
    auto = outcome.record("finetune")["auto"]
    assert auto["strategy"] == "full"
    assert [row["error"] is None for row in auto["tried"]] == [False, True]
    assert "failed" in outcome.out
    refused = cli(*words, "strategy.candidates=[partial]", "strategy.rates=[1,2]")
    assert refused.status == 2
    assert "no candidate could be trained" in refused.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("strategy.candidates=[lp_ft,ful]",), "there is no ful; there are: bitfit, full"),
        (("strategy.candidates=[]",), "strategy.candidates=[]: give"),
        (("strategy.rates=[]",), "strategy.rates=[]: give"),
        (("strategy.rates=[0]",), "strategy.rates=[0]: must be a list"),
        (("strategy.cost=0.2",), "strategy.cost=0.2 buys 4 steps"),
        (("data.folds=3",), "remove data.folds"),
        (("trainer.max_time=10",), "which trainer.max_time does not give"),
    ],
)
def test_invalid_candidates_are_refused_in_a_line_without_a_run(words: tuple[str, ...], message: str, cli):
    refused = cli(*SMALL, *PAIR, *words)
    assert refused.status == 2
    assert message in refused.error
    assert len(refused.error.splitlines()) <= 2
    assert not refused.runs("finetune")


def test_a_job_of_a_sweep_selects_in_its_own_process_outside_of_vmap_groups(tmp_path: Path):
    (job,) = grid(Composer([main.CONF]), [*SMALL, *PAIR])
    with pytest.raises(CannotBatch, match="strategy=auto"):
        check_config(merged(job.config))
    manifest = Manifest(tmp_path / "sweep", "finetune", "digits", [], "val/accuracy", "max", {}, [job])
    manifest.write()
    launch.run(manifest, {"workers": 0, "together": 8}, Rules(), StageRunner())
    record = manifest.record(job.name)
    assert record["status"] == "done"
    assert record["auto"]["selection_steps"] > 0


def test_the_selection_stays_within_its_cost():
    for names in (("lp_ft", "full"), ("full", "a", "b", "c"), ("lp_ft", "a", "b", "c", "d", "e")):
        for rates in ((1.0,), (1.0, 3.0), (0.1, 0.3, 1.0, 3.0)):
            for steps in (16, 20, 100, 5000):
                try:
                    rungs = make(names, rates).plan(steps, 10 * steps, lambda examples: int(examples / 8))
                except UserError:
                    assert steps <= 20
                    continue
                used = sum(rung.size * len(rung.folds) * rung.steps * 8 / 10 for rung in rungs)
                assert used <= 3 * steps
                assert steps < 100 or used > 2.8 * steps
                assert all(4 <= rung.steps <= steps for rung in rungs)
    assert make(rates=(0.1, 1.0, 3.0, 10.0)).plan(16, 16, int)[0].size < 8


def test_a_row_left_over_by_the_batches_of_a_fold_is_paid_for_too(cli):
    words = (*START, *LENGTH, "trainer.val_check_interval=16", "data.labels_per_class=5", "data.batch_size=32")
    taken = cli(*words, *PAIR).record("finetune")["auto"]
    assert taken["run_examples"] == 8 * 50  # batches of 32 and 18
    assert 2 < taken["cost"] <= 3  # folds of 33 rows are one batch each


def test_another_strategy_is_taken_only_where_its_gain_is_sure():
    auto, safe, other = make(), Entry("lp_ft", 1.0), Entry("full", 1.0)

    def taken(theirs: list[float], ours: list[float], mode: str = "max") -> str:
        scores = {other: theirs, safe: ours}
        return auto.decide(ranked(scores, mode), scores, mode, 3).entry.strategy

    assert taken([0.9, 0.8, 0.85], [0.7, 0.62, 0.66]) == "full"
    assert taken([0.9, 0.6, 0.7], [0.7, 0.62, 0.66]) == "lp_ft"
    assert taken([0.6, 0.5, 0.55], [0.7, 0.62, 0.66]) == "lp_ft"
    assert taken([0.75, 0.75, 0.75], [0.5, 0.5, 0.5]) == "lp_ft"  # gains that are all equal say nothing of their spread
    assert taken([0.7, 0.62, 0.66], [0.9, 0.8, 0.85], "min") == "full"
    assert lower_bound([0.2, 0.18, 0.19], 0.5) == pytest.approx(0.19 - 1.8856 * 0.01 * (1 / 3 + 0.5) ** 0.5, abs=1e-5)


def test_the_last_rung_is_the_safe_strategy_against_the_best_other():
    auto = make(("lp_ft", "a", "b"), (1.0, 3.0))
    alive = [Entry("a", 3.0), Entry("a", 1.0), Entry("b", 1.0), Entry("lp_ft", 3.0), Entry("lp_ft", 1.0)]
    assert auto.promote(alive, 2) == [Entry("a", 3.0), Entry("lp_ft", 3.0)]
    assert auto.promote(alive, 3) == [Entry("a", 3.0), Entry("a", 1.0), Entry("lp_ft", 3.0)]
    scores = {Entry("a", 3.0): [0.5], Entry("a", 1.0): [0.5], Entry("b", 1.0): None}
    assert ranked(scores, "max") == [Entry("a", 1.0), Entry("a", 3.0)]


def test_a_full_disk_during_the_selection_ends_the_run_and_eliminates_no_candidate(
    cli, monkeypatch: pytest.MonkeyPatch
):
    first = cli(*SMALL, *PAIR).run("finetune")
    original, steps = Curves.on_train_batch_end, 0

    def on_a_full_disk(self, *args):
        nonlocal steps
        original(self, *args)
        steps += 1
        if steps == 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.csv")

    monkeypatch.setattr(Curves, "on_train_batch_end", on_a_full_disk)
    stopped = cli(*SMALL, *PAIR)
    assert stopped.status == 1
    assert "cannot write metrics.csv: No space left on device" in stopped.error
    (folder,) = [path for path in stopped.runs("finetune") if path != first]
    assert sorted(job["status"] for job in jobs(folder).values()) == ["done", "done", "failed"]
    resumed = cli("stage=finetune", f"resume={folder}")
    assert resumed.status == 0, resumed.err
    assert read(folder)["auto"]["tried"] == read(first)["auto"]["tried"]


def test_a_job_of_the_selection_that_cannot_be_started_ends_the_run(cli, monkeypatch: pytest.MonkeyPatch):
    beat = Lock.beat

    def beat_outside_of_the_race(self):
        if "selection" in self.path.parts:
            raise WriteError(self.path, "No space left on device")
        beat(self)

    monkeypatch.setattr(Lock, "beat", beat_outside_of_the_race)
    stopped = cli(*SMALL, *PAIR)
    assert stopped.status == 1
    assert "lock: No space left on device" in stopped.error
    assert stopped.record("finetune")["status"] == "failed"
