"""Duplicates across splits are printed and recorded once per run, transfer and sweep."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra import initialize_config_dir
from tests.conftest import FAST

from warmstart.main import CONF
from warmstart.stages.runner import StageRunner
from warmstart.sweep.plan import Composer, grid
from warmstart.sweep.preflight import check_jobs

SIZES = {"train": 40, "validation": 12, "test": 16}
TABLE = ("experiment=table", "data.target=y")
TEST = (
    "1 of 16 test rows is also among the training rows (1 with another target); the first is test row 4, training row 8"
)
VALIDATION = "2 of 12 validation rows are also among the training rows; the first is validation row 1, training row 3"


def made(root: Path, copies: bool) -> Path:
    """A table with parts; two validation rows and a test row are copies, the latter with another target."""
    generator = np.random.default_rng(0)
    frames = {name: pd.DataFrame(generator.normal(size=(n, 3)), columns=["a", "b", "c"]) for name, n in SIZES.items()}
    for name, frame in frames.items():
        frame["y"] = np.where(np.arange(SIZES[name]) % 2, "yes", "no")
    if copies:
        frames["validation"].loc[[0, 5]] = frames["train"].loc[[2, 9]].to_numpy()
        frames["test"].loc[3] = frames["train"].loc[7]
        frames["test"].loc[3, "y"] = "no"
    root.mkdir()
    for name, frame in frames.items():
        frame.to_csv(root / f"{name}.csv", index=False)
    return root


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return made(tmp_path / "copied", copies=True)


def test_a_run_prints_and_records_them(cli, copied: Path):
    outcome = cli("stage=finetune", "init=scratch", *TABLE, f"data.root={copied}", *FAST)
    assert outcome.status == 0, outcome.err
    assert f"warning: {TEST}" in outcome.err
    assert f"warning: {VALIDATION}" in outcome.err
    overlap = outcome.record("finetune")["data"]["overlap"]
    counts = {pair: [shared[n] for n in ("rows", "exact", "near", "other_target")] for pair, shared in overlap.items()}
    assert counts == {"train/validation": [12, 2, 0, 0], "train/test": [16, 1, 0, 1]}


def test_a_pretraining_compares_what_it_validates_on(cli, copied: Path):
    outcome = cli("stage=pretrain", *TABLE, f"data.root={copied}", *FAST)
    assert outcome.status == 0, outcome.err
    assert f"warning: {VALIDATION}" in outcome.err
    assert outcome.record("pretrain")["data"]["overlap"].keys() == {"train/validation"}


def test_nothing_is_printed_where_there_are_none(cli, tmp_path: Path):
    root = made(tmp_path / "clean", copies=False)
    outcome = cli("stage=finetune", "init=scratch", *TABLE, f"data.root={root}", *FAST)
    assert outcome.status == 0, outcome.err
    assert "warning" not in outcome.err
    assert outcome.record("finetune")["data"]["overlap"] == {}


def test_a_transfer_looks_once_and_reports_it(cli, copied: Path):
    words = ("transfer.arms=[scratch]", "transfer.labels=[2]", "transfer.seeds=2", "transfer.budgets.converged=[]")
    steps = ("trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.max_epochs=-1")
    outcome = cli("stage=transfer", *TABLE, f"data.root={copied}", *words, *steps)
    assert outcome.status == 0, outcome.err
    folder = outcome.run("transfer")
    assert outcome.record("transfer")["data"]["overlap"]["train/test"]["exact"] == 1
    assert json.loads((folder / "report.json").read_text())["warnings"][0].startswith(TEST)
    assert f"**warning**: {TEST}" in (folder / "report.md").read_text()
    assert outcome.err.count(f"warning: {VALIDATION}") == 1
    runs = [json.loads(path.read_text()) for path in (folder / "runs").glob("scratch*/run.json")]
    assert ["overlap" in run["data"] for run in runs] == [False, False]


def test_what_tries_the_jobs_of_a_sweep_looks_once_per_data_set(copied: Path, tmp_path: Path):
    words = ["stage=finetune", "init=scratch", *TABLE, f"data.root={copied}", f"output_dir={tmp_path}"]
    jobs = grid(Composer([CONF]), [*words, "strategy=full,bitfit", "seed=0,1"])
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):  # else the survey leaves Hydra initialized
        found = check_jobs(jobs, CONF, True, StageRunner())
    assert (found.problem, found.kinds) == (None, 2)
    first, second = found.shared
    assert first.startswith(VALIDATION)
    assert second.startswith(TEST)
