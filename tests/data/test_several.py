"""Multi-task data sets: labels identify the task, splits stay separate, incompatible sources are refused."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from warmstart.core.errors import UserError
from warmstart.data.preprocess.text import Preprocessor
from warmstart.data.sources.image.digits import Digits
from warmstart.data.sources.image.image_table import ImageTable
from warmstart.data.sources.several import Several
from warmstart.data.sources.table import Table
from warmstart.data.sources.text.shakespeare import Shakespeare
from warmstart.data.sources.text.text_table import TextTable
from warmstart.data.sources.vectors import Vectors

pytestmark = pytest.mark.quick


def vectors(**settings):
    return functools.partial(Vectors, **{"rows": 200, "features": 20, "classes": 3, **settings})


def texts(path: Path, rows: int, **tokenizer):
    frame = pd.DataFrame({"t": [f"a text of {path.stem} {row}" for row in range(rows)]})
    frame.assign(y=["u", "v"] * (rows // 2)).to_csv(path, index=False)
    cutter = functools.partial(Preprocessor, **tokenizer)
    return functools.partial(TextTable, tokenizer=cutter, root=str(path), text="t", target="y")


def test_each_part_holds_all_tasks_evenly_mixed_with_the_classes_of_each_its_own():
    many, few = Vectors(rows=400, features=20, classes=3), Vectors(rows=40, features=20, classes=2, seed=1)
    splits = Several({"many": lambda: many, "few": lambda: few}).load("category")
    assert splits.labels == ("many/class 0", "many/class 1", "many/class 2", "few/class 0", "few/class 1")
    for part in ("train", "validation", "test"):
        rows, own = getattr(splits, part), [getattr(source.load("category"), part) for source in (many, few)]
        is_few = rows.y >= 3
        for chosen, start, expected in ((~is_few, 0, own[0]), (is_few, 3, own[1])):
            assert np.array_equal(rows.x[chosen], expected.x)
            assert np.array_equal(rows.y[chosen] - start, expected.y)
        first, second = np.array_split(is_few, 2)
        assert abs(int(first.sum()) - int(second.sum())) <= 1


def test_shifted_splits_come_too_each_with_the_rows_of_those_that_have_it():
    splits = Several({"a": Digits, "b": lambda: Digits(split_seed=1)}).load("category")
    assert set(splits.shifts) == {"rotated", "noisy"}
    own = Digits(split_seed=1).load("category").shifts["noisy"]
    rows = splits.shifts["noisy"]
    assert np.array_equal(rows.x[rows.y >= 10], own.x)
    assert np.array_equal(rows.y[rows.y >= 10] - 10, own.y)


def test_pixels_of_another_brightness_are_made_alike(tmp_path: Path):
    for number in range(20):
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(tmp_path / f"{number}.png")
    names = [f"{number}.png" for number in range(20)]
    pd.DataFrame({"image": names, "y": ["u", "v"] * 10}).to_csv(tmp_path / "t.csv", index=False)
    white = functools.partial(ImageTable, str(tmp_path / "t.csv"), "image", "y", size=8, channels=1)
    for sources, brightest in (({"digits": Digits, "white": white}, 16), ({"white": white, "digits": Digits}, 255)):
        source = Several(sources)
        splits = source.load("category")
        assert source.preprocessor().white == brightest
        is_white = np.array([splits.labels[label].startswith("white/") for label in splits.train.y])
        assert np.all(splits.train.x[is_white] == brightest)
        assert splits.train.x[~is_white].max() == pytest.approx(brightest)


def test_without_targets_unlabelled_rows_come_too_and_tables_are_put_together_by_column(tmp_path: Path):
    y = np.array(["p", "q"] * 20 + [None] * 10, dtype=object)
    pd.DataFrame({"a": range(50), "b": 1.5, "y": y}).to_csv(tmp_path / "one.csv", index=False)
    pd.DataFrame({"b": 2.5, "y": y, "a": range(50)}).to_csv(tmp_path / "two.csv", index=False)
    tables = {name: functools.partial(Table, str(tmp_path / f"{name}.csv"), "y") for name in ("one", "two")}
    splits = Several(tables).load(None)
    assert len(splits.unlabelled) == 20
    assert sorted(splits.train.x.columns) == ["a", "b"]
    assert splits.train.x.b.value_counts().to_dict() == {1.5: 28, 2.5: 28}
    assert list(splits.train.x.index) == list(range(56))
    assert splits.train.y is None


def test_settings_for_all_tokenizers_reach_each(tmp_path: Path):
    sources = {name: texts(tmp_path / f"{name}.csv", 40, context=64) for name in ("one", "two")}
    together = Several(sources, tokenizer={"vocabulary": 50})
    assert together.modality == "text"
    assert all((own.preprocessor().size, own.preprocessor().context) == (50, 64) for own in together.sources.values())
    assert len(together.load("category").train) == 2 * 28


@pytest.mark.parametrize(
    ("sources", "parts"),
    [
        ({"a": vectors(), "b": Digits}, ("a is vector", "b is image")),
        ({"a": vectors(), "b": vectors(features=10)}, ("rows of a", "shape 20", "rows of b", "shape 10")),
        (
            {"a": functools.partial(texts, context=64), "b": functools.partial(texts, context=32)},
            ("context is 64 in a",),
        ),
        ({"a": functools.partial(Shakespeare, Preprocessor), "b": texts}, ("data.sources.a has no classes",)),
    ],
)
def test_incompatible_sources_are_refused(sources: dict, parts: tuple[str, ...], tmp_path: Path):
    made = {}
    for name, source in sources.items():
        is_text = getattr(source, "func", source) is texts
        settings = getattr(source, "keywords", {})
        made[name] = texts(tmp_path / f"{name}.csv", 40, **settings) if is_text else source
    with pytest.raises(UserError) as error:
        Several(made).load("category")
    assert all(part in str(error.value) for part in parts), error.value
