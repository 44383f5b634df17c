"""Shifted test splits: deterministic, with the labels of the test rows, and not in the fingerprint."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.data.datamodule import fingerprint
from warmstart.data.preprocess.speech import Preprocessor as Frames
from warmstart.data.sources.audio.spoken_digits import SpokenDigits, with_noise
from warmstart.data.sources.image.cifar10 import LABELS, Cifar10
from warmstart.data.sources.image.digits import Digits
from warmstart.data.sources.image.image_table import ImageTable
from warmstart.data.sources.text.sst2 import SST2, with_typos
from warmstart.data.sources.text.text_table import TextTable
from warmstart.data.transforms import corruptions

pytestmark = pytest.mark.quick

SENTENCES = ["a gorgeous, witty and seductive movie", "nothing here is worth watching, not even the ending"]


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """SST-2 in the hub's layout."""
    frame, folder = pd.DataFrame({"text": SENTENCES * 6, "label": [1, 0] * 6}), tmp_path / "sst2"
    folder.mkdir()
    for name in ("train", "validation", "test"):
        frame.to_parquet(folder / f"{name}.parquet")
    return folder


def photos(rows: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (rows, 3, 8, 8))
    return coarse.repeat(4, axis=2).repeat(4, axis=3).astype(np.uint8)


def encoded(x: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(x.transpose(1, 2, 0)).save(buffer, "png")
    return buffer.getvalue()


def cells(splits: Splits) -> dict[str, bytes]:
    frames = {name: rows.x for name, rows in splits.shifts.items()}
    return {name: x.to_json().encode() if hasattr(x, "to_json") else x.tobytes() for name, x in frames.items()}


def test_digits_are_rotated_and_noisy_under_their_own_labels():
    splits, again = (Digits().load("category") for _ in range(2))
    assert list(splits.shifts) == ["rotated", "noisy"]
    assert cells(splits) == cells(again)
    for rows in splits.shifts.values():
        assert np.array_equal(rows.y, splits.test.y)
        assert rows.x.shape == splits.test.x.shape
        assert not (rows.x == splits.test.x).reshape(len(rows), -1).all(axis=1).any()
        assert rows.x.min() >= 0
        assert rows.x.max() <= 16
    assert fingerprint(splits) == fingerprint(replace(splits, shifts={})) == fingerprint(Digits().load("category"))
    assert Digits().load(None).shifts == {}


def test_an_image_is_rotated_by_the_given_angle():
    bar = np.zeros((40, 1, 33, 33), dtype=np.float32)
    bar[:, :, 16, 4:29] = 1
    turned = corruptions.rotated(bar, 15, 30, seed=0)
    rows, columns = np.indices((33, 33)) - 16
    angles = []
    for x in turned[:, 0]:
        tensor = [[(x * a * b).sum() for a in (rows, columns)] for b in (rows, columns)]
        axis = np.linalg.eigh(tensor)[1][:, 1]
        angles.append(np.degrees(np.arctan(axis[0] / axis[1])))
    assert 14 < np.abs(angles).min() < 18
    assert 27 < np.abs(angles).max() < 31
    assert len(set(np.sign(angles))) == 2


def test_photos_are_corrupted_by_every_kind_at_every_strength(tmp_path: Path):
    x = photos(400)
    corrupt = corruptions.corrupted(x, seed=0)
    assert corrupt.dtype == np.uint8
    assert np.array_equal(corrupt, corruptions.corrupted(x, seed=0))
    assert not np.array_equal(corrupt, corruptions.corrupted(x, seed=1))
    assert np.abs(corrupt.astype(int) - x).max() > 100
    generator, values = np.random.default_rng(0), x[:50] / 255
    for corrupt, strengths in corruptions.CORRUPTIONS.items():
        errors = [np.abs(np.clip(corrupt(values, one, generator), 0, 1) - values).mean() for one in strengths]
        assert 0 < errors[0] < errors[-1] < 0.3, corrupt


@pytest.mark.parametrize("share", corruptions.CORRUPTIONS[corruptions.pixelate])
def test_pixelation_is_pillows(share: float):
    x, side = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8), int(32 * share)
    theirs = Image.fromarray(x).resize((side, side), Image.BOX).resize((32, 32), Image.BOX)
    ours = corruptions.pixelate(x[None, None] / 255, share, np.random.default_rng(0))
    assert np.abs(255 * ours[0, 0] - np.asarray(theirs)).max() < 1.5


def test_cifar10_corrupts_at_most_2000_test_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("warmstart.data.sources.image.cifar10.CORRUPTED", 6)
    for name, rows in (("train", 12), ("test", 10)):
        images = [{"bytes": encoded(x)} for x in photos(rows)]
        frame = pd.DataFrame({"img": images, "label": np.arange(rows) % len(LABELS)})
        frame.to_parquet(tmp_path / f"{name}.parquet")
    splits, again = (Cifar10(str(tmp_path), validation=2).load("category") for _ in range(2))
    assert list(splits.shifts) == ["corrupted"]
    assert len(splits.shifts["corrupted"]) == 6
    assert set(splits.shifts["corrupted"].y) <= set(splits.test.y)
    assert cells(splits) == cells(again)


def test_a_share_of_the_longer_words_is_misspelled_inside():
    texts = pd.Series(SENTENCES * 50)
    corrupt = with_typos(texts, 0.2, seed=0)
    assert corrupt.equals(with_typos(texts, 0.2, seed=0))
    pairs = [(a, b) for old, new in zip(texts, corrupt) for a, b in zip(old.split(), new.split(), strict=True)]
    assert all(a[0] == b[0] and a[-1] == b[-1] and len(a) - len(b) in (0, 1) for a, b in pairs)
    assert all(a == b for a, b in pairs if len(a.strip(",")) < 4)
    long = [a != b for a, b in pairs if len(a.strip(",")) >= 4]
    assert 0.13 < np.mean(long) < 0.25
    assert with_typos(texts, 0.0, seed=0).equals(texts)


def test_sst2_is_tested_on_typing_errors_and_on_reviews_that_are_named(sentences: Path, tmp_path: Path):
    reviews = tmp_path / "reviews" / "train.parquet"
    reviews.parent.mkdir()
    pd.DataFrame({"text": ["long<br />and good", "long and bad"] * 1200, "label": ["pos", "neg"] * 1200}).to_parquet(
        reviews
    )
    splits = SST2(dict, str(sentences), str(reviews.parent)).load("category")
    assert list(splits.shifts) == ["typos", "reviews"]
    assert np.array_equal(splits.shifts["typos"].y, splits.test.y)
    assert not splits.shifts["typos"].x.equals(splits.test.x)
    found = splits.shifts["reviews"]
    assert len(found) == 2000
    assert list(found.x.text == "long\nand good") == list(found.y == 1)
    plain = SST2(dict, str(sentences)).load("category")
    assert list(plain.shifts) == ["typos"]
    assert fingerprint(plain) == fingerprint(splits)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (None, "data.reviews=.*: there is no such file or folder"),
        ({"text": ["a"], "verdict": [1]}, "split train has no column label; similar columns: text, verdict"),
        ({"text": ["a", "b"], "label": [1, 7]}, "data.reviews=.*, split train, row 2: label 7, but 0 or 1"),
        ({"text": ["a", " "], "label": [1, 0]}, r"data.reviews=.*, split train, row 2: the text .* is empty"),
    ],
)
def test_reviews_that_cannot_be_used_are_named(frame, message: str, sentences: Path, tmp_path: Path):
    folder = tmp_path / "reviews"
    if frame is not None:
        folder.mkdir()
        pd.DataFrame(frame).to_parquet(folder / "train.parquet")
    with pytest.raises(UserError, match=message):
        SST2(dict, str(sentences), str(folder)).load("category")


def test_recordings_have_noise_behind_them_ten_decibels_softer():
    splits = SpokenDigits(Frames).load("category")
    rows = splits.shifts["noisy"]
    assert np.array_equal(rows.y, splits.test.y)
    for clean, corrupt in list(zip(splits.test.x.audio, rows.x.audio))[:20]:
        ratio = 10 * np.log10(np.square(clean).mean() / np.square(corrupt - clean).mean())
        assert ratio == pytest.approx(10, abs=0.5)
    again = with_noise(splits.test.x, 10.0, seed=0)
    assert all(np.array_equal(a, b) for a, b in zip(rows.x.audio, again.audio))


def test_a_users_own_splits_named_test_something_are_shifts(tmp_path: Path):
    (tmp_path / "data").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name, rows in (("train", 40), ("test", 10), ("test_2024", 8)):
        frame = pd.DataFrame({"text": [f"{name} {row}" for row in range(rows)], "y": ["no", "yes"] * (rows // 2)})
        frame.assign(img="a.png").to_parquet(tmp_path / "data" / f"{name}-00000-of-00001.parquet")
    splits = TextTable(dict, str(tmp_path), "text", "y").load("category")
    assert set(splits.test.x.text.str.split().str[0]) == {"test"}
    assert {name: list(rows.x.text) for name, rows in splits.shifts.items()} == {
        "2024": [f"test_2024 {row}" for row in range(8)]
    }
    assert list(splits.shifts["2024"].y) == [0, 1] * 4
    images = ImageTable(str(tmp_path), "img", "y", size=8).load("category")
    assert images.shifts["2024"].x.shape == (8, 3, 8, 8)
    assert np.array_equal(images.shifts["2024"].x[0], images.test.x[0])
    assert list(images.shifts["2024"].y) == [0, 1] * 4
