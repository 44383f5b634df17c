"""The report of a sweep, from synthetic folders with known truth."""

from __future__ import annotations

import csv
import json
import math
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.records import change_run, write_run

from warmstart.core.errors import UserError
from warmstart.report.estimate import expected_best, permutation_p
from warmstart.report.sweep import next_commands, show, write_report
from warmstart.run.manifest import Job, Manifest

METRIC = "val/accuracy"
KINDS = (("loss", "category"), ("lr", "linear"))


def plan(folder: Path, values: list[dict[str, Any]], **changes: Any) -> Manifest:
    """The folder of a sweep over these values, of which nothing has run yet."""
    jobs = [Job(f"{number:02d}", own, {"number": number}) for number, own in enumerate(values)]
    fields = {"stage": "finetune", "experiment": "digits", "words": [], "metric": METRIC, "mode": "max", "git": {}}
    manifest = Manifest(folder / "sweep", **{**fields, "jobs": jobs, **changes})
    manifest.write()
    return manifest


def finish(manifest: Manifest, name: str, score: float | None, status: str = "done", **record: Any) -> None:
    """A job's run folder, as a run leaves it."""
    metrics = {} if score is None else {METRIC: score, "val/loss": 1 - score, "test/accuracy": score - 0.1}
    base = {"id": name, "stage": manifest.stage, "status": status, "metrics": metrics, "error": None}
    manifest.path(name).mkdir()
    write_run(manifest.path(name), {**base, "cost": {"seconds": 2.0, "steps": 10}, **record})


def log(manifest: Manifest, name: str, rows: list[tuple[int, str, float]]) -> None:
    lines = [f"{step},{key},{value}\n" for step, key, value in rows]
    (manifest.path(name) / "metrics.csv").write_text("step,name,value\n" + "".join(lines))
    change_run(manifest.path(name))


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


SCORES = {
    (0.1, "focal"): [0.8, 0.9],
    (0.1, "mse"): [0.7, 0.6],
    (0.01, "focal"): [0.95, None],
    (0.01, "mse"): [0.5, 0.4],
}


@pytest.fixture
def sweep(tmp_path: Path) -> Manifest:
    """Two rates by two losses by two seeds; one run failed."""
    values = [
        {"optimizer.lr": lr, "loss": loss, "seed": seed} for lr, loss in SCORES for seed in range(len(SCORES[lr, loss]))
    ]
    manifest = plan(tmp_path, values)
    for job in manifest.jobs:
        score = SCORES[job.values["optimizer.lr"], job.values["loss"]][job.values["seed"]]
        if score is None:
            finish(
                manifest, job.name, None, "failed", error="UserError: diverged: the loss is nan\nat step 3", cost=None
            )
        else:
            finish(manifest, job.name, score)
    return manifest


def test_configurations_are_ranked_by_their_mean_with_the_interval_that_scipy_gives(sweep: Manifest):
    write_report(sweep.folder)
    table = rows_of(sweep.folder / "leaderboard.csv")
    assert [(row["optimizer.lr"], row["loss"]) for row in table] == [
        ("0.1", "focal"),
        ("0.1", "mse"),
        ("0.01", "mse"),
        ("0.01", "focal"),
    ]
    assert [row["rank"] for row in table] == ["1", "2", "3", ""]
    second = table[0]
    low, high = stats.t.interval(0.95, 1, loc=0.85, scale=stats.sem([0.8, 0.9]))
    assert float(second["mean"]) == pytest.approx(0.85)
    assert (float(second["low"]), float(second["high"])) == pytest.approx((low, high))
    assert "test" not in second
    assert (second["metric"], second["n"], second["seconds"], second["done"]) == (METRIC, "2", "2.0", "2")


def test_a_failed_run_is_counted_and_its_reason_shown(sweep: Manifest, capfd: pytest.CaptureFixture):
    show(write_report(sweep.folder))
    last = rows_of(sweep.folder / "leaderboard.csv")[-1]
    assert (last["rank"], last["n"], last["done"], last["failed"], last["low"]) == ("", "1", "1", "1", "")
    shown = capfd.readouterr()
    assert "1 done, 1 failed" in shown.out
    assert "05: UserError: diverged: the loss is nan\n" in shown.err
    assert "8 jobs: 7 done, 1 failed" in shown.err
    failed = next(row for row in rows_of(sweep.folder / "jobs.csv") if row["state"] == "failed")
    assert (failed["name"], failed["seed"], failed[METRIC]) == ("05", "1", "")
    assert "nan" not in (sweep.folder / "leaderboard.csv").read_text()


def test_less_is_better_where_the_metric_says_so(tmp_path: Path):
    manifest = plan(tmp_path, [{"loss": "a"}, {"loss": "b"}], metric="val/loss", mode="min")
    finish(manifest, "00", 0.2)
    finish(manifest, "01", 0.9)
    summary = write_report(manifest.folder)
    assert [row["values"]["loss"] for row in summary["configurations"]] == ["b", "a"]
    assert summary["best_of_n"]["best"] == pytest.approx(0.1)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_expected_best_of_k_is_what_drawing_gives(mode: str):
    values = [0.3, 0.9, 0.5, 0.5, 0.1]
    best = np.max if mode == "max" else np.min
    draws = best(np.random.default_rng(0).choice(values, (200_000, 3)), axis=1)
    assert expected_best(values, 3, mode) == pytest.approx(draws.mean(), abs=0.003)
    assert expected_best(values, 1, mode) == pytest.approx(statistics.fmean(values))


def test_values_of_a_parameter_are_compared_at_equal_n(tmp_path: Path, capfd: pytest.CaptureFixture):
    manifest = plan(
        tmp_path, [{"loss": "a", "lr": lr} for lr in (1, 2, 3)] + [{"loss": "b", "lr": lr} for lr in (1, 2)]
    )
    for name, score in zip(manifest.names(), (0.1, 0.5, 0.9, 0.6, 0.8), strict=True):
        finish(manifest, name, score)
    summary = write_report(manifest.folder)
    groups = {(group["parameter"], group["value"]): group for group in summary["best_of_n"]["groups"]}
    a, b = groups["loss", "a"], groups["loss", "b"]
    assert (a["n"], a["best"], a["equal_n"]) == (3, 0.9, 2)
    # The pairs (i, j) with replacement: 1 of 9 has 0.1 as its best, 3 have 0.5, 5 have 0.9.
    assert a["expected"] == pytest.approx((0.1 + 3 * 0.5 + 5 * 0.9) / 9)
    assert b["expected"] == pytest.approx(0.6 / 4 + 0.8 * 3 / 4)
    show(summary)
    shown = capfd.readouterr().err
    assert "best of 5 configurations: 0.9" in shown
    assert "loss=a: best of 3 0.9, expected best of 2 0.6778" in shown


def test_the_parameter_that_decides_is_the_important_one(tmp_path: Path):
    values = [{"lr": lr, "loss": loss, "seed": seed} for lr in (0.001, 0.01, 1.0) for loss in "ab" for seed in (0, 1)]
    manifest = plan(tmp_path, values)
    for job in manifest.jobs:
        finish(manifest, job.name, 0.5 - 0.1 * math.log10(job.values["lr"]) + 0.001 * (job.values["loss"] == "a"))
    found = write_report(manifest.folder)["importance"]
    assert sum(one["share"] for one in found.values()) == pytest.approx(1)
    assert found["lr"]["share"] > 0.9
    assert set(found) == {"lr", "loss"}
    assert found["lr"]["p"] < found["loss"]["p"] < 0.05


@pytest.mark.parametrize("is_grid", [True, False])
def test_a_parameter_that_explains_no_more_than_noise_is_not_called_important(is_grid: bool):
    rng = np.random.default_rng(1)
    p_values = []
    for _ in range(40):
        jobs = [
            {
                "score": lr + rng.normal(),
                "values": {"loss": loss, "lr": lr, "seed": seed},
                "configuration": f"{loss}{lr}",
            }
            for loss in "abc"
            for lr in (np.arange(4.0) if is_grid else rng.random(4))
            for seed in range(3)
        ]
        p_values.append([permutation_p(jobs, {"key": key, "kind": kind}) for key, kind in KINDS])
    of_loss, of_lr = np.array(p_values).T
    assert (of_loss < 0.05).sum() <= 6  # more: p = 0.003, if 5 % are expected
    assert not is_grid or (of_lr < 0.05).mean() > 0.9


def test_equal_scores_share_a_rank(tmp_path: Path):
    manifest = plan(tmp_path, [{"loss": loss, "seed": seed} for loss in "abcd" for seed in (0, 1)])
    for name, score in zip(manifest.names(), (0.1, 0.5, 0.4, 0.2, 0.3, 0.3, 0.2, 0.2), strict=True):
        finish(manifest, name, score)
    rows = write_report(manifest.folder)["configurations"]
    assert [row["rank"] for row in rows] == [1, 1, 1, 4]


def test_test_scores_are_hidden_unless_asked_for(cli, sweep: Manifest, capfd: pytest.CaptureFixture):
    names = ("leaderboard.csv", "jobs.csv", "sweep.html")
    show(write_report(sweep.folder))
    assert "test" not in capfd.readouterr().out
    for name in names:
        assert "test/" not in (sweep.folder / name).read_text()
    outcome = cli("stage=report", f"runs={sweep.folder}", "sweep.show_test=true")
    assert outcome.status == 0, outcome.err
    assert "test/accuracy" in outcome.out
    assert outcome.err.splitlines()[-1].endswith(f"stage=evaluate experiment=digits run={sweep.folder / 'runs' / '01'}")
    assert float(rows_of(sweep.folder / "leaderboard.csv")[0]["test"]) == pytest.approx(0.75)
    for name in names[1:]:
        assert "test/accuracy" in (sweep.folder / name).read_text()


def test_the_last_command_uses_the_best_run_of_the_winner(sweep: Manifest):
    summary = write_report(sweep.folder)
    run = sweep.folder / "runs" / "01"
    assert next_commands(summary, sweep.folder)[-1] == f"python train.py stage=evaluate experiment=digits run={run}"
    assert next_commands({**summary, "stage": "pretrain"}, sweep.folder)[-1].endswith(f"experiment=digits init={run}")
    assert len(next_commands({**summary, "winner": None}, sweep.folder)) == 1


def test_equal_scores_or_few_configurations_have_no_importance(sweep: Manifest, tmp_path: Path):
    assert write_report(sweep.folder)["importance"] is not None
    manifest = plan(tmp_path / "few", [{"lr": lr} for lr in (1, 2, 3)])
    for name in manifest.names():
        finish(manifest, name, float(name) / 10)
    assert write_report(manifest.folder)["importance"] is None
    manifest = plan(tmp_path / "equal", [{"lr": lr} for lr in range(6)])
    for name in manifest.names():
        finish(manifest, name, 0.5)
    assert write_report(manifest.folder)["importance"] is None


def test_a_score_that_is_no_number_or_not_there_has_no_rank_and_is_never_shown(tmp_path: Path):
    manifest = plan(tmp_path, [{"loss": "a"}, {"loss": "b"}, {"loss": "c"}])
    finish(manifest, "00", 0.5)
    finish(manifest, "01", math.nan)
    finish(manifest, "02", None)
    summary = write_report(manifest.folder)
    assert [row["rank"] for row in summary["configurations"]] == [1, None, None]
    json.dumps(summary, allow_nan=False)
    for name in ("leaderboard.csv", "jobs.csv"):
        assert "nan" not in (manifest.folder / name).read_text()
    assert "NaN" not in (manifest.folder / "sweep.html").read_text()


def test_nothing_done_yet(tmp_path: Path, capfd: pytest.CaptureFixture):
    manifest = plan(tmp_path, [{"loss": loss, "seed": seed} for loss in "ab" for seed in (0, 1)])
    summary = write_report(manifest.folder)
    show(summary)
    shown = capfd.readouterr()
    assert "2 planned" in shown.out
    assert "4 jobs: 4 planned" in shown.err
    assert (summary["best_of_n"], summary["importance"]) == (None, None)
    table = rows_of(manifest.folder / "leaderboard.csv")
    assert [(row["rank"], row["mean"], row["planned"]) for row in table] == [("", "", "2")] * 2


def test_while_it_runs_what_is_held_is_running_and_what_was_left_is_interrupted(tmp_path: Path):
    manifest = plan(tmp_path, [{"loss": "a", "seed": seed} for seed in range(4)])
    finish(manifest, "00", 0.5)
    finish(manifest, "01", 0.9, "running")
    finish(manifest, "02", None, "running")
    lock = manifest.lock("01")
    assert lock.acquire()
    row = write_report(manifest.folder)["configurations"][0]
    lock.release()
    assert row["states"] == {"done": 1, "interrupted": 1, "running": 1, "planned": 1}
    assert (row["mean"], row["n"]) == (0.5, 1)


def test_a_stage_without_a_metric_has_states_and_costs_but_no_ranking(tmp_path: Path, capfd: pytest.CaptureFixture):
    manifest = plan(tmp_path, [{"run": "b"}, {"run": "a"}], metric=None)
    finish(manifest, "00", 0.3)
    finish(manifest, "01", 0.9)
    show(write_report(manifest.folder))
    table = rows_of(manifest.folder / "leaderboard.csv")
    assert [(row["run"], row["rank"], row["mean"], row["n"], row["seconds"]) for row in table] == [
        ("b", "", "", "1", "2.0"),
        ("a", "", "", "1", "2.0"),
    ]
    assert "best of" not in capfd.readouterr().err


def test_a_search_takes_its_values_from_the_runs(tmp_path: Path):
    manifest = plan(tmp_path, [], search={"trials": 3})
    for name, lr, status in (("0", 0.1, "done"), ("1", 0.2, "done"), ("2", 0.3, "pruned")):
        finish(manifest, name, lr, status, sweep={"values": {"optimizer.lr": lr, "seed": 1}, "attempts": 1})
    summary = write_report(manifest.folder)
    assert [(row["values"], row["rank"], row["states"]) for row in summary["configurations"]] == [
        ({"optimizer.lr": 0.2}, 1, {"done": 1}),
        ({"optimizer.lr": 0.1}, 2, {"done": 1}),
        ({"optimizer.lr": 0.3}, None, {"pruned": 1}),
    ]


def test_curves_hold_mean_and_interval_at_the_steps_that_all_seeds_have(sweep: Manifest):
    log(sweep, "00", [(1, METRIC, 0.2), (2, METRIC, 0.4), (3, METRIC, 0.8), (1, "learning_rate", 0.1)])
    log(sweep, "01", [(1, METRIC, 0.4), (2, METRIC, math.nan), (3, METRIC, 0.9), (4, METRIC, 0.95)])
    with open(sweep.path("01") / "metrics.csv", "a") as stream:
        stream.write("5,val/accuracy,0.")  # being written
    change_run(sweep.path("01"))
    for name in ("02", "04"):
        log(sweep, name, [(1, METRIC, 0.5)])
    write_report(sweep.folder)
    write_report(sweep.folder)
    curves = sweep.folder / "curves"
    assert sorted(path.name for path in curves.iterdir()) == ["layout of bands", "lr_0.1-focal"]
    assert len(list((curves / "lr_0.1-focal").iterdir())) == 1
    events = EventAccumulator(str(curves / "lr_0.1-focal")).Reload()
    tags = {"mean": METRIC, "low": f"band/{METRIC}/low", "high": f"band/{METRIC}/high"}
    assert set(events.Tags()["tensors"]) == set(tags.values())
    read = {
        column: {event.step: event.tensor_proto.float_val[0] for event in events.Tensors(tag)}
        for column, tag in tags.items()
    }
    low, high = stats.t.interval(0.95, 1, loc=0.85, scale=stats.sem([0.8, 0.9]))
    assert read["mean"] == pytest.approx({1: 0.3, 3: 0.85})
    assert (read["low"][3], read["high"][3]) == pytest.approx((low, high))


def test_names_of_curves_are_safe_and_distinct(tmp_path: Path):
    manifest = plan(tmp_path, [{"init": init, "seed": seed} for init in ("../a/b", "../a:b", "") for seed in (0, 1)])
    for name in manifest.names():
        finish(manifest, name, 0.5)
        log(manifest, name, [(1, METRIC, 0.5)])
    write_report(manifest.folder)
    assert sorted(path.name for path in (manifest.folder / "curves").iterdir()) == [
        "_a_b",
        "_a_b~2",
        "base",
        "layout of bands",
    ]


def test_rebuilt_reports_are_equal_and_need_no_torch(sweep: Manifest):
    log(sweep, "00", [(1, METRIC, 0.2)])
    log(sweep, "01", [(1, METRIC, 0.4)])
    names = ("leaderboard.csv", "jobs.csv", "sweep.html")
    write_report(sweep.folder)
    before = [(sweep.folder / name).read_bytes() for name in names]
    code = (
        "import sys, pathlib; from warmstart.report.sweep import write_report;"
        f"write_report(pathlib.Path({str(sweep.folder)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [(sweep.folder / name).read_bytes() for name in names] == before


def test_what_is_no_sweep_is_refused_by_name(tmp_path: Path):
    with pytest.raises(UserError, match=r"is not the folder of a sweep: it has no manifest.json"):
        write_report(tmp_path)
