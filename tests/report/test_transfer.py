"""The report of a transfer, from synthetic run folders with known truth."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tests.records import change_run
from tests.report import conftest

from warmstart.core.errors import UserError
from warmstart.report.transfer import write_report
from warmstart.report.verdicts import labels_text, more_needed

EXAMPLES = 2000
ARMS = ("pretrained", "scratch")


def exact(means: list[float], examples: int = EXAMPLES) -> np.ndarray:
    """Scores (S, N) of 0 and 1 with these means; the same easy examples in every row."""
    return np.stack([(np.arange(examples) < round(mean * examples)) * 1.0 for mean in means])


def drawn(mean: float, seeds: int = 10, seed: int = 0) -> np.ndarray:
    """Scores (S, N) of 0 and 1: seeds that differ a little, and examples that are independent."""
    rng = np.random.default_rng(seed)
    return (rng.random((seeds, EXAMPLES)) < mean + rng.normal(0, 0.01, (seeds, 1))) * 1.0


def verdicts(report: dict) -> dict:
    return {(row["arm"], row["budget"], row["labels"]): row for row in report["verdicts"]}


def test_the_four_words_and_the_headline(made):
    report = write_report(
        made(
            {
                ("pretrained", "steps", 1): drawn(0.80, seed=1),
                ("scratch", "steps", 1): drawn(0.70, seed=2),
                ("shuffled", "steps", 1): drawn(0.60, seed=3),
                ("pretrained", "steps", 5): drawn(0.90, seed=4),
                ("scratch", "steps", 5): drawn(0.895, seed=5),
                ("shuffled", "steps", 5): drawn(0.895, seed=5),
            }
        )
    )
    rows = verdicts(report)
    assert rows["pretrained", "steps", 1]["verdict"] == "helps"
    assert rows["shuffled", "steps", 1]["verdict"] == "hurts"
    assert rows["pretrained", "steps", 5]["verdict"] == "cannot tell"
    assert rows["pretrained", "steps", 5]["seeds_needed"] > 10
    assert rows["shuffled", "steps", 5]["verdict"] == "equivalent"
    assert report["headline"]["verdict"] == "helps"
    assert "helps with 1 label per class" in report["headline"]["sentence"]
    assert "has no detectable effect with 5 labels per class" in report["headline"]["sentence"]


def test_a_row_can_be_recomputed_from_runs_csv(made):
    pretrained, scratch = [0.8, 0.9, 0.85, 0.7, 0.75, 0.9], [0.6, 0.75, 0.7, 0.6, 0.7, 0.75]
    folder = made({("pretrained", "steps", 1): exact(pretrained), ("scratch", "steps", 1): exact(scratch)})
    report = write_report(folder)
    with open(folder / "runs.csv", newline="") as stream:
        runs = list(csv.DictReader(stream))
    assert list(runs[0]) == [
        "arm",
        "budget",
        "labels",
        "seed",
        "status",
        "val",
        "test",
        "steps",
        "seconds",
        "examples",
        "run",
    ]
    values = {arm: [float(run["test"]) for run in runs if run["arm"] == arm] for arm in ("pretrained", "scratch")}
    (row,) = report["verdicts"]
    differences = np.subtract(values["pretrained"], values["scratch"])
    assert row["n"] == 6
    assert row["difference"] == pytest.approx(differences.mean())
    assert row["effect"] == pytest.approx(differences.mean() / differences.std(ddof=1))
    # One test example is worth less than the seeds' spread, so the interval is little wider than that over seeds.
    plain = stats.ttest_1samp(differences, 0).confidence_interval()
    assert row["interval"][0] <= plain.low + 1e-9
    assert row["interval"][1] >= plain.high - 1e-9
    assert row["interval"][1] - row["interval"][0] < 1.5 * (plain.high - plain.low)
    table = {row["arm"]: row for row in report["table"]}
    assert table["pretrained"]["mean"] == pytest.approx(statistics.mean(pretrained))
    assert table["pretrained"]["std"] == pytest.approx(statistics.stdev(pretrained))


def test_holm_counts_every_verdict_of_the_report(made):
    scores = {}
    for labels in (1, 2, 5, 20):
        scores["pretrained", "steps", labels] = drawn(0.72, seed=labels)
        scores["scratch", "steps", labels] = drawn(0.70, seed=100 + labels)
    rows = write_report(made(scores))["verdicts"]
    ordered = sorted(rows, key=lambda row: row["p"])
    assert ordered[0]["p_holm"] == pytest.approx(min(1, 4 * ordered[0]["p"]))
    assert all(row["p_holm"] >= row["p"] for row in rows)


def test_for_a_loss_less_is_better(made):
    better, worse = np.full((6, 50), 1.0), np.full((6, 50), 2.0)
    better += np.linspace(0, 0.1, 6)[:, None]
    report = write_report(
        made({("pretrained", "steps", 1): better, ("scratch", "steps", 1): worse}, metric="val/mae", mode="min")
    )
    (row,) = report["verdicts"]
    assert row["difference"] == pytest.approx(0.95)
    assert row["verdict"] == report["headline"]["verdict"] == "helps"
    low, high = report["table"][0]["interval"]
    assert low < report["table"][0]["mean"] < high


def test_fewer_than_five_seeds_give_no_verdict_and_say_why(made):
    report = write_report(
        made({("pretrained", "steps", 1): drawn(0.9, 4), ("scratch", "steps", 1): drawn(0.5, 4, seed=9)})
    )
    assert report["verdicts"][0]["verdict"] is None
    assert report["headline"] == {
        "verdict": None,
        "sentence": "No verdict: 4 paired seeds are too few; at least 5 are needed.",
        "sentences": ["No verdict: 4 paired seeds are too few; at least 5 are needed."],
        "arm": "pretrained",
        "against": "scratch",
        "budget": "steps",
    }


def test_several_pretrainings_are_what_is_independent(made):
    rng = np.random.default_rng(0)
    effects = np.tile([0.15, 0.0, 0.1, -0.05, 0.05], 2)[:, None]
    scratch = (rng.random((10, EXAMPLES)) < 0.7) * 1.0
    pretrained = (rng.random((10, EXAMPLES)) < 0.7 + effects) * 1.0
    scores = {("pretrained", "steps", 1): pretrained, ("scratch", "steps", 1): scratch}
    (row,) = write_report(made(scores, rules={"pretrain_seeds": 5}))["verdicts"]
    by_pretraining = (pretrained - scratch).mean(1).reshape(2, 5).mean(0)
    assert row["n"] == 5
    assert row["difference"] == pytest.approx(by_pretraining.mean())
    assert row["effect"] == pytest.approx(by_pretraining.mean() / by_pretraining.std(ddof=1))


def test_the_difference_is_the_centre_of_its_interval_with_unfinished_runs(made, rewrite):
    effects = np.tile([0.15, 0.0, 0.1, -0.05, 0.05], 2)[:, None]
    cells = {("pretrained", "steps", 1): drawn(0.7 + effects), ("scratch", "steps", 1): drawn(0.7, seed=1)}
    folder = made(cells, rules={"pretrain_seeds": 5})
    rewrite(folder, "scratch-steps-1-seed0", status="interrupted")
    (row,) = write_report(folder)["verdicts"]
    assert row["n"] == 5
    assert row["difference"] == pytest.approx(statistics.fmean(row["interval"]))


def test_an_arm_with_a_failed_run_is_flagged_and_not_judged(made, rewrite):
    folder = made({("pretrained", "steps", 1): drawn(0.9), ("scratch", "steps", 1): drawn(0.5, seed=9)})
    rewrite(folder, "scratch-steps-1-seed3", status="failed", error="diverged: the loss is infinite", metrics={})
    report = write_report(folder)
    (row,) = report["verdicts"]
    assert (row["n"], row["verdict"], row["flag"]) == (9, "cannot tell", "1 of 10 scratch runs failed")
    assert report["headline"]["verdict"] == "cannot tell"
    assert "1 of 10 scratch runs failed" in report["warnings"][0]
    assert report["table"][1]["failed"] == 1
    text = (folder / "report.md").read_text()
    assert "1 failed" in text
    assert "nan" not in text.lower()


def test_failed_runs_are_no_finding_in_the_headline(made, rewrite):
    cells = {("pretrained", "steps", 1): drawn(0.9), ("scratch", "steps", 1): drawn(0.5, seed=9)}
    cells |= {("pretrained", "steps", 5): drawn(0.9, seed=2), ("scratch", "steps", 5): drawn(0.7, seed=8)}
    folder = made(cells)
    rewrite(folder, "scratch-steps-5-seed3", status="failed", error="diverged", metrics={})
    report = write_report(folder)
    sentence = report["headline"]["sentence"]
    assert "helps with 1 label per class" in sentence
    assert "is not judged with 5 labels per class (1 of 10 scratch runs failed)" in sentence
    assert "no detectable effect" not in sentence
    assert (report["verdicts"][1]["seeds_needed"], report["verdicts"][1]["rows_needed"]) == (None, None)
    assert "suffice" not in (folder / "report.md").read_text().partition("## Rules")[0]


def test_a_label_count_with_too_few_seeds_does_not_hide_the_others(made, rewrite):
    cells = {(arm, "steps", n): drawn(0.9 if arm == "pretrained" else 0.5, 5, n) for n in (1, 5) for arm in ARMS}
    folder = made(cells)
    rewrite(folder, "scratch-steps-5-seed3", status="failed", error="diverged", metrics={})
    headline = write_report(folder)["headline"]
    assert headline["verdict"] is None
    assert headline["sentence"].startswith(
        "No verdict with 5 labels per class: 4 paired seeds are too few (1 of 5 scratch runs failed); at least 5 are "
        "needed. Pretraining, at equal steps, on 2,000 test rows: helps with 1 label per class"
    )


def test_seeds_needed_are_for_the_corrected_level(made):
    alone = {("pretrained", "steps", 1): drawn(0.71, seed=1), ("scratch", "steps", 1): drawn(0.70, seed=2)}
    many = {(arm, "steps", n): cell for n in (1, 2, 5, 20) for (arm, _, _), cell in alone.items()}
    (one,), (first, *_) = (write_report(made(cells))["verdicts"] for cells in (alone, many))
    assert one["verdict"] == first["verdict"] == "cannot tell"
    assert first["seeds_needed"] > one["seeds_needed"] > 10
    (look,) = write_report(made(alone, rules={"seeds": "auto", "looks": [10, 20]}))["verdicts"]
    assert look["seeds_needed"] >= one["seeds_needed"]


def test_seeds_that_are_already_there_are_not_reported_to_suffice():
    row = {"verdict": "cannot tell", "flag": None, "n": 10, "rows_needed": None}
    assert more_needed({**row, "seeds_needed": 9}, "seeds", None) is None
    assert more_needed({**row, "seeds_needed": 11}, "seeds", None) == "11 seeds would suffice"


def test_arms_with_their_own_training_are_not_at_equal_steps(made, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(conftest.ARM, "scratch_long", {"init": "scratch", "length": 10})
    monkeypatch.setitem(conftest.ARM, "pretrained", {"init": "pretrained", "against": ["scratch_long", "linear"]})
    arms = ("pretrained", "scratch_long", "linear")
    folder = made({(arm, "steps", 1): drawn(0.9 - 0.1 * n, seed=n) for n, arm in enumerate(arms)})
    report = write_report(folder)
    assert (
        "Pretraining against scratch_long, with up to 10 times the steps for scratch_long,"
        in (report["headline"]["sentence"])
    )
    page = (folder / "report.html").read_text()
    assert "pretrained against scratch_long, at equal steps" not in page
    assert "pretrained against linear, with no training steps for linear" in page


def test_shares_of_the_labels_are_not_rounded_to_none():
    assert labels_text([0.005]) == "0.5% of the labels"
    assert labels_text([0.125]) == "12.5% of the labels"
    assert labels_text([5, 0.1]) == "5 labels per class and 10% of the labels"
    assert labels_text([1, 2, 5]) == "1, 2 and 5 labels per class"
    assert labels_text(["<=200", "all"]) == "up to 200 labels per class and all labels"


def test_the_cost_is_not_recovered_against_a_control_without_a_curve(made):
    folder = made({("pretrained", "steps", 1): exact([0.8] * 3), ("scratch", "steps", 1): exact([0.7] * 3)})
    for path in (folder / "runs").glob("scratch-*"):
        (path / "metrics.csv").write_text("step,name,value\n")
        change_run(path)
    (row,) = write_report(folder)["time_to_target"]
    assert (row["steps_against"], row["tasks_to_pay_back_steps"]) == (None, None)


def test_unfinished_runs_are_named_and_left_out(made, rewrite):
    folder = made({("pretrained", "steps", 1): drawn(0.9), ("scratch", "steps", 1): drawn(0.5, seed=9)})
    rewrite(folder, "scratch-steps-1-seed3", status="interrupted")
    report = write_report(folder)
    assert report["verdicts"][0]["n"] == 9
    assert "1 of 20 runs is unfinished and excluded (scratch at 1; seeds 3)" in report["warnings"][0]


@pytest.mark.parametrize("kept", [0, 1])
def test_fewer_than_two_runs_are_refused(made, rewrite, kept: int):
    folder = made({("pretrained", "steps", 1): drawn(0.9, 2), ("scratch", "steps", 1): drawn(0.5, 2)})
    names = [path.name for path in sorted((folder / "runs").glob("*seed*"))]
    for name in names[kept:]:
        rewrite(folder, name, status="failed", error="out of memory")
    count = "no finetuning run is done" if kept == 0 else "one finetuning run is done"
    with pytest.raises(UserError, match=f"{count}.*out of memory"):
        write_report(folder)


def test_what_cannot_be_compared_is_refused(made, rewrite, tmp_path: Path):
    folder = made({("pretrained", "steps", 1): drawn(0.9), ("scratch", "steps", 1): drawn(0.5)})
    rewrite(folder, "scratch-steps-1-seed3", data={"fingerprint": "g", "rows": {"train": 10}})
    with pytest.raises(UserError, match=r"scratch-steps-1-seed3 and .* were trained on different data"):
        write_report(folder)
    rewrite(folder, "scratch-steps-1-seed3", metrics={"test/f1": 0.5})
    with pytest.raises(UserError, match=r"scratch-steps-1-seed3 has no test/accuracy: its metric differs"):
        write_report(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no manifest.json"):
        write_report(tmp_path / "empty")


def test_rebuilt_reports_are_equal_and_need_no_torch(made):
    folder = made({("pretrained", "steps", 1): drawn(0.9), ("scratch", "steps", 1): drawn(0.5, seed=9)})
    write_report(folder)
    before = (folder / "report.json").read_bytes()
    code = (
        "import sys; from warmstart import main; main.main.__globals__['sys'].argv[1:] = "
        f"['stage=report', 'runs={folder}']; main.main(); assert 'torch' not in sys.modules; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.endswith("fine\n"), done.stderr
    assert (folder / "report.json").read_bytes() == before


def test_labels_saved_are_read_off_the_controls_curve(made):
    control = {1: 0.5, 2: 0.6, 4: 0.7, 8: 0.8}
    scores = {}
    for labels, mean in control.items():
        scores["pretrained", "steps", labels] = exact([mean + 0.1] * 6)
        scores["scratch", "steps", labels] = exact([mean] * 6)
    saved = write_report(made(scores))["labels_saved"]
    assert [row["multiplier"] for row in saved] == [pytest.approx(2, rel=0.02)] * 3 + [None]
    assert saved[0]["interval"] == [pytest.approx(2, rel=0.15)] * 2
    assert saved[3]["text"].startswith("more than 1 times")


def test_time_to_the_controls_best_is_censored_where_it_is_not_reached(made):
    scores = {("pretrained", "steps", 1): exact([0.9, 0.9, 0.5]), ("scratch", "steps", 1): exact([0.8, 0.8, 0.8])}
    curves = {"pretrained": [0.6, 0.8, 0.9], "scratch": [0.2, 0.4, 0.6, 0.8]}
    (row,) = write_report(made(scores, curves=curves))["time_to_target"]
    assert (row["n"], row["reached"]) == (3, 3)
    assert (row["steps"], row["steps_against"]) == (20, 40)
    assert (row["examples"], row["examples_against"]) == (200, 400)
    assert row["tasks_to_pay_back_examples"] == pytest.approx(6400 / 200)


def test_a_target_that_is_never_reached_is_not_a_number_of_steps(made):
    scores = {("pretrained", "steps", 1): exact([0.5] * 3), ("scratch", "steps", 1): exact([0.8] * 3)}
    curves = {"pretrained": [0.4, 0.5], "scratch": [0.2, 0.8]}
    (row,) = write_report(made(scores, curves=curves))["time_to_target"]
    assert (row["reached"], row["steps"], row["tasks_to_pay_back_steps"]) == (0, None, None)


def test_the_point_past_which_pretraining_hurts_is_named_only_if_it_is_shown(made):
    taken = [{"number": n, "step": 10**n, "val/loss": 1 / n} for n in (1, 2, 3)]

    def length_of(*means: float) -> dict:
        scores = {("pretrained", "steps", 1): drawn(0.7), ("scratch", "steps", 1): drawn(0.7, seed=1)}
        for number, mean in enumerate(means, start=1):
            scores[f"pretrained@{number}", "steps", 1] = drawn(mean, seed=10 + number)
        return write_report(made(scores, snapshots=taken))["pretraining_length"]

    worse = length_of(0.7, 0.8, 0.6)
    assert worse["turning_step"] == 100
    assert "past step 100 lowers the task score" in worse["sentence"]
    assert length_of(0.7, 0.75, 0.75)["turning_step"] is None


def test_warnings_for_overlap_shuffled_weights_and_simple_models(made):
    folder = made(
        {
            ("pretrained", "steps", 1): drawn(0.8, seed=1),
            ("scratch", "steps", 1): drawn(0.6, seed=2),
            ("shuffled", "steps", 1): drawn(0.7, seed=3),
            ("linear", "steps", 1): drawn(0.9, seed=4),
        }
    )
    overlap = json.loads((folder / "run.json").read_text())["overlap"]
    change_run(folder, overlap={**overlap, "exact": [3, 4], "near": [7]})
    warnings = "\n".join(write_report(folder)["warnings"])
    assert "2 of 100 test rows are also pretraining rows of digits (rows 3, 4)" in warnings
    assert "1 of 100 test rows is a near duplicate of a pretraining row" in warnings
    assert "shuffled weights also help" in warnings
    assert "baselines that score better than pretrained: linear with 1 label per class" in warnings
