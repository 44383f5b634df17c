"""Cost of each arm: read from run folders, with measured columns only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from warmstart.report.figure import has_many_arms, styles
from warmstart.report.transfer import show, write_report

SEEDS = 3


@pytest.fixture
def folder(made: Callable[..., Path], rewrite: Callable[..., None]) -> Path:
    """Three seeds of four arms; finetunings know all costs, the linear model but the two that every run has."""
    keys = [(arm, "steps", labels) for labels in (1, 5) for arm in ("pretrained", "scratch", "probe", "linear")]
    found = made({key: np.full((SEEDS, 4), 0.5) for key in keys})
    for (arm, budget, labels), seed in ((key, seed) for key in keys for seed in range(SEEDS)):
        cost = {"seconds": 2.0 + seed, "steps": 100, "examples": 1000, "peak_memory_mb": 400.0}
        if arm == "linear":
            rewrite(found, f"{arm}-{budget}-{labels}-seed{seed}", cost={**cost, "seconds": 0.1})
            continue
        cost["step_seconds"] = 0.02
        parameters = 650 if arm == "probe" else 12_345
        rewrite(
            found,
            f"{arm}-{budget}-{labels}-seed{seed}",
            cost={**cost, "trained_parameters": parameters, "bytes_per_task": 4 * parameters},
            metrics={
                "val/accuracy": 0.5,
                "test/accuracy": 0.5,
                "test_noisy/accuracy": 0.3 + 0.01 * seed,
                "test_noisy/loss": 1.0,
            },
            **({"forgetting": {"metric": "val/loss", "before": 1.0, "after": 1.5}} if arm == "pretrained" else {}),
        )
    return found


def test_means_over_seeds_by_arm_and_labels(folder: Path):
    rows = {(row["arm"], row["labels"]): row for row in write_report(folder)["costs"]}
    assert list(rows)[:5] == [("pretrained", 1), ("scratch", 1), ("probe", 1), ("linear", 1), ("pretrained", 5)]
    row = rows["pretrained", 5]
    assert row["n"] == SEEDS
    assert row["trained_parameters"] == {"mean": 12_345, "std": 0}
    assert row["seconds"] == {"mean": pytest.approx(3), "std": pytest.approx(1)}
    assert row["forgetting"] == {"val/loss": {"mean": 0.5, "std": 0}}
    assert set(row["test"]) == {"", "noisy"}
    assert row["test"]["noisy"] == {"mean": pytest.approx(0.31), "std": pytest.approx(0.01)}
    assert rows["scratch", 5]["forgetting"] == {}
    assert "trained_parameters" not in rows["linear", 5]


def test_a_score_that_was_not_finite_is_no_forgetting(folder: Path, rewrite: Callable[..., None]):
    for seed in range(SEEDS):
        after = None if seed else 1.25
        rewrite(
            folder, f"pretrained-steps-5-seed{seed}", forgetting={"metric": "val/loss", "before": 1.0, "after": after}
        )
    rows = {(row["arm"], row["labels"]): row for row in write_report(folder)["costs"]}
    assert rows["pretrained", 5]["forgetting"] == {"val/loss": {"mean": 0.25, "std": None}}


def test_the_table_is_in_the_text_the_page_and_on_the_screen(folder: Path, capfd: pytest.CaptureFixture):
    show(write_report(folder))
    text, page = ((folder / name).read_text() for name in ("report.md", "report.html"))
    headings = (
        "trained parameters",
        "peak memory, MB",
        "ms per step",
        "seconds in all",
        "bytes per task",
        "forgetting, val/loss",
        "test accuracy",
        "noisy accuracy",
    )
    section = text.partition("## Costs by arm")[2].partition("\n## ")[0]
    assert f"| arm | labels | {' | '.join(headings)} |" in section
    assert "| pretrained | 1 | 12,345 | 400 | 20 | 3 ± 1.00 | 49,380 | +0.5 ± 0 | 0.5 ± 0 | 0.31 ± 0.01 |" in section
    assert "| linear | 1 | - | 400 | - | 0.1 | - | - | 0.5 ± 0 | - |" in section
    assert "Lowest costs with 1 label per class: probe, which trains the fewest parameters (650)" in section
    assert "after the finetuning minus before" in section
    assert "Costs by arm" in page
    assert "<td>12,345</td>" in page
    assert "Costs by arm with 1 label per class" in capfd.readouterr().out


def test_what_no_run_measured_has_no_column(made: Callable[..., Path]):
    bare = made({(arm, "steps", 5): np.full((SEEDS, 4), 0.5) for arm in ("pretrained", "scratch")})
    write_report(bare)
    section = (bare / "report.md").read_text().partition("## Costs by arm")[2].partition("\n## ")[0]
    assert "| arm | labels | ms per step | seconds in all |" in section
    assert "orgetting" not in section


def test_time_is_not_compared_with_runs_that_were_trained_together(folder: Path, rewrite: Callable[..., None]):
    for seed in range(SEEDS):
        path = folder / "runs" / f"scratch-steps-1-seed{seed}" / "run.json"
        cost = {**json.loads(path.read_text())["cost"], "seconds": 0.01, "together": SEEDS}
        del cost["step_seconds"]
        rewrite(folder, path.parent.name, cost=cost)
    write_report(folder)
    section = (folder / "report.md").read_text().partition("## Costs by arm")[2].partition("\n## ")[0]
    assert "runs at once" in section
    assert "seconds in all |" not in section
    assert "fewest parameters" in section
    assert "takes the least time" not in section


@pytest.mark.parametrize(("seconds", "threads", "is_said"), [(0.01, 1, True), (0.02, 1, False), (0.01, 2, False)])
def test_the_time_per_step_is_compared_if_it_was_measured_alike_and_differs(
    folder: Path, rewrite: Callable[..., None], seconds: float, threads: int, is_said: bool
):
    for arm, seed in ((arm, seed) for arm in ("pretrained", "scratch", "probe") for seed in range(SEEDS)):
        path = folder / "runs" / f"{arm}-steps-1-seed{seed}" / "run.json"
        cost = json.loads(path.read_text())["cost"]
        if arm == "probe":
            rewrite(folder, path.parent.name, cost={**cost, "step_seconds": seconds}, threads=threads)
        else:
            rewrite(folder, path.parent.name, threads=1)
    write_report(folder)
    text = (folder / "report.md").read_text()
    assert ("probe, which takes the least time per step (10 ms)" in text) == is_said


def test_seconds_to_the_target_need_equal_measurements(made: Callable[..., Path], rewrite: Callable[..., None]):
    scores = {(arm, "steps", 1): np.full((2, 4), 0.5) for arm in ("pretrained", "scratch")}
    folder = made(scores, curves={"pretrained": [0.5], "scratch": [0.4, 0.5]})
    (row,) = write_report(folder)["time_to_target"]
    assert (row["steps"], row["seconds"], row["seconds_against"]) == (10, pytest.approx(0.1), pytest.approx(0.2))
    assert row["tasks_to_pay_back_seconds"] == pytest.approx(100 * 0.05 / 0.1)
    cost = json.loads((folder / "runs" / "scratch-steps-1-seed0" / "run.json").read_text())["cost"]
    del cost["step_seconds"]
    rewrite(folder, "scratch-steps-1-seed0", cost={**cost, "together": 2})
    (row,) = write_report(folder)["time_to_target"]
    assert "steps" in row
    assert not [name for name in row if "seconds" in name]


def test_a_dozen_arms_are_distinguishable(made: Callable[..., Path]):
    arms = ["pretrained", "scratch", *(f"arm{number}" for number in range(11))]
    found = styles(arms).values()
    assert len({(style["color"], style.get("markerfacecolor")) for style in found}) == len(arms)
    assert has_many_arms(arms)
    assert not has_many_arms(arms[:7])
