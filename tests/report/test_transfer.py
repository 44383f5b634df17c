"""The report, from made run folders whose truth is known."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from warmstart.contracts import UserError
from warmstart.report.transfer import write_report
from warmstart.run.manifest import Job, Manifest

SCORES = {
    ("pretrained", 1): [0.8, 0.9],
    ("scratch", 1): [0.6, 0.7],
    ("pretrained", 5): [0.9, None],
    ("scratch", 5): [None, None],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    runs = []
    for (arm, labels), values in SCORES.items():
        for seed, value in enumerate(values):
            name = f"{arm}-{labels}-seed{seed}"
            runs.append(Job(name, {"arm": arm, "labels_per_class": labels, "seed": seed}, {}))
            record = {"status": "failed", "error": "diverged", "metrics": {}, "cost": None}
            if value is not None:
                record = {"status": "done", "metrics": {"test/accuracy": value}, "cost": {"seconds": 1, "steps": 10}}
            (tmp_path / "runs" / name).mkdir(parents=True)
            (tmp_path / "runs" / name / "run.json").write_text(json.dumps({"id": name, "stage": "finetune", **record}))
    (tmp_path / "runs" / "pretrain").mkdir()
    pretrain = {"id": "base", "cost": {"seconds": 5.0, "steps": 100}, "data": {"rows": {"validation": 270}}}
    (tmp_path / "runs" / "pretrain" / "run.json").write_text(json.dumps(pretrain))
    plan = Manifest(tmp_path / "plan", "transfer", "digits", [], "val/accuracy", "max", {"commit": None}, runs)
    plan.write()
    (tmp_path / "plan" / "manifest.json").rename(tmp_path / "manifest.json")
    return tmp_path


def test_means_and_spreads_count_failed_runs_instead_of_dropping_them(folder: Path):
    table = {(row["arm"], row["labels_per_class"]): row for row in write_report(folder)["table"]}
    assert table["pretrained", 1]["mean"] == pytest.approx(0.85)
    assert table["pretrained", 1]["std"] == pytest.approx(statistics.stdev([0.8, 0.9]))
    assert (table["pretrained", 5]["n"], table["pretrained", 5]["failed"], table["pretrained", 5]["std"]) == (
        1,
        1,
        None,
    )
    assert (table["scratch", 5]["mean"], table["scratch", 5]["failed"]) == (None, 2)
    text = (folder / "report.md").read_text()
    assert "n=0, 2 failed" in text
    assert "3 not done" in text
    assert "nan" not in text.lower()


def test_rebuilt_reports_are_equal_and_need_no_torch(folder: Path):
    write_report(folder)
    before = (folder / "report.json").read_bytes()
    code = (
        "import sys, pathlib; from warmstart.report.transfer import write_report;"
        f"write_report(pathlib.Path({str(folder)!r})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert (folder / "report.json").read_bytes() == before


def test_nothing_done_or_nothing_there(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    with pytest.raises(UserError, match=r"no manifest.json"):
        write_report(tmp_path_factory.mktemp("empty"))
    for path in (folder / "runs").glob("*seed*/run.json"):
        path.write_text(json.dumps({"id": "x", "stage": "finetune", "status": "planned"}))
    with pytest.raises(UserError, match="no finetuning run is done"):
        write_report(folder)
