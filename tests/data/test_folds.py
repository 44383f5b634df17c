"""Cross-validation folds: each row validates once per repetition, the source's validation rows never."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from tests.conftest import FAST

from warmstart.core.batch import Rows
from warmstart.core.errors import UserError
from warmstart.data.datamodule import TaskDataModule
from warmstart.data.sources.image.digits import Digits
from warmstart.data.splits import fold_of
from warmstart.main import CONF
from warmstart.report.sweep import write_report
from warmstart.run.manifest import Manifest
from warmstart.stages.runner import StageRunner
from warmstart.sweep import launch
from warmstart.sweep.plan import Composer, grid
from warmstart.sweep.schedule import Rules

pytestmark = pytest.mark.quick

LABELS = ("a", "b", "c")
ROWS = Rows(np.arange(30), np.arange(30) % 3)


def digits(fold: int | None, like: TaskDataModule | None = None, seed: int = 0) -> TaskDataModule:
    """Six labels per class in three folds."""
    folds = {} if fold is None else {"folds": 3, "fold": fold}
    module = TaskDataModule(Digits(), "category", 64, 0, labels_per_class=6, subset_seed=seed, **folds)
    return module.prepare(None, like)


def pictures(module: TaskDataModule, part: str) -> set[bytes]:
    return {row.numpy().tobytes() for row in module.parts[part][0]}


def test_each_row_validates_once_a_repeat_and_classes_keep_their_shares():
    for repeat in (0, 1):
        cut = [fold_of(ROWS, LABELS, 0, 5, 5 * repeat + part) for part in range(5)]
        assert sorted(np.concatenate([held for _, held in cut])) == list(range(30))
        for train, held in cut:
            assert sorted([*train, *held]) == list(range(30))
            assert np.bincount(ROWS.y[held]).tolist() == [2, 2, 2]
    assert not np.array_equal(fold_of(ROWS, LABELS, 0, 5, 0)[1], fold_of(ROWS, LABELS, 0, 5, 5)[1])
    assert not np.array_equal(fold_of(ROWS, LABELS, 0, 5, 0)[1], fold_of(ROWS, LABELS, 1, 5, 0)[1])
    assert np.array_equal(fold_of(ROWS, LABELS, 0, 5, 7)[1], fold_of(ROWS, LABELS, 0, 5, 7)[1])


def test_targets_that_are_no_classes_are_cut_without_regard_to_them():
    rows = Rows(np.arange(7), np.linspace(0, 1, 7)[:, None])
    held = [fold_of(rows, ("y",), 0, 3, part)[1] for part in range(3)]
    assert sorted(np.concatenate(held)) == list(range(7))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (Rows(np.arange(7), np.array([0, 0, 0, 0, 1, 1, 1])), "class b has 3 labelled rows .* data.folds=3"),
        (Rows(np.arange(5), np.array([0, 0, 0, 0, 2])), "class c has 1 labelled rows .* two rows or more of each"),
        (Rows(np.arange(3), np.array([0.5, 0.1, 0.2])), "there are 3 labelled rows .* data.folds=3"),
    ],
)
def test_a_class_that_is_too_small_is_named_with_the_most_folds(rows: Rows, message: str):
    with pytest.raises(UserError, match=message):
        fold_of(rows, LABELS, 0, 4, 0)


def test_the_labelled_rows_are_cut_and_the_sources_own_validation_rows_are_left_alone():
    whole, folds = digits(None), [digits(fold) for fold in range(3)]
    assert [module.rows["train"] for module in folds] == [40] * 3
    assert [module.rows["validation"] for module in folds] == [20] * 3
    held = [pictures(module, "validation") for module in folds]
    assert set.union(*held) == pictures(whole, "train")
    assert not set.union(*held) & pictures(whole, "validation")
    assert all(not one & pictures(module, "train") for one, module in zip(held, folds))
    assert all(pictures(module, "test") == pictures(whole, "test") for module in folds)


def test_jobs_share_what_is_the_same_for_both_and_nothing_else():
    first = digits(0)
    assert digits(0, first).parts["validation"] is first.parts["validation"]
    for other in (digits(1, first), digits(0, first, seed=1), digits(None, first)):
        assert other.parts["validation"] is not first.parts["validation"]
        assert other.parts["test"] is first.parts["test"]
    assert pictures(digits(1, first), "validation") == pictures(digits(1), "validation")


def test_a_sweep_over_folds_is_one_configuration(cli, tmp_path):
    words = ("stage=finetune", "init=scratch", "data.labels_per_class=4", "data.folds=2", "data.fold=0,1,2", *FAST)
    jobs, folder = grid(Composer([CONF]), words), tmp_path / "sweep"
    manifest = Manifest(folder, "finetune", "digits", [], "val/accuracy", "max", {}, jobs)
    manifest.write()
    launch.run(manifest, {"workers": 0, "together": 8}, Rules(), StageRunner())
    write_report(folder)
    rows = list(csv.DictReader((folder / "leaderboard.csv").open()))
    assert [row["n"] for row in rows] == ["3"]
    runs = [json.loads(path.read_text()) for path in sorted((folder / "runs").glob("*/run.json"))]
    assert [run["data"]["rows"]["validation"] for run in runs] == [20] * 3
    refused = cli("stage=soup", f"runs={folder}")
    assert refused.status == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.folds=1",), "data.folds=1: must be a whole number, 2 or more"),
        (("data.folds=2", "data.fold=-1"), "data.fold=-1: must be"),
        (("data.folds=5", "data.labels_per_class=3"), "class 0 has 3 labelled rows"),
    ],
)
def test_folds_that_cannot_be_end_with_a_line_and_no_run(words, message: str, cli):
    refused = cli("stage=finetune", "init=scratch", *FAST, *words)
    assert refused.status == 2
    assert message in refused.error
    assert not refused.runs("finetune")
