"""The report on transfer.starts: ranking, starts that cannot be told apart, excluded starts, and the screen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.records import change_run
from tests.report import conftest

from warmstart.report import paired
from warmstart.report.runs import read_transfer
from warmstart.report.transfer import show, summarize, write_report

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
        rng = np.random.default_rng(0)
        scores = {
            (name, "steps", labels): np.clip(rng.normal(mean, 0.02, (seeds, 1)), 0, 1) + np.zeros((seeds, 200))
            for (name, labels), mean in means.items()
        }
        folder = made(scores)
        names = list(dict.fromkeys(name for name, _ in means))
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
    assert sentence.startswith("Best start, at equal steps: big with 5 and 20 labels per class (accuracy 0.")
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


def test_starts_that_cannot_be_told_apart_share_the_headline(ranked):
    report = ranked({("scratch", 5): 0.6, ("own", 5): 0.3, ("big", 5): 0.602, ("small", 5): 0.601})
    sentence = report["headline"]["sentence"]
    assert "which cannot be told apart from" in sentence
    assert report["headline"]["verdict"] == "cannot tell"
    assert "cannot be told apart from scratch with 5 labels per class" in sentence
    rows = {row["start"]: row["apart"] for row in report["starts"]["ranking"][0]["starts"]}
    assert rows == {"scratch": False, "big": False, "small": False, "own": True}


def test_no_start_is_better_than_scratch(ranked):
    report = ranked({("scratch", 5): 0.8, ("own", 5): 0.3, ("big", 5): 0.5})
    assert report["headline"]["verdict"] == "hurts"
    assert "Best start, at equal steps: scratch with 5" in report["headline"]["sentence"]
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
    assert "too few to say (2 starts)" in capfd.readouterr().err
    without = ranked({("own", 5): 0.5, ("big", 5): 0.8})
    assert without["headline"]["verdict"] is None
    assert without["headline"]["sentence"].endswith("Random weights (scratch) are not among the starts.")
