"""Image sources: file formats, tables, errors, and storage."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from warmstart.core.errors import UserError
from warmstart.data.datamodule import GenericDataModule
from warmstart.data.preprocess.image import Preprocessor
from warmstart.data.readers.images import Picture, read_images, to_pictures
from warmstart.data.sources.image.image_folder import ImageFolder
from warmstart.data.sources.image.image_table import ImageTable

pytestmark = pytest.mark.quick

RED = (200, 40, 40)


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def claiming(width: int, height: int) -> bytes:
    """An image whose header claims this size."""
    content = encoded(Image.new("L", (2, 2)), "gif")
    return content[:6] + struct.pack("<HH", width, height) + content[10:]


def colour_of(content: bytes, channels: int = 3) -> list[int]:
    """The middle pixel of an image as it is read."""
    return read_images([Picture("it", content)], (channels, 8, 8))[0, :, 4, 4].tolist()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 images in two classes, and a table that names them in names.csv and holds them in held.parquet."""
    generator, rows = np.random.default_rng(0), []
    for label in ("cat", "dog"):
        (tmp_path / "in" / label).mkdir(parents=True)
        for index in range(12):
            content = encoded(Image.fromarray(generator.integers(0, 255, (10, 14, 3), dtype=np.uint8)))
            (tmp_path / "in" / label / f"{index:02}.png").write_bytes(content)
            stored = {"bytes": content, "path": None}
            rows.append({"path": f"{label}/{index:02}.png", "img": stored, "label": label, "a": index % 2, "b": 1})
    frame = pd.DataFrame(rows)
    frame["both"] = [["a", "b"] if a else ["b"] for a in frame.a]
    frame["gap"] = [None if row == 2 else path for row, path in enumerate(frame.path)]
    frame.drop(columns=["img", "both"]).to_csv(tmp_path / "in" / "names.csv", index=False)
    frame.to_parquet(tmp_path / "in" / "held.parquet")
    return tmp_path / "in"


def table(root: Path, image: str = "path", target: object = "label", **settings) -> ImageTable:
    return ImageTable(str(root), image, target, size=8, **settings)


@pytest.mark.parametrize(
    ("content", "channels", "colour"),
    [
        (encoded(Image.new("RGB", (20, 30), RED)), 3, RED),
        (encoded(Image.new("RGB", (900, 700), RED), "jpeg", quality=95), 3, RED),
        (encoded(Image.new("RGB", (20, 30), RED), "webp", lossless=True), 3, RED),
        (encoded(Image.new("L", (20, 30), 77)), 3, (77, 77, 77)),
        (encoded(Image.new("I;16", (9, 9), 77 * 257)), 1, (77,)),
        (encoded(Image.new("RGB", (20, 30), RED)), 1, (88,)),
        (encoded(Image.new("RGBA", (20, 30), (*RED, 0))), 3, (255, 255, 255)),
        (encoded(Image.new("RGBA", (20, 30), (0, 0, 0, 51))), 1, (204,)),
        (encoded(Image.new("P", (20, 30), 0), transparency=0), 3, (255, 255, 255)),
        (encoded(Image.new("1", (20, 30), 1)), 3, (255, 255, 255)),
    ],
    ids=["png", "jpeg", "webp", "grey", "deep", "to-grey", "clear", "half-clear", "clear-palette", "black-white"],
)
def test_every_kind_of_image_is_read_and_what_is_clear_is_white(content: bytes, channels: int, colour: tuple):
    assert np.abs(np.subtract(colour_of(content, channels), colour)).max() <= 2


def test_an_extension_that_is_wrong_does_no_harm(folder: Path):
    (folder / "cat" / "00.png").rename(folder / "cat" / "00.jpg")
    assert len(ImageFolder(str(folder), size=8).load(None).train) == 16


BROKEN = {
    "empty": (b"", "it is empty"),
    "text": (b"no picture", "not a readable image"),
    "truncated": (
        encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)))[:900],
        "file",
    ),
    "one pixel": (encoded(Image.new("L", (1, 1))), "has 1 x 1 pixels: each side needs 2"),
    "beyond the limit": (claiming(9000, 9000), "9,000 x 9,000 pixels, larger than 67,108,864"),
    "gigapixel": (claiming(2**15, 2**15), "larger than 67,108,864"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_named_or_skipped_and_listed(name: str, folder: Path, capfd: pytest.CaptureFixture):
    content, reason = BROKEN[name]
    path = folder / "dog" / "03.png"
    path.write_bytes(content)
    sources = (ImageFolder(str(folder), size=8), table(folder / "names.csv"))
    for source in sources:
        with pytest.raises(UserError, match=r"03\.png") as caught:
            source.load("category")
        assert reason in str(caught.value)
    complete = ImageFolder(str(folder), size=8, on_error="skip").load("category")
    assert sum(map(len, (complete.train, complete.validation, complete.test))) == 23
    stderr = capfd.readouterr().err
    assert "1 of 24 images are skipped" in stderr
    assert "dog/03.png" in stderr
    assert reason in stderr


def test_files_that_are_no_images_are_left_out(folder: Path):
    for name in ("notes.txt", "cat/Thumbs.db", "cat/.hidden.png", "cat/._00.png"):
        (folder / name).write_text("no picture")
    (folder / "empty").mkdir()
    assert ImageFolder(str(folder), size=8).load("category").labels == ("cat", "dog")


def test_the_disk_serves_what_the_memory_would(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    (folder / "dog" / "03.png").write_bytes(b"")

    def prepared(**settings) -> GenericDataModule:
        source = table(folder / "names.csv", on_error="skip", **settings)
        return GenericDataModule(source, None, 8, order_seed=0).prepare()

    memory, first = prepared(), prepared(memory_mb=0)
    (folder / "cat" / "00.png").stat()
    again = prepared(memory_mb=0)
    assert memory.fingerprint == first.fingerprint == again.fingerprint
    assert isinstance(again.raw, np.memmap)
    assert len(list((tmp_path / "cache" / "images").iterdir())) == 1
    Image.new("RGB", (9, 9), RED).save(folder / "cat" / "00.png")
    assert prepared(memory_mb=0).fingerprint == prepared().fingerprint != memory.fingerprint


def test_a_table_that_holds_its_images_is_the_one_that_names_them(folder: Path):
    named = table(folder / "names.csv").load("category")
    held = table(folder / "held.parquet", "img").load("category")
    assert named.labels == held.labels == ("cat", "dog")
    for one, other in ((named.train, held.train), (named.test, held.test)):
        assert np.array_equal(one.x, other.x)
        assert np.array_equal(one.y, other.y)
    assert len(table(folder / "held.parquet", "img", None).load(None).train) == 16


@pytest.mark.parametrize("target", [["a", "b"], "both"])
def test_several_labels_are_columns_or_lists(target: object, folder: Path):
    splits = table(folder / "held.parquet", "img", target).load("categories")
    assert splits.labels == ("a", "b")
    assert splits.train.y.dtype == np.float32
    assert (splits.train.y[:, 1] == 1).all()
    assert set(splits.train.y[:, 0]) == {0, 1}
    with pytest.raises(UserError, match="several labels"):
        table(folder / "held.parquet", "img", target).load("category")


def test_an_empty_label_in_a_list_is_refused(folder: Path):
    frame = pd.read_parquet(folder / "held.parquet")
    frame.at[3, "both"] = ["a", None]
    frame.to_parquet(folder / "held.parquet")
    with pytest.raises(UserError, match=r"row 4, column both: a label is empty \(1 such rows\)"):
        table(folder / "held.parquet", "img", "both").load("categories")


def test_values_are_predicted_and_rows_without_a_target_serve_pretraining(folder: Path):
    frame = pd.read_csv(folder / "names.csv")
    frame.loc[:1, "a"] = None
    frame.to_csv(folder / "names.csv", index=False)
    splits = table(folder / "names.csv", target="a").load("value")
    assert splits.train.y.shape == (len(splits.train), 1)
    assert splits.unlabelled.x.shape == (2, 3, 8, 8)


def test_the_data_sets_own_splits_are_kept(folder: Path, tmp_path: Path):
    (tmp_path / "hub").mkdir()
    frame = pd.read_parquet(folder / "held.parquet")[["img", "label"]]
    for name, rows in (("train", frame[:22]), ("test", frame[4:8])):
        rows.to_parquet(tmp_path / "hub" / f"{name}-00000-of-00001.parquet")
    splits = table(tmp_path / "hub", "img").load("category")
    test = read_images(to_pictures(sorted((folder / "cat").iterdir())[4:8]), (3, 8, 8))
    assert np.array_equal(splits.test.x, test)
    assert len(splits.train) + len(splits.validation) == 22


@pytest.mark.parametrize("name", ["../out.png", "cat/../../out.png", "{root}/../out.png", "link.png", "links/out.png"])
def test_paths_that_lead_out_of_the_folder_are_refused(name: str, folder: Path, tmp_path: Path):
    Image.new("RGB", (9, 9), RED).save(tmp_path / "out.png")
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    (folder / "links").symlink_to(tmp_path)
    frame = pd.read_csv(folder / "names.csv")
    frame.loc[4, "path"] = name.format(root=folder)
    frame.to_csv(folder / "names.csv", index=False)
    for on_error in ("raise", "skip"):
        with pytest.raises(UserError, match=r"row 5.*is outside of"):
            table(folder / "names.csv", on_error=on_error).load("category")


def test_missing_files_are_counted_and_the_first_named(folder: Path):
    for index in range(7):
        (folder / "cat" / f"{index:02}.png").unlink()
    with pytest.raises(UserError, match=r"7 of 24 files.*cat/00.png, .*cat/04.png, \.\.\.$"):
        table(folder / "names.csv").load("category")
    kept = table(folder / "names.csv", on_error="skip").load("category")
    assert sum(map(len, (kept.train, kept.validation, kept.test))) == 17


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "picture"}, "no column picture (data.image)"),
        ({"target": "kind"}, "no column kind (data.target)"),
        ({"target": None}, "data.target=null"),
        ({"image": "a"}, "24 of 24 files are not below"),
        ({"image": "gap"}, "row 3, column gap: the cell is empty: give a path, or bytes"),
        ({"target": "b"}, "of one class"),
    ],
    ids=str,
)
def test_settings_that_do_not_suit_the_table(settings: dict, message: str, folder: Path):
    with pytest.raises(UserError) as caught:
        table(folder / "names.csv", **settings).load("category")
    assert message in str(caught.value)


def test_a_class_whose_images_are_all_broken_is_named(folder: Path):
    for path in (folder / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="class dog has no image"):
        table(folder / "names.csv", on_error="skip").load("category")


def test_images_to_predict_keep_their_numbers_where_others_are_skipped(folder: Path, capfd: pytest.CaptureFixture):
    prepared = Preprocessor(shape=[3, 8, 8], mean=[0.0] * 3, std=[1.0] * 3)
    (folder / "cat" / "01.png").write_bytes(b"")
    (folder / "cat" / "02.png").unlink()
    (folder / "dog" / "x.heic").write_bytes(b"")
    frame = pd.read_csv(folder / "names.csv")
    frame.loc[5, "path"] = None
    (folder / "names.csv").write_text(frame.to_csv(index=False).replace("cat/00.png", "\n\ncat/00.png", 1))
    with pytest.raises(UserError, match="row"):
        prepared.read(str(folder / "names.csv"))
    given = prepared.read(str(folder / "names.csv"), on_error="skip")
    assert list(given.rows)[:4] == [3, 6, 7, 9]  # two blank lines come first
    assert len(given) == len(given.x) == 21
    given = prepared.read(str(folder), on_error="skip")
    assert list(given.rows) == [1, *range(3, 24)]
    assert Path(given.files[1]).name == "03.png"
    printed = capfd.readouterr().err
    assert "1 of 23 images are skipped" in printed
    assert "skipped 2 files that cannot be read here: dog/x.heic, held.parquet" in printed


def test_absolute_paths_inside_the_folder_are_read(folder: Path):
    plain = table(folder / "names.csv").load("category")
    frame = pd.read_csv(folder / "names.csv")
    frame["path"] = [str(folder / path) for path in frame.path]
    frame.to_csv(folder / "absolute.csv", index=False)
    assert np.array_equal(table(folder / "absolute.csv").load("category").train.x, plain.train.x)


def test_a_row_without_an_image_is_skipped_where_asked(folder: Path, capfd: pytest.CaptureFixture):
    kept = table(folder / "names.csv", "gap", on_error="skip").load("category")
    assert sum(map(len, (kept.train, kept.validation, kept.test))) == 23
    assert "row 3, column gap is not a readable image: it is empty" in capfd.readouterr().err
