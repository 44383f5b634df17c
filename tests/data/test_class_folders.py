"""Class folders of images, audio and texts: with and without splits, links, and ignored files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.data.preprocess.speech import Preprocessor as Frames
from warmstart.data.preprocess.text import Preprocessor as Tokens
from warmstart.data.sources.audio.audio_folder import AudioFolder
from warmstart.data.sources.image.image_folder import ImageFolder
from warmstart.data.sources.text.text_folder import TextFolder

pytestmark = pytest.mark.quick

KINDS = ("images", "sounds", "texts")
THREE = {f"{split}/{label}": rows for split, rows in (("train", 6), ("val", 2), ("test", 1)) for label in "ab"}


def write(folder: Path, kind: str, number: int, name: str | None = None) -> Path:
    """A file that differs from those of other numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"{number:03}.{dict(images='png', sounds='wav', texts='txt')[kind]}")
    if kind == "images":
        Image.new("L", (8, 8), number).save(path)
    elif kind == "sounds":
        soundfile.write(path, np.full(400, (number + 1) / 256), 8000)
    else:
        path.write_text(f"text {number}\n")
    return path


def numbers(x: object, kind: str) -> list[int]:
    """The numbers of the files that were read."""
    if kind == "images":
        return [int(image.max()) for image in x]
    if kind == "sounds":
        return [round(float(wave[0]) * 256) - 1 for wave in x.audio]
    return [int(text.split()[1]) for text in x.text]


def source(root: Path, kind: str) -> object:
    if kind == "images":
        return ImageFolder(str(root), size=8, channels=1)
    return AudioFolder(Frames, str(root)) if kind == "sounds" else TextFolder(Tokens, str(root))


@pytest.fixture
def built(tmp_path: Path) -> Callable[..., Path]:
    """A folder with so many files per folder; files are numbered in the order of the folders."""

    def build(layout: dict[str, int], kind: str = "images") -> Path:
        number = 0
        (tmp_path / "root").mkdir()
        for folder, count in layout.items():
            (tmp_path / "root" / folder).mkdir(parents=True, exist_ok=True)
            for _ in range(count):
                write(tmp_path / "root" / folder, kind, number)
                number += 1
        return tmp_path / "root"

    return build


def sizes(splits: Splits) -> list[int]:
    return [len(splits.train), len(splits.validation), len(splits.test)]


def load(root: Path, kind: str = "images") -> Splits:
    return source(root, kind).load("category")


@pytest.mark.parametrize("kind", KINDS)
def test_own_splits_are_kept_and_printed(kind: str, built: Callable, capsys: pytest.CaptureFixture):
    splits = load(built(THREE, kind), kind)
    assert "splits found: train 12, validation 4, test 2" in capsys.readouterr().err
    assert splits.labels == ("a", "b")
    parts = [splits.train, splits.validation, splits.test]
    assert [numbers(rows.x, kind) for rows in parts] == [list(range(12)), list(range(12, 16)), [16, 17]]
    assert [rows.y.tolist() for rows in parts] == [[0] * 6 + [1] * 6, [0, 0, 1, 1], [0, 1]]


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "VAL", "Test"),
        ("training", "validation", "testing"),
        ("TRAIN", "Valid", "test"),
        ("train", "dev", "test"),
        ("train", "eval", "test"),
    ],
    ids=str,
)
def test_splits_are_called_in_many_ways(names: tuple[str, ...], built: Callable):
    layout = {f"{name}/{label}": rows for name, rows in zip(names, (6, 2, 1)) for label in "ab"}
    assert sizes(load(built(layout))) == [12, 4, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_split_is_cut_from_the_training_rows(kind: str, built: Callable, capsys: pytest.CaptureFixture):
    splits = load(built({"train/a": 20, "train/b": 20, "test/a": 2, "test/b": 2}, kind), kind)
    assert "splits found: train 40, test 4; validation is taken from the training rows" in capsys.readouterr().err
    assert sizes(splits) == [34, 6, 4]
    assert numbers(splits.test.x, kind) == [40, 41, 42, 43]
    assert sorted(numbers(splits.train.x, kind) + numbers(splits.validation.x, kind)) == list(range(40))


def test_a_shifted_test_split_is_tested_on_as_well(built: Callable):
    splits = load(built({**THREE, "test_dark/a": 1, "test_dark/b": 2}))
    assert splits.shifts["dark"].y.tolist() == [0, 1, 1]
    assert sizes(splits) == [12, 4, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_is_called_exactly_as_its_folder(kind: str, built: Callable):
    splits = load(built({"01": 6, "1": 6, "NA": 6, "1.0": 6}, kind), kind)
    assert splits.labels == ("01", "1", "1.0", "NA")


REFUSED = {
    "a class that is tested only": ({**THREE, "test/c": 1}, "split test: class c is not in the split train"),
    "no split train": (
        {"val/a": 5, "val/b": 5, "test/a": 5, "test/b": 5},
        "has no split train: it has test, validation",
    ),
    "splits without classes": (
        {"train": 9, "test": 9},
        "no folder per class; expected ROOT/CLASS/FILE, or ROOT/train/",
    ),
    "one split without classes": ({"train/a": 5, "train/b": 5, "test": 4}, "test has no folder of images per class"),
    "splits below classes": ({"a/train": 5, "a/test": 5, "b/train": 5}, "a has the splits test, train"),
    "two of a split": ({**THREE, "dev/a": 2}, "two folders for the split validation: dev, val"),
    "one class": ({"a": 12}, "two or more; found only a"),
    "one folder further down": ({"data/a": 9, "data/b": 9}, "found only data; try data.root="),
    "too few": ({"a": 12, "b": 3}, "class b has 3 rows: 4 or more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_another_layout_is_refused(name: str, built: Callable):
    layout, message = REFUSED[name]
    with pytest.raises(UserError) as caught:
        load(built(layout))
    assert message in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_a_held_out_split_lacks_is_reported(built: Callable, capsys: pytest.CaptureFixture):
    assert sizes(load(built({**THREE, "train/c": 5, "val/c": 1}))) == [17, 5, 2]
    assert "warning: the split test has no class c" in capsys.readouterr().err


def test_a_class_may_be_called_train(built: Callable, capsys: pytest.CaptureFixture):
    assert load(built({"bus": 8, "train": 8})).labels == ("bus", "train")
    assert "train is read as a class, like bus" in capsys.readouterr().err


def test_folders_outside_of_the_splits_are_ignored_and_listed(built: Callable, capsys: pytest.CaptureFixture):
    assert load(built({**THREE, "extra/a": 9})).labels == ("a", "b")
    assert "skipped 1 folders that are not splits: extra" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_left_out_is_counted_and_named(kind: str, built: Callable, capsys: pytest.CaptureFixture):
    root = built({"a": 8, "b": 8, "b/deeper": 2, "empty": 0}, kind)
    write(root, kind, 99)
    for name in ("a/x.heic", "b/deeper/y.M4A", "z.mp4"):
        (root / name).write_bytes(b"data")
    for name in (".DS_Store", "a/.hidden.png", "a/Thumbs.db", "b/LICENSE"):
        (root / name).write_bytes(b"no data")
    splits = load(root, kind)
    assert sum(sizes(splits)) == 18
    printed = capsys.readouterr().err
    assert "skipped 3 files that cannot be read here: a/x.heic, b/deeper/y.M4A, z.mp4" in printed
    assert "skipped 1 files next to the class folders: 099" in printed
    assert f"skipped 1 folders without {kind} that can be read: empty" in printed
    assert not {name for name in (".DS_Store", "hidden", "Thumbs", "LICENSE") if name in printed}


def test_linked_folders_are_followed_inside_the_root_alone(
    built: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    root = built({"a": 6, ".store": 6, "a/inner": 2})
    (root / "b").symlink_to(root / ".store")
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "again").symlink_to(root / "a" / "inner")
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    write(tmp_path / "elsewhere", "images", 200)
    (root / "a" / "out").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    splits = load(root)
    assert splits.labels == ("a", "b")
    assert sum(sizes(splits)) == 14
    printed = capsys.readouterr().err
    assert f"skipped 2 links to folders outside of {root}: a/out, c" in printed
    assert "skipped 2 links to a parent folder: a/loop, a/self" in printed
    assert "skipped 1 broken links: a/gone.png" in printed


def test_the_same_files_give_the_same_parts_with_a_broken_one(built: Callable):
    root = built({"a": 10, "b": 10}, "sounds")
    before = load(root, "sounds")
    (root / "a" / "003.wav").write_bytes(b"")
    with pytest.raises(UserError, match=r"003\.wav is not a readable sound"):
        load(root, "sounds")
    kept = AudioFolder(Frames, str(root), on_error="skip").load("category")
    assert sum(sizes(kept)) == 19
    for one, other in zip((before.train, before.test), (kept.train, kept.test)):
        assert [name for name in one.x.file if not name.endswith("003.wav")] == list(other.x.file)


def test_a_class_whose_sounds_are_all_broken_is_named(built: Callable):
    root = built({"a": 10, "b": 10}, "sounds")
    for path in (root / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="class b has no recording to train on"):
        AudioFolder(Frames, str(root), on_error="skip").load("category")
