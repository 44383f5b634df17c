"""The report on transfer.starts: ranking, starts without a significant difference, excluded starts, and the screen."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.records import change_run
from tests.report import conftest

from warmstart.report import paired
from warmstart.report.looks import nominal_levels
from warmstart.report.runs import read_transfer
from warmstart.report.starts import ranking_table
from warmstart.report.transfer import show, summarize, write_report
from warmstart.report.verdicts import compared_rows
from warmstart.run.folder import CLUSTERS

STARTS = {
    "scratch": {"init": "scratch", "against": []},
    "own": {"init": "pretrained", "against": ["scratch"]},
    "big": {"init": "hf:big", "against": ["scratch", "own"]},
    "small": {"init": "hf:small", "against": ["scratch", "own", "big"]},
}
RUNG = {
    "scores": {"own": [0.6] * 5, "big": [0.7] * 5, "small": [0.65] * 5, "odd": [0.1] * 5},
    "spent": {"own": 500, "big": 500, "small": 500, "odd": 500},
    "seconds": 3.0,
}
SCREEN = {"scratch": (0.2, -1.0), "own": (0.5, 0.3), "big": (0.6, 0.4), "small": (0.7, 0.2), "odd": (0.1, -2.0)}
EXCLUDED = {"odd": {"rung": 1, "reason": "worse than big by 0.6 on average over 5 folds, at least by 0.5"}}


@pytest.fixture
def ranked(made, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict]:
    """The report of a transfer with transfer.starts, with mean accuracies by start and label count."""
    for name, node in STARTS.items():
        monkeypatch.setitem(conftest.ARM, name, node)

    def call(means: dict[tuple[str, int], float], seeds: int = 6, excluded: dict | None = None, **more) -> dict:
        others = [name for name, _ in means if name not in STARTS]
        rng = np.random.default_rng(0)
        scores = {
            (name, "steps", labels): np.clip(rng.normal(mean, 0.02, (seeds, 1)), 0, 1) + np.zeros((seeds, 200))
            for (name, labels), mean in means.items()
        }
        folder = made(scores, **more)
        names = list(dict.fromkeys(name for name, _ in means if name not in others))
        record = {"given": {name: STARTS[name]["init"] for name in names}, "labels": max(n for _, n in means)}
        if excluded:
            record["given"]["odd"] = "hf:odd"
        screen = {name: {"knn": SCREEN[name][0], "logme": SCREEN[name][1], "seconds": 1.0} for name in record["given"]}
        rungs = {"rungs": [RUNG], "examples": 1000, "bound": 6, "why": None} if excluded else {"rungs": []}
        record |= {"why": "2 starts besides scratch are too few", "kept": names, "screen": screen, **rungs}
        change_run(folder, starts={**record, "excluded": excluded or {}})
        return {**summarize(read_transfer(folder)), "folder": folder}

    return call


def test_the_best_start_and_what_it_gains_over_scratch_are_the_headline(ranked):
    means = {
        ("scratch", 5): 0.3,
        ("own", 5): 0.5,
        ("big", 5): 0.8,
        ("scratch", 20): 0.5,
        ("own", 20): 0.6,
        ("big", 20): 0.9,
    }
    report = ranked(means)
    sentence = report["headline"]["sentence"]
    assert sentence.startswith(
        "Best start, at equal steps, on 200 test rows: big with 5 and 20 labels per class (accuracy 0."
    )
    assert "big beats scratch with 5 and 20 labels per class (+0.4" in sentence
    assert report["headline"]["verdict"] == "helps"
    first, second = report["starts"]["ranking"]
    for one in (first, second):
        assert [row["start"] for row in one["starts"]] == ["big", "own", "scratch"]
        assert [row["apart"] for row in one["starts"]] == [False, True, True]
    assert report["starts"]["comparisons"] == len(report["verdicts"]) == 3 * 2
    assert [one["screen"] for one in report["starts"]["correlation"]] == [{"n": 3, "spearman": 1, "kendall": 1}] * 2


def test_intervals_are_simultaneous_over_all_comparisons(ranked):
    report = ranked({("scratch", 5): 0.3, ("own", 5): 0.5, ("big", 5): 0.8})
    best, own, _ = report["starts"]["ranking"][0]["starts"]
    (verdict,) = [row for row in report["verdicts"] if (row["arm"], row["against"]) == ("big", "own")]
    assert own["difference"] == pytest.approx(-verdict["difference"])
    assert own["p"] == verdict["p_holm"]
    low, high = verdict["interval"]
    wide = paired.Paired(6, 200, 0.0, 1.0, 0.0, 0.05 / 3).high / paired.Paired(6, 200, 0.0, 1.0, 0.0).high
    assert own["interval"][1] - own["interval"][0] == pytest.approx(wide * (high - low))
    assert best["difference"] is None


def test_starts_without_a_significant_difference_share_the_headline(ranked):
    report = ranked({("scratch", 5): 0.6, ("own", 5): 0.3, ("big", 5): 0.602, ("small", 5): 0.601})
    sentence = report["headline"]["sentence"]
    assert ", not significantly different from" in sentence
    assert report["headline"]["verdict"] == "cannot tell"
    assert "is not significantly different from scratch with 5 labels per class" in sentence
    rows = {row["start"]: row["apart"] for row in report["starts"]["ranking"][0]["starts"]}
    assert rows == {"scratch": False, "big": False, "small": False, "own": True}


def test_no_start_is_better_than_scratch(ranked):
    report = ranked({("scratch", 5): 0.8, ("own", 5): 0.3, ("big", 5): 0.5})
    assert report["headline"]["verdict"] == "hurts"
    assert "Best start, at equal steps, on 200 test rows: scratch with 5" in report["headline"]["sentence"]
    assert "big is worse than scratch with 5 labels per class (-0.3" in report["headline"]["sentence"]


def test_excluded_starts_their_cost_and_the_screen_are_reported_everywhere(ranked, capfd: pytest.CaptureFixture):
    report = ranked({("scratch", 5): 0.3, ("own", 5): 0.5, ("big", 5): 0.8, ("small", 5): 0.7}, excluded=EXCLUDED)
    folder: Path = report["folder"]
    show(write_report(folder))
    printed = capfd.readouterr()
    texts = (printed.out + printed.err, (folder / "report.md").read_text(), (folder / "report.html").read_text())
    for text in texts:
        assert "excluded odd, at a cost of 2.00 finetunings of at most 6" in text
        assert "Rank correlation of the screen with the mean test scores with 5 labels per class: Spearman" in text
        assert "the first validation scores of the selection" in text
    for text in texts[1:]:
        assert "worse than big by 0.6" in text
    saved = json.loads((folder / "report.json").read_text())
    assert saved["starts"]["correlation"][1]["screen"]["n"] == 4
    assert "odd" not in {row["arm"] for row in saved["table"]}


def test_too_few_seeds_or_starts_are_said(ranked, capfd: pytest.CaptureFixture):
    report = ranked({("own", 5): 0.5, ("big", 5): 0.8}, seeds=3)
    assert "No verdict on the best start: 3 paired seeds are too few" in report["headline"]["sentence"]
    show(report)
    assert "not computed, too few starts (2 starts)" in capfd.readouterr().err
    without = ranked({("own", 5): 0.5, ("big", 5): 0.8})
    assert without["headline"]["verdict"] is None
    assert without["headline"]["sentence"].endswith("Random weights (scratch) are not among the starts.")


def test_every_start_is_compared_with_the_strongest_control_and_a_loss_comes_first(ranked):
    report = ranked({("scratch", 5): 0.3, ("own", 5): 0.5, ("big", 5): 0.8, ("linear", 5): 0.9})
    rows = [(row["arm"], row["against"]) for row in report["verdicts"] if row["role"] == "strongest"]
    assert rows == [("own", "linear"), ("big", "linear")]
    assert report["starts"]["comparisons"] == 5
    smallest = min(report["verdicts"], key=lambda row: row["p"])
    assert smallest["p_holm"] == pytest.approx(5 * smallest["p"])
    sentence = report["headline"]["sentence"]
    assert sentence.startswith("big is worse than the strongest control (linear) with 5 labels per class (-0.")
    assert ". Best start, at equal steps, on 200 test rows: big with" in sentence
    assert "big beats scratch" in sentence
    assert report["headline"]["against"] == "scratch"
    better = ranked({("scratch", 5): 0.3, ("own", 5): 0.5, ("big", 5): 0.8, ("linear", 5): 0.4})
    assert "big beats the strongest control (linear)" in better["headline"]["sentence"].split(". ")[-1]


def test_the_untouched_start_has_the_initial_weights_of_the_start(ranked, monkeypatch: pytest.MonkeyPatch):
    for name, init in {"knn": "pretrained", "knn_big": "hf:big"}.items():
        node = {"baseline": {"_target_": "warmstart.baseline.knn.KNN"}, "init": init}
        monkeypatch.setitem(conftest.ARM, name, node)
    means = {("scratch", 5): 0.3, ("own", 5): 0.5, ("big", 5): 0.8, ("knn", 5): 0.9, ("knn_big", 5): 0.7}
    report = ranked(means)
    rows = [(row["arm"], row["against"]) for row in report["verdicts"] if row["role"] == "untouched"]
    assert rows == [("own", "knn"), ("big", "knn_big")]
    assert (
        "Finetuned, big beats the initial weights without finetuning (knn_big) with 5" in report["headline"]["sentence"]
    )


def test_the_page_is_about_the_comparison_of_the_headline(ranked):
    report = ranked({("scratch", 5): 0.3, ("own", 5): 0.5, ("big", 5): 0.8})
    assert [row["arm"] for row in compared_rows(report)] == ["big"]
    assert {row["arm"] for row in report["time_to_target"]} == {"big"}
    write_report(report["folder"])
    page = (report["folder"] / "report.md").read_text()
    assert "big against scratch, at equal steps, positive is better" in page
    assert page[page.index("## Which start?") :].splitlines()[2].startswith("Best start, at equal steps")


def test_intervals_hold_at_all_looks(ranked):
    means = {("scratch", 5): 0.3, ("own", 5): 0.5, ("big", 5): 0.8}
    fixed, auto = ranked(means), ranked(means, rules={"seeds": "auto", "looks": [6, 12]})
    widths = [np.ptp(report["starts"]["ranking"][0]["starts"][1]["interval"]) for report in (fixed, auto)]
    level = 2 * nominal_levels(0.05 / 3 / 2, (6, 12))[0]
    wide, narrow = (paired.Paired(6, 200, 0.0, 1.0, 0.0, alpha).high for alpha in (level, 0.05 / 3))
    assert widths[1] / widths[0] == pytest.approx(wide / narrow)


def test_controls_with_fewer_seeds_do_not_prevent_verdicts_on_starts(ranked):
    report = ranked({("scratch", 5): 0.3, ("own", 5): 0.5, ("big", 5): 0.8, ("linear", 5): 0.9})
    for seed in range(3):
        shutil.rmtree(report["folder"] / "runs" / f"linear-steps-5-seed{seed}")
    sentence = summarize(read_transfer(report["folder"]))["headline"]["sentence"]
    assert sentence.startswith("Best start, at equal steps")
    assert "linear" not in sentence


def test_failed_runs_are_no_finding(ranked, rewrite):
    report = ranked({("scratch", 5): 0.3, ("own", 5): 0.5, ("big", 5): 0.8}, seeds=7)
    rewrite(report["folder"], "own-steps-5-seed0", status="failed", error="diverged")
    report = summarize(read_transfer(report["folder"]))
    assert ", not judged against own, since runs failed" in report["headline"]["sentence"]
    (line,) = [line for line in ranking_table(report["starts"])[1] if line[2] == "own"]
    assert line[-1] == "not judged: runs failed"


def test_lower_is_better_and_few_clusters_are_in_the_headline(ranked):
    report = ranked({("scratch", 5): 0.8, ("big", 5): 0.3}, metric="val/error", mode="min")
    folder = report["folder"]
    np.save(folder / CLUSTERS, np.repeat(["a", "b"], 100))
    change_run(folder)
    sentence = summarize(read_transfer(folder))["headline"]["sentence"]
    assert "on 200 test rows of these 2 clusters (a, b) only: big with" in sentence
    assert sentence.count("where positive is better)") == 2
    assert "the result does not extend to others." in sentence
