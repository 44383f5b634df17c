"""The strongest control and the initial weights without finetuning in the headline of a report."""

from __future__ import annotations

import json

import numpy as np
from omegaconf import OmegaConf
from tests.records import change_run
from tests.report import conftest

from warmstart.report.runs import read_transfer
from warmstart.report.transfer import summarize, write_report


def scores(mean: float, seed: int, seeds: int = 6) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.random((seeds, 1500)) < mean + rng.normal(0, 0.01, (seeds, 1))) * 1.0


def validated(folder, **means: float) -> None:
    """Set the validation score of all runs of an arm."""
    for path in (folder / "runs").glob("*-seed*"):
        arm = path.name.split("-")[0]
        if arm in means:
            record = json.loads((path / "run.json").read_text())
            change_run(path, metrics={**record["metrics"], "val/accuracy": means[arm]})


def test_the_strongest_control_is_selected_on_validation_and_joins_the_family(made):
    cells = {
        (arm, "steps", labels): scores(mean + 0.001 * labels, seed=labels + number)
        for number, (arm, mean) in enumerate(
            {"pretrained": 0.8, "scratch": 0.6, "linear": 0.7, "trivial": 0.1, "shuffled": 0.6}.items()
        )
        for labels in (1, 50)
    }
    folder = made(cells)
    validated(folder, linear=0.7, scratch=0.6, trivial=0.95, shuffled=0.9)
    report = write_report(folder)
    rows = [row for row in report["verdicts"] if row["role"]]
    assert [(row["arm"], row["against"], row["labels"]) for row in rows] == [
        ("pretrained", "linear", 1),
        ("pretrained", "linear", 50),
    ]
    smallest = min(report["verdicts"], key=lambda row: row["p"])
    assert smallest["p_holm"] == min(1.0, 6 * smallest["p"])  # of all six comparisons
    first, second = report["headline"]["sentence"].split(". ", 1)
    assert first.startswith("Pretraining, at equal steps, on 1,500 test rows: helps with 1 and 50 labels per class")
    assert second.startswith("Against the strongest control (linear), pretraining is better with 1 and 50 labels")
    assert report["headline"]["against"] == "scratch"
    assert "linear (strongest control)" in (folder / "report.md").read_text()
    validated(folder, linear=0.5)  # now scratch is, whatever the test scores are
    report = summarize(read_transfer(folder))
    assert not [row for row in report["verdicts"] if row["role"]]
    assert report["headline"]["sentence"].endswith("scratch is the strongest control.")


def test_a_baseline_named_by_a_string_is_read(made, monkeypatch):
    monkeypatch.setitem(conftest.ARM, "trivial", {"baseline": "majority"})
    monkeypatch.setitem(conftest.ARM, "linear", {"baseline": "linear"})
    cells = {(arm, "steps", 1): scores(0.7, 1) for arm in ("pretrained", "scratch", "linear", "trivial")}
    folder = made(cells)
    validated(folder, trivial=0.9, linear=0.8, scratch=0.7)
    assert [row["against"] for row in summarize(read_transfer(folder))["verdicts"] if row["role"]] == ["linear"]


def test_an_arm_with_one_finished_run_is_no_strongest_control(made):
    cells = {(arm, "steps", 1): scores(0.7, 1) for arm in ("pretrained", "scratch", "linear")}
    folder = made(cells)
    validated(folder, linear=0.9, scratch=0.6)
    assert [row["against"] for row in summarize(read_transfer(folder))["verdicts"]] == ["scratch", "linear"]
    for seed in range(1, 6):
        change_run(folder / "runs" / f"linear-steps-1-seed{seed}", status="interrupted")
    assert [row["against"] for row in summarize(read_transfer(folder))["verdicts"]] == ["scratch"]


def test_a_loss_against_the_strongest_control_comes_first(made):
    cells = {("pretrained", "steps", 1): scores(0.8, 1), ("scratch", "steps", 1): scores(0.6, 2)}
    cells |= {("linear", "steps", 1): scores(0.5, 3), ("pretrained", "steps", 50): scores(0.8, 4)}
    cells |= {("scratch", "steps", 50): scores(0.7, 5), ("linear", "steps", 50): scores(0.9, 6)}
    report = summarize(read_transfer(made(cells)))
    sentence = report["headline"]["sentence"]
    assert sentence.startswith(
        "Against the strongest control (scratch with 1 label per class, linear with 50 labels per class), "
        "pretraining is worse with 50 labels per class (-0."
    )
    assert "is better with 1 label per class" in sentence
    assert "Pretraining against scratch, at equal steps, on 1,500 test rows: helps" in sentence
    assert report["headline"]["verdict"] == "helps"  # of the first comparison


def test_the_untouched_start_is_no_control_and_has_its_own_sentence(made, monkeypatch):
    knn = {"baseline": {"_target_": "warmstart.baseline.knn.KNN"}, "init": "pretrained"}
    monkeypatch.setitem(conftest.ARM, "knn", OmegaConf.to_container(OmegaConf.create(knn)))
    cells = {("pretrained", "steps", 1): scores(0.8, 1), ("scratch", "steps", 1): scores(0.6, 2)}
    cells |= {("knn", "steps", 1): scores(0.85, 3)}
    report = summarize(read_transfer(made(cells)))
    (row,) = [row for row in report["verdicts"] if row["role"]]
    assert (row["role"], row["against"], row["verdict"]) == ("untouched", "knn", "hurts")
    main, other = report["headline"]["sentence"].split(". ", 1)
    assert main.startswith("Pretraining, at equal steps, on 1,500 test rows: helps")
    assert other.startswith(
        "Against the initial weights without finetuning (knn), finetuning is worse with 1 label per class (-0."
    )


def test_a_probe_against_the_untouched_start_is_no_finetuning(made, monkeypatch):
    knn = {"baseline": {"_target_": "warmstart.baseline.knn.KNN"}, "init": "pretrained"}
    monkeypatch.setitem(conftest.ARM, "knn", knn)
    cells = {(arm, "steps", 1): scores(0.8, seed) for seed, arm in enumerate(("probe", "random_probe", "knn"))}
    sentence = summarize(read_transfer(made(cells)))["headline"]["sentence"]
    assert "Against the initial weights without finetuning (knn), the arm probe " in sentence


def test_too_few_seeds_say_nothing_about_controls(made):
    cells = {(arm, "steps", 1): scores(0.7, seed, 3) for seed, arm in enumerate(("pretrained", "scratch", "linear"))}
    assert summarize(read_transfer(made(cells)))["headline"]["sentence"].startswith(
        "No verdict: 3 paired seeds are too few"
    )
