"""Clusters of rows: they follow their rows, stay in one split and one fold, and are no input."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.data.datamodule import GenericDataModule, TaskDataModule, fingerprint
from warmstart.data.preprocess.speech import Preprocessor as Frames
from warmstart.data.sources.audio.spoken_digits import SpokenDigits
from warmstart.data.sources.image.image_table import ImageTable
from warmstart.data.sources.several import Several
from warmstart.data.sources.table import Table
from warmstart.data.sources.text.text_table import TextTable
from warmstart.data.splits import fold_of, most_folds

pytestmark = pytest.mark.quick

ROWS = 60
WHO = [f"p{row // 2 % 10}" for row in range(ROWS)]  # ten clusters with both classes


def table(path: Path, **columns: list) -> str:
    """A table of 60 rows whose feature x determines the row."""
    given = {"x": list(range(ROWS)), "y": ["u", "v"] * (ROWS // 2), "who": WHO, **columns}
    pd.DataFrame(given).to_csv(path / "t.csv", index=False)
    return str(path / "t.csv")


def load(root: str, target: str | None = "category", **settings) -> Splits:
    return Table(root, "y", **{"cluster": "who", **settings}).load(target)


def parts(splits: Splits) -> list[Rows]:
    return [splits.train, splits.validation, splits.test]


def names(splits: Splits) -> list[set[str]]:
    return [set(rows.cluster) for rows in parts(splits)]


def test_clusters_follow_their_rows_and_stay_in_one_split(tmp_path: Path):
    root = table(tmp_path)
    whole, rows = load(root), load(root, split="row")
    for splits in (whole, rows, load(root, None)):
        for part in parts(splits):
            assert list(part.x.columns) == ["x"]
            assert list(part.cluster) == [WHO[int(x)] for x in part.x.x]
    found = names(whole)
    assert sum(map(len, found)) == len(set.union(*found)) == 10
    assert [names(load(root, None)), names(load(root, None, split="cluster"))] == [found, found]
    assert whole.keeps_clusters
    assert not rows.keeps_clusters
    assert sorted(load(root, cluster=None, ignore=["who"]).test.x.x) == sorted(rows.test.x.x)
    assert fingerprint(whole) != fingerprint(load(table(tmp_path, who=[f"q{name}" for name in WHO])))


def test_test_clusters_are_the_named_ones_or_a_part_of_all(tmp_path: Path):
    root = table(tmp_path)
    assert names(load(root, test_clusters=["p3", "p0"]))[2] == {"p0", "p3"}
    parts_of = [names(load(root, test_clusters=f"{number}/3"))[2] for number in (1, 2, 3)]
    assert set.union(*parts_of) == set(WHO)
    assert sum(map(len, parts_of)) == 10
    assert names(load(root, None, test_clusters="2/3"))[2] == parts_of[1]
    years = table(tmp_path, who=[2000 + row % 6 for row in range(ROWS)])
    assert names(load(years, test_clusters=[2003]))[2] == {"2003"}


def test_rows_without_a_target_of_held_out_clusters_are_not_used_in_pretraining(tmp_path: Path, capsys):
    root = table(tmp_path, y=["u", "v", ""] * (ROWS // 3))
    splits = load(root, None, test_clusters=["p1"])
    held = set(splits.test.cluster) | set(splits.validation.cluster)
    assert len(splits.unlabelled)
    assert not set(splits.unlabelled.cluster) & held
    assert "rows without a target are of clusters in validation or test: they are not used" in capsys.readouterr().err
    generic = GenericDataModule(Table(root, "y", cluster="who"), None, 8, 0)
    rows = generic.training_rows(splits)
    assert len(rows) == len(rows.cluster) == len(splits.train) + len(splits.unlabelled)


def test_subsets_and_folds_keep_clusters(tmp_path: Path):
    source = Table(table(tmp_path), "y", cluster="who")
    splits = source.load("category")
    held = []
    for fold in range(4):
        module = TaskDataModule(source, "category", 8, 0, folds=2, fold=fold, labels_per_class=8)
        train, validation = module.training_rows(splits), module.validation_rows(splits)
        assert not set(train.cluster) & set(validation.cluster)
        assert list(train.cluster) == [WHO[int(x)] for x in train.x.x]
        held.append(set(validation.cluster))
    assert held[0] | held[1] == held[2] | held[3]
    by_row = source.load("category")
    by_row.test.cluster = by_row.train.cluster[: len(by_row.test)]
    assert set(module.training_rows(by_row).cluster) & set(module.validation_rows(by_row).cluster)


def test_folds_by_cluster_need_clusters_of_every_class():
    rows = Rows(np.arange(12), np.arange(12) // 6, np.array(list("aabbccdddddd"), dtype=object))
    assert most_folds(rows, ("k", "l"), by_cluster=True) == (1, "class l has 1 clusters of labelled rows")
    with pytest.raises(UserError, match=r"class l has 1 clusters of labelled rows only.* two clusters or more"):
        fold_of(rows, ("k", "l"), 0, 2, 0, by_cluster=True)
    numbers = Rows(np.arange(12), np.linspace(0, 1, 12)[:, None], rows.cluster)
    train, held = fold_of(numbers, ("y",), 0, 4, 1, by_cluster=True)
    assert len(set(numbers.cluster[held])) == 1
    assert not set(numbers.cluster[held]) & set(numbers.cluster[train])


def test_skipped_images_take_their_clusters_along(tmp_path: Path):
    for number in range(ROWS):
        Image.new("RGB", (4, 4), (4 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "7.png").write_bytes(b"no image")
    root = table(tmp_path, x=[f"{number}.png" for number in range(ROWS)])
    splits = ImageTable(root, "x", "y", size=4, on_error="skip", cluster="who").load("category")
    assert sum(map(len, parts(splits))) == ROWS - 1
    for part in parts(splits):
        assert list(part.cluster) == [WHO[round(float(image[0, 0, 0]) / 4)] for image in part.x]


def test_shifted_splits_and_merged_sources_have_clusters(tmp_path: Path):
    for name, rows in (("train", 40), ("test", 10), ("test_hard", 10)):
        texts = {"t": [f"{name} {row}" for row in range(rows)], "y": ["u", "v"] * (rows // 2)}
        who = [f"{name[:4]}{row // 2 % 8}" for row in range(rows)]
        pd.DataFrame({**texts, "who": who}).to_csv(tmp_path / f"{name}.csv", index=False)
    named = functools.partial(TextTable, lambda **_: None, str(tmp_path), "t", "y", cluster="who")
    splits = named().load("category")
    assert list(splits.shifts["hard"].cluster) == [f"test{row // 2}" for row in range(10)]
    digits = SpokenDigits(Frames).load("category")
    assert list(digits.shifts["noisy"].cluster) == list(digits.test.cluster)
    assert set(digits.test.cluster) == {"theo", "yweweler"}

    images = tmp_path / "images"
    images.mkdir()
    for number in range(ROWS):
        Image.new("RGB", (4, 4), (4 * number, 0, 0)).save(images / f"{number}.png")
    root = table(images, x=[f"{number}.png" for number in range(ROWS)])
    source = functools.partial(ImageTable, root, "x", "y", size=4)
    both = Several({"named": functools.partial(source, cluster="who"), "other": source}).load("category")
    test = [name for name in both.test.cluster if name.startswith("named/")]
    assert set(test) == {f"named/{name}" for name in source(cluster="who").load("category").test.cluster}
    others = [name for name in both.test.cluster if name.startswith("other/")]
    assert len(set(others)) == len(others) == len(both.test) - len(test) > 0


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({}, {"cluster": "whom"}, r"has no column whom \(data.cluster\); similar columns: who"),
        ({"who": ["same"] * ROWS}, {}, r"all 60 rows are of one cluster \(same\)"),
        ({"who": ["", *WHO[1:]]}, {}, "1 of 60 rows have no cluster .column who., the first is row 1"),
        ({"who": ["a", "b"] * 30}, {}, "there are 2 clusters, but 3 are needed"),
        ({"who": ["a", "b"] * 30}, {"split": "cluster"}, "set data.split=row"),
        ({}, {"test_clusters": ["p77"]}, "there is no cluster p77; there are: p0"),
        ({}, {"test_clusters": sorted(set(WHO))[1:]}, "leaves 1 of 10 clusters for training and validation"),
        ({}, {"test_clusters": "1/30"}, "there are only 10 clusters"),
        ({}, {"test_clusters": "p3"}, "give names in brackets"),
        ({}, {"test_clusters": []}, "give one name or more"),
        ({}, {"test_clusters": ["p1"], "split": "row"}, "data.test_clusters=.p1. needs data.split=cluster"),
        ({}, {"test_clusters": ["p1"], "cluster": None}, "needs data.cluster=COLUMN"),
        ({}, {"cluster": None, "split": "cluster"}, "data.split=cluster needs data.cluster=COLUMN"),
        ({}, {"cluster": "y"}, "data.cluster=y: the column is in data.target too"),
        (
            {"y": ["v" if name == "p1" else "u" for name in WHO]},
            {"test_clusters": ["p1"]},
            "row to train on is of class v",
        ),
    ],
    ids=str,
)
def test_clusters_that_cannot_be_used_are_refused(columns: dict, settings: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        load(table(tmp_path, **columns), **settings)


def test_an_error_is_one_line_with_status_2(tmp_path: Path, cli: Callable):
    given = ("stage=finetune", "experiment=table", f"data.root={table(tmp_path)}", "data.target=y", "init=scratch")
    refused = cli(*given, "data.cluster=whom")
    assert refused.status == 2
    assert len(refused.error.splitlines()) == 1
    refused = cli(*given, "data.cluster=who", "data.split=speaker")
    assert refused.status == 2
    assert "data.split=speaker: must be row or cluster, or null" in refused.error
