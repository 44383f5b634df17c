"""Manifests: segments of recordings, speakers, splits, missing targets, and skipped rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.data.preprocess.speech import Preprocessor
from warmstart.data.sources.audio.audio_table import AudioTable

pytestmark = pytest.mark.quick

RATE = 8000


def ramp(seconds: float = 4.0, number: int = 0) -> np.ndarray:
    """A waveform whose samples say where they are."""
    return ((np.arange(round(seconds * RATE)) + 1 + 100 * number) / 2**16).astype(np.float32)


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    """A manifest of these rows, in a folder with the recordings 0.wav to 19.wav and long.wav."""

    def build(rows: list[dict], name: str = "manifest.jsonl") -> Path:
        folder = tmp_path / "root"
        folder.mkdir(exist_ok=True)
        for number in range(20):
            soundfile.write(folder / f"{number}.wav", ramp(0.1, number), RATE, subtype="FLOAT")
        soundfile.write(folder / "long.wav", ramp(), RATE, subtype="FLOAT")
        (folder / name).write_text("\n".join(map(json.dumps, rows)) + "\n")
        return folder / name

    return build


def rows_of(count: int = 20, **columns: Callable[[int], object]) -> list[dict]:
    return [
        {"audio": f"{n}.wav", "label": "ab"[n % 2], **{key: of(n) for key, of in columns.items()}} for n in range(count)
    ]


def load(path: Path, target: str | None = "category", **settings) -> Splits:
    return AudioTable(Preprocessor, str(path), **settings).load(target)


def parts(splits: Splits) -> list[list[str]]:
    return [[Path(name).stem for name in rows.x.file] for rows in (splits.train, splits.validation, splits.test)]


def test_offset_and_duration_cut_pieces(manifest: Callable, capsys: pytest.CaptureFixture):
    given = [(0.5, 0.25), (None, 1.0), (3.5, None), (0, 4.05), ("1.25", "0.5"), (None, None)] * 2
    rows = [
        {"audio_filepath": "long.wav", "offset": offset, "duration": duration, "text": "a b"}
        for offset, duration in given
    ]
    splits = load(manifest(rows), "text")
    assert "a part of 10 of 12 recordings is read (columns offset and duration)" in capsys.readouterr().err
    found = {}
    for part in (splits.train, splits.validation, splits.test):
        for name, wave in zip(part.x.file, part.x.audio):
            found[name.partition(", ")[2]] = (round(float(wave[0]) * 2**16) - 1, len(wave))
    assert found == {
        "0.5 s to 0.75 s": (4000, 2000),
        "0 s to 1 s": (0, 8000),
        "3.5 s to the end": (28000, 4000),
        "0 s to 4.05 s": (0, 32000),
        "1.25 s to 1.75 s": (10000, 4000),
        "": (0, 32000),
    }


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        ({"offset": 5}, r"row 3\): the offset of 5 s is beyond the end of the recording, 4.00 s"),
        ({"offset": 3, "duration": 2}, r"row 3\): 3 s and a duration of 2 s end after the recording, 4.00 s"),
        ({"duration": 4000}, r"row 3\): 0 s and a duration of 4000 s end after the recording"),
        ({"offset": -1}, "row 3: offset -1"),
        ({"duration": 0}, "row 3: offset nan and duration 0"),
        ({"duration": "long"}, "row 3, column duration: 'long' is not a number"),
    ],
    ids=str,
)
def test_a_piece_that_is_not_there_is_refused_with_its_row(piece: dict, message: str, manifest: Callable):
    rows = rows_of(12)
    rows[2] = {"audio": "long.wav", "label": "a", **piece}
    path = manifest(rows)
    with pytest.raises(UserError, match=message):
        load(path)
    kept = ("offset" in piece and piece["offset"] < 0) or piece.get("duration") in (0, "long")
    if not kept:
        assert sum(map(len, parts(load(path, on_error="skip")))) == 11


def test_absolute_paths_inside_the_folder_are_read(manifest: Callable, tmp_path: Path):
    rows = rows_of(12)
    path = manifest([{**row, "audio": str(tmp_path / "root" / row["audio"])} for row in rows])
    assert parts(load(path)) == parts(load(manifest(rows)))
    soundfile.write(tmp_path / "out.wav", ramp(), RATE)
    path = manifest([*rows, {"audio": str(tmp_path / "out.wav"), "label": "a"}])
    for on_error in ("raise", "skip"):
        with pytest.raises(UserError, match=r"row 13: '.*out\.wav' is not below"):
            load(path, on_error=on_error)


def test_missing_files_and_empty_cells_are_skipped_where_asked(manifest: Callable, capsys: pytest.CaptureFixture):
    rows = rows_of()
    rows[4]["audio"], rows[6]["audio"] = "gone.wav", ""
    path = manifest(rows)
    with pytest.raises(UserError, match="row 7: column audio names no file"):
        load(path)
    assert sum(map(len, parts(load(path, on_error="skip")))) == 18
    printed = capsys.readouterr().err
    assert "skipped 2 of 20 sounds" in printed
    assert f"gone.wav ({'data.root='}{path}, row 5): there is no such file" in printed
    assert "row 7, column audio" in printed


def test_rows_without_a_class_are_counted(manifest: Callable, capsys: pytest.CaptureFixture):
    rows = rows_of(label=lambda n: "ab"[n % 2] if n < 14 else None)
    splits = load(manifest(rows))
    assert sum(map(len, parts(splits))) == 14
    assert all(set(rows.y) == {0, 1} for rows in (splits.train, splits.validation, splits.test))
    assert "6 of 20 rows have no target (column label)" in capsys.readouterr().err


def test_names_are_the_texts_of_their_cells(manifest: Callable):
    splits = load(manifest(rows_of(label=lambda n: ["01", "1", "NA", "None"][n % 4])))
    assert splits.labels == ("01", "1", "NA", "None")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"who": lambda n: None if n in (4, 9) else f"s{n % 4}"}, "2 of 20 rows have no cluster .* the first is row 5"),
        ({"who": lambda n: "  " if n == 4 else f"s{n % 4}"}, "1 of 20 rows have no cluster .* the first is row 5"),
        (
            {"who": lambda n: f"s{n % 5}", "label": lambda n: "c" if n % 5 == HELD else "ab"[n % 2]},
            "no row to train on is of class c: set another data.split_seed",
        ),
        (
            {
                "who": lambda n: f"s{KEPT if n < 12 else n % 5}",
                "label": lambda n: "ab"[n % 2] if n < 12 else None,
            },
            "no row of the split validation has a class: set another data.split_seed",
        ),
        ({"who": lambda n: "xy"[n % 2]}, "there are 2 clusters, but 3 are needed"),
    ],
    ids=["empty", "blank", "class of a tested speaker", "one speaker has classes", "two speakers"],
)
def test_speakers_that_do_not_do_are_refused(columns: dict, message: str, manifest: Callable):
    with pytest.raises(UserError, match=message):
        load(manifest(rows_of(**columns)), cluster="who")


HELD, KEPT = 2, 4  # with the seed 0, the speaker s2 is tested on, and s4 is trained on


def test_speakers_without_a_class_and_classes_that_are_not_tested_are_reported(manifest: Callable, capsys):
    rows = rows_of(
        who=lambda n: f"s{n % 5}", label=lambda n: None if n % 5 == 4 else "a" if n % 5 == HELD else "ab"[n // 5 % 2]
    )
    splits = load(manifest(rows), cluster="who")
    assert set(splits.test.y) == {0}
    printed = capsys.readouterr().err
    assert "1 of 5 clusters have no row with a target: s4" in printed
    assert "warning: the split test has no row of class b: set another data.split_seed" in printed


def write_splits(manifest: Callable, who: Callable[[str, int], str]) -> Path:
    for name, numbers in (("train", range(14)), ("test", range(14, 20))):
        rows = [{"audio": f"{n}.wav", "label": "ab"[n % 2], "who": who(name, n)} for n in numbers]
        path = manifest(rows, f"{name}.jsonl")
    return path.parent


@pytest.mark.parametrize("cluster", [None, "who"])
def test_own_splits_are_kept(cluster: str | None, manifest: Callable, capsys: pytest.CaptureFixture):
    root = write_splits(manifest, lambda name, n: f"{name}{n % 4}")
    splits = load(root, cluster=cluster)
    train, validation, test = parts(splits)
    assert test == [str(n) for n in range(14, 20)]
    assert sorted(train + validation, key=int) == [str(n) for n in range(14)]
    printed = capsys.readouterr().err
    assert "splits found: train 14, test 6; validation is taken from the training rows" in printed
    assert "as well" not in printed
    if cluster:
        assert not {int(n) % 4 for n in train} & {int(n) % 4 for n in validation}


def test_speakers_of_two_splits_are_refused_unless_rows_are_split(manifest: Callable):
    root = write_splits(manifest, lambda name, n: f"s{n % 4}" if n < 18 else "new")
    with pytest.raises(UserError, match="3 of 5 clusters of the split test are also in train"):
        load(root, cluster="who")
    splits = load(root, cluster="who", split="row")
    assert list(splits.test.cluster) == ["s2", "s3", "s0", "s1", "new", "new"]
    assert not splits.keeps_clusters


def test_predictions_say_which_piece_they_are_of(manifest: Callable, tmp_path: Path):
    rows = [
        {"audio": "long.wav", "offset": 1, "duration": 0.5},
        {"audio": "gone.wav"},
        {"audio": "long.wav", "offset": 3},
    ]
    path = manifest(rows)
    path.write_text(path.read_text().replace("\n", "\n\n", 1))  # a blank line, which counts
    given = Preprocessor().read(str(path), on_error="skip")
    assert list(given.rows) == [1, 4]
    assert list(given.parts) == [{"offset": 1.0, "duration": 0.5}, {"offset": 3.0}]
    assert [len(wave) for wave in given.x.audio] == [4000, 8000]
    assert given.files[0].endswith("long.wav")


def test_a_folder_of_recordings_to_predict_keeps_the_numbers_of_those_left(manifest: Callable, capsys):
    root = manifest(rows_of()).parent
    (root / "10.wav").write_bytes(b"")
    (root / "x.m4a").write_bytes(b"")
    given = Preprocessor().read(str(root), on_error="skip")
    assert 3 not in given.rows
    assert list(given.rows)[:3] == [1, 2, 4]  # sorted by name: 0.wav, 1.wav, 10.wav, 11.wav
    assert Path(given.files[2]).name == "11.wav"
    assert "skipped 1 files that cannot be read here: x.m4a" in capsys.readouterr().err


def test_a_list_of_samples_is_refused_by_row(manifest: Callable):
    rows = rows_of(audio=lambda n: [0.1, 0.2] if n == 3 else f"{n}.wav")
    with pytest.raises(UserError, match="row 4, column audio: this is a list"):
        load(manifest(rows))
