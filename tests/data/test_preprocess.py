"""Preprocessors: fitted, saved as JSON, restored, and applied to prediction files in the same way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from warmstart.core.errors import UserError
from warmstart.data.preprocess import image, rebuild, table, vector

pytestmark = pytest.mark.quick


def frame() -> pd.DataFrame:
    return pd.DataFrame({"n": [1.0, 2.0, 3.0, np.nan], "c": ["x", "y", "x", None], "k": [5, 5, 5, 5]})


def fitted() -> list[tuple[object, object]]:
    pixels = np.random.default_rng(0).integers(0, 255, (5, 3, 4, 4), dtype=np.uint8)
    numbers = np.random.default_rng(0).normal(3, 2, (6, 4)).astype(np.float32)
    pairs = [
        (image.Preprocessor(), pixels),
        (vector.Preprocessor(), numbers),
        (table.Preprocessor(["c"], "mean"), frame()),
    ]
    for preprocessor, x in pairs:
        preprocessor.fit(x)
    return pairs


@pytest.mark.parametrize(("preprocessor", "x"), fitted(), ids=["image", "vector", "table"])
def test_rebuilt_from_json_it_does_the_same(preprocessor, x):
    again = rebuild(json.loads(json.dumps(preprocessor.state())))
    assert torch.equal(again(again.encode(x)), preprocessor(preprocessor.encode(x)))
    assert again.state() == preprocessor.state()


def test_table_fills_scales_and_encodes_by_hand():
    preprocessor = table.Preprocessor(["c"], "mean")
    preprocessor.fit(frame())
    out = preprocessor.encode(frame())
    std = np.std([1, 2, 3, 2])
    expected = [[-1 / std, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1 / std, 1, 0, 0, 0], [0, 0, 0, 1, 0]]
    columns = [out[:, 0], *out[:, 1:4].T, out[:, 4]]
    assert torch.allclose(torch.stack(columns, 1), torch.tensor(expected, dtype=torch.float32)[:, [0, 1, 2, 3, 4]])
    unseen = preprocessor.encode(pd.DataFrame({"n": [2.0], "c": ["never seen"], "k": [5]}))
    assert unseen[0, 1:4].sum() == 0


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (
            "NA",
            "'NA' is not a number; if it stands for a missing value, empty the cell, or train with data.missing_val",
        ),
        ("six", "'six' is not a number; the model was trained on numbers in this column"),
        (None, "the value is missing; fill it in, or train with data.missing=mean or median"),
    ],
)
def test_what_a_fitted_table_refuses_names_no_setting_that_a_prediction_lacks(cell, message):
    fitted = table.Preprocessor(categorical=[])
    fitted.fit(pd.DataFrame({"a": ["1", "2"]}, index=[1, 2]))
    with pytest.raises(UserError, match=f"^the table, row 2, column a: {message}"):
        fitted.encode(pd.DataFrame({"a": ["1", cell]}, index=[1, 2], dtype=object))


def test_an_unknown_kind_is_refused():
    with pytest.raises(UserError, match="unknown kind of preprocessor os"):
        rebuild({"kind": "os"})


def test_other_shapes_than_fitted_are_refused():
    pre = vector.Preprocessor()
    pre.fit(np.ones((3, 4), dtype=np.float32))
    with pytest.raises(UserError, match="takes 4 features; this data has 5"):
        pre.encode(np.ones((3, 5), dtype=np.float32))


def test_pictures_and_tables_are_read_to_the_fitted_shape(tmp_path: Path):
    pre = image.Preprocessor(white=16.0)
    pre.fit(np.zeros((2, 1, 8, 8), dtype=np.float32))
    Image.fromarray(np.full((20, 20, 3), 255, dtype=np.uint8)).save(tmp_path / "white.png")
    assert pre.read(str(tmp_path / "white.png")).x.shape == (1, 1, 8, 8)
    found = pre.read(str(tmp_path))
    assert found.x.max() == pytest.approx(16)
    assert found.files == [str(tmp_path / "white.png")]
    pd.DataFrame(np.arange(128.0).reshape(2, 64)).to_csv(tmp_path / "rows.csv", index=False)
    found = pre.read(str(tmp_path / "rows.csv"))
    assert found.x[1, 0, 7, 7] == 127
    assert found.files is None
    pd.DataFrame(np.ones((2, 3))).to_csv(tmp_path / "narrow.csv", index=False)
    with pytest.raises(UserError, match="64 are expected"):
        pre.read(str(tmp_path / "narrow.csv"))
