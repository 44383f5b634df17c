"""Duplicates across splits are detected in every modality; rows that are equal by chance are not counted."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from PIL import Image

from warmstart.core.batch import Rows
from warmstart.core.protocols import Source
from warmstart.data.duplicates.overlap import parts_of, shared_rows
from warmstart.data.preprocess.speech import Preprocessor as Frames
from warmstart.data.preprocess.table import Preprocessor as Cells
from warmstart.data.preprocess.text import Preprocessor as Tokens
from warmstart.data.preprocess.vector import Preprocessor as Numbers
from warmstart.data.sources.audio.audio_table import AudioTable
from warmstart.data.sources.image.digits import Digits
from warmstart.data.sources.image.image_table import ImageTable
from warmstart.data.sources.several import Several
from warmstart.data.sources.table import Table
from warmstart.data.sources.text.text_table import TextTable
from warmstart.data.sources.text.xquad import XQuAD
from warmstart.data.sources.vectors import Vectors

pytestmark = pytest.mark.quick

SIZES = {"train": 40, "validation": 12, "test": 16}


def found_in(source: Source, target: str | None) -> dict[str, dict[str, Any]]:
    return shared_rows(parts_of(source.load(target)), source.preprocessor(), target)


def write(root: Path, frames: dict[str, pd.DataFrame]) -> str:
    """A folder with a JSON lines file for each part."""
    root.mkdir()
    for name, frame in frames.items():
        frame.to_json(root / f"{name}.jsonl", orient="records", lines=True)
    return str(root)


def measured(seed: int = 0) -> dict[str, pd.DataFrame]:
    """Three measurements, a category and targets."""
    generator = np.random.default_rng(seed)
    frames = {}
    for name, count in SIZES.items():
        frame = pd.DataFrame(generator.normal(size=(count, 3)).round(3), columns=["a", "b", "c"])
        frame["d"] = generator.choice(["u", "v"], count)
        frames[name] = frame.assign(y=np.arange(count) % 2, z=generator.normal(size=count))
    return frames


def sentences(seed: int = 0, length: int = 12) -> dict[str, pd.DataFrame]:
    """Texts of words that are drawn at random, with a second text, tags and a class."""
    generator = np.random.default_rng(seed)
    frames = {}
    for name, count in SIZES.items():
        words = [[f"w{number}" for number in row] for row in generator.integers(5000, size=(count, length))]
        other = [" ".join(f"v{number}" for number in row) for row in generator.integers(5000, size=(count, 9))]
        frame = pd.DataFrame({"text": [" ".join(row) for row in words], "other": other, "words": words})
        frames[name] = frame.assign(y=np.arange(count) % 2, tags=[["A", "B"] * (length // 2)] * count)
    return frames


def test_copied_rows_of_a_table_are_counted_by_their_targets(tmp_path: Path):
    frames = measured()
    frames["test"].loc[[4, 9], ["a", "b", "c", "d"]] = frames["train"].loc[[31, 6], ["a", "b", "c", "d"]].to_numpy()
    frames["test"].loc[4, "y"], frames["test"].loc[9, "y"] = frames["train"].y[31], 1 - frames["train"].y[6]
    frames["validation"].loc[11, :] = frames["train"].loc[0]
    frames["test"].loc[15, :] = frames["validation"].loc[2]
    source = Table(write(tmp_path / "t", frames), "y", ["d"], ["z"])
    row = frames["test"].loc[4]
    shown = f"a={row.a}, b={row.b}, c={row.c}, ..."
    assert found_in(source, "category") == {
        "train/validation": {
            "rows": 12,
            "exact": 1,
            "near": 0,
            "other_target": 0,
            "first": {"row": 12, "equals": 1, "shown": (at := shown_cells(frames["train"].loc[0])), "as": at},
        },
        "train/test": {
            "rows": 16,
            "exact": 2,
            "near": 0,
            "other_target": 1,
            "first": {"row": 5, "equals": 32, "shown": shown, "as": shown},
        },
        "validation/test": {
            "rows": 16,
            "exact": 1,
            "near": 0,
            "other_target": 0,
            "first": {"row": 16, "equals": 3, "shown": (at := shown_cells(frames["test"].loc[15])), "as": at},
        },
    }


def shown_cells(row: pd.Series) -> str:
    return f"a={row.a}, b={row.b}, c={row.c}, ..."


@pytest.mark.parametrize(("columns", "target"), [(["z"], "value"), (["y", "x"], "categories")])
def test_real_values_and_several_labels_are_targets_too(tmp_path: Path, columns: list[str], target: str):
    frames = {name: frame.assign(x=frame.y.to_numpy()[::-1]) for name, frame in measured().items()}
    frames["test"].loc[[3, 7], :] = frames["train"].loc[[5, 6]].to_numpy()
    frames["test"].loc[7, columns[0]] = 1 - frames["test"].loc[7, columns[0]]
    ignored = sorted({"x", "y", "z"} - set(columns))
    found = found_in(Table(write(tmp_path / "t", frames), columns, ["d"], ignored), target)
    assert found.keys() == {"train/test"}
    assert [found["train/test"][key] for key in ("exact", "other_target")] == [2, 1]


def test_cells_are_equal_by_their_role():
    train = pd.DataFrame({"n": ["1.50", "0", "7", ""], "m": ["2", "3", "4.25", "9"], "k": ["01", "1", "a", "b"]})
    train = train.replace("", None)
    test = pd.DataFrame({"n": ["1.5", "-0", "7", None], "m": ["2.0", "3e0", "4.25", "9"], "k": ["1", "1", "A", "b"]})
    parts = {"train": Rows(train), "test": Rows(test)}
    found = shared_rows(parts, Cells(["k"]), None)["train/test"]
    assert (found["exact"], found["first"]["row"], found["first"]["equals"]) == (2, 2, 2)


def test_a_missing_category_is_equal_to_a_missing_one():
    train = pd.DataFrame({"n": [1.25, 2.5], "m": [3.5, 4.75], "k": [None, "a"]})
    found = shared_rows({"train": Rows(train), "test": Rows(train.iloc[[0]])}, Cells(["k"]), None)
    assert found["train/test"]["exact"] == 1


@pytest.mark.parametrize("kind", ["independent", "dependent", "one column"])
def test_equal_rows_of_a_small_discrete_table_are_chance(kind: str):
    generator = np.random.default_rng(0)
    if kind == "independent":
        table = pd.DataFrame(generator.choice(list("abcd"), (300, 2)), columns=["p", "q"])
    elif kind == "dependent":  # votes of two parties, which chance would not repeat if they were independent
        party = generator.integers(2, size=(300, 1))
        votes = np.where(generator.random((300, 16)) < 0.93, party, 1 - party)
        table = pd.DataFrame(np.where(votes, "yes", "no"), columns=[f"vote {number}" for number in range(16)])
    else:
        table = pd.DataFrame({"p": generator.integers(50, size=300).astype(str)})
    train, test = table.iloc[:200], table.iloc[200:]
    equal = test.apply(tuple, axis=1).isin(set(train.apply(tuple, axis=1)))
    assert equal.sum() > 20
    assert shared_rows({"train": Rows(train), "test": Rows(test)}, Cells(list(table)), None) == {}


def test_copies_that_a_data_set_brings_are_found_where_its_parts_are_cut_from_one_file(tmp_path: Path):
    frame = pd.concat(measured().values(), ignore_index=True).drop(columns="z")
    doubled = pd.concat([frame, frame.iloc[:30]])
    doubled.to_csv(tmp_path / "one.csv", index=False)
    source = Table(str(tmp_path / "one.csv"), "y", ["d"])
    splits = source.load("category")
    rows = {name: list(map(tuple, part.x.to_numpy())) for name, part in parts_of(splits).items()}
    expected = {
        f"{seen}/{held}": sum(row in rows[seen] for row in rows[held])
        for seen, held in (("train", "validation"), ("train", "test"), ("validation", "test"))
    }
    found = shared_rows(parts_of(splits), source.preprocessor(), "category")
    assert {pair: shared["exact"] for pair, shared in found.items()} == {k: n for k, n in expected.items() if n}
    assert expected["train/test"] > 0
    frame.to_csv(tmp_path / "one.csv", index=False)
    assert found_in(source, "category") == {}


@pytest.mark.parametrize("kind", [np.float32, np.uint8])
def test_copied_arrays_are_found_exactly_and_nearly(kind: type):
    generator = np.random.default_rng(0)
    parts = {name: Rows(generator.integers(0, 255, (count, 3, 6, 6)).astype(kind)) for name, count in SIZES.items()}
    assert shared_rows(parts, Digits().preprocessor(), None) == {}
    parts["test"].x[3] = parts["train"].x[8]
    parts["test"].x[5] = np.where(parts["train"].x[9] < 5, 5, parts["train"].x[9] - 1)
    parts["test"].x[6] = parts["train"].x[7] = 200  # blank
    found = shared_rows(parts, Digits().preprocessor(), None)
    first = {"row": 4, "equals": 9, "shown": "", "as": ""}
    assert found == {"train/test": {"rows": 16, "exact": 1, "near": 1, "first": first}}


def test_vectors_are_compared_as_they_are():
    splits = Vectors(rows=200).load("category")
    parts = parts_of(splits)
    assert shared_rows(parts, Numbers(), "category") == {}
    parts["validation"].x[2] = parts["train"].x[100]
    parts["validation"].y[2] = parts["train"].y[100]
    parts["validation"].x[4] = parts["train"].x[50] + np.float32(0.01)
    shared = shared_rows(parts, Numbers(), "category")["train/validation"]
    assert [shared[name] for name in ("exact", "near", "other_target")] == [1, 1, 0]


def test_a_search_that_would_take_too_long_is_left_out_and_printed(monkeypatch: pytest.MonkeyPatch, capfd):
    generator = np.random.default_rng(0)
    parts = {name: Rows(generator.normal(size=(count, 40))) for name, count in SIZES.items()}
    parts["test"].x[[0, 1]] = parts["train"].x[[0, 1]]
    parts["test"].x[1] += 1e-3
    assert shared_rows(parts, Numbers(), None)["train/test"]["near"] == 1
    monkeypatch.setattr("warmstart.data.duplicates.overlap.MOST_VALUES", 40 * 40 - 1)
    shared = shared_rows(parts, Numbers(), None)["train/test"]
    assert (shared["exact"], shared["near"]) == (1, None)
    assert "the 40 rows of train are too many to search for near copies" in capfd.readouterr().err


def test_the_same_picture_in_two_files_is_found(tmp_path: Path):
    generator = np.random.default_rng(0)
    frames = {}
    for name, count in SIZES.items():
        frames[name] = pd.DataFrame({"file": [f"{name}{row}.png" for row in range(count)], "y": np.arange(count) % 2})
    root = write(tmp_path / "t", frames)
    for frame in frames.values():
        for file in frame.file:
            Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(f"{root}/{file}")
    source = ImageTable(root, "file", "y", size=8)
    assert found_in(source, "category") == {}
    Image.open(f"{root}/train20.png").save(f"{root}/test2.png", compress_level=0)
    frames["test"].loc[6, "file"] = "train21.png"
    frames["test"].to_json(f"{root}/test.jsonl", orient="records", lines=True)
    shared = found_in(source, "category")["train/test"]
    assert [shared[name] for name in ("exact", "near", "other_target")] == [2, 0, 1]
    assert shared["first"] == {"row": 3, "equals": 21, "shown": "", "as": ""}


def test_texts_are_equal_by_their_words_and_short_ones_by_chance(tmp_path: Path):
    frames = sentences()
    source = TextTable(Tokens, write(tmp_path / "t", frames), "text", "y")
    assert found_in(source, "category") == {}
    train, test = frames["train"], frames["test"]
    test.loc[2, "text"] = train.text[13].upper().replace(" ", ", ") + "!"
    test.loc[3, "text"] = " ".join(train.text[14].split()[1:])
    train.loc[30, "text"] = test.loc[5, "text"] = "not very good."
    write(tmp_path / "again", frames)
    source.root = str(tmp_path / "again")
    shared = found_in(source, "category")["train/test"]
    assert [shared[name] for name in ("exact", "near", "other_target")] == [1, 1, 1]
    assert (shared["first"]["row"], shared["first"]["equals"]) == (3, 14)
    assert shared["first"]["shown"] == test.text[2][:37] + "..."


def test_a_pair_of_texts_is_a_copy_where_both_are(tmp_path: Path):
    frames = sentences()
    train, test = frames["train"], frames["test"]
    test.loc[1, ["text", "other"]] = train.loc[7, ["text", "other"]].to_numpy()
    test.loc[2, "text"] = train.text[8]
    test.loc[3, ["text", "other"]] = [train.text[9], train.other[10]]
    test.loc[4, ["text", "other"]] = [train.text[11], train.other[11] + " more"]
    source = TextTable(Tokens, write(tmp_path / "t", frames), "text", "y", pair="other")
    shared = found_in(source, "category")["train/test"]
    assert [shared[name] for name in ("exact", "near", "other_target")] == [1, 1, 0]
    assert (shared["first"]["row"], shared["first"]["equals"]) == (2, 8)


def test_tagged_words_are_a_text(tmp_path: Path):
    frames = sentences()
    source = TextTable(Tokens, write(tmp_path / "t", frames), "words", "tags")
    assert found_in(source, "tags") == {}
    frames["validation"].loc[5, "words"] = frames["train"].words[3]
    frames["validation"].at[5, "tags"] = ["B", "B"] * 6
    source.root = write(tmp_path / "again", frames)
    shared = found_in(source, "tags")
    assert shared.keys() == {"train/validation"}
    assert [shared["train/validation"][name] for name in ("exact", "near", "other_target")] == [1, 0, 1]


def test_a_question_and_its_context_or_the_context_alone(tmp_path: Path):
    frames = {}
    for name, frame in sentences().items():
        answers = [{"text": [other.split()[0]], "answer_start": [0]} for other in frame.other]
        frames[name] = pd.DataFrame({"question": frame.text, "context": frame.other, "answers": answers})
    source = XQuAD(Tokens, write(tmp_path / "t", frames), None)
    assert found_in(source, "span") == {}
    train, test = frames["train"], frames["test"]
    test.loc[10] = train.loc[17]
    test.loc[[4, 12], ["context", "answers"]] = train.loc[[2, 3], ["context", "answers"]].to_numpy()
    source.root = write(tmp_path / "again", frames)
    shared = found_in(source, "span")
    assert shared.keys() == {"train/test"}
    names = ("exact", "near", "same_context", "other_target")
    assert [shared["train/test"][name] for name in names] == [1, 0, 2, 0]
    assert (shared["train/test"]["first"]["row"], shared["train/test"]["first"]["equals"]) == (11, 18)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """40 recordings of noise, and a manifest of them."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(40):
        soundfile.write(tmp_path / f"{number:02}.wav", 0.1 * generator.normal(size=800).astype(np.float32), 8000)
        rows.append({"audio": f"{number:02}.wav", "label": "ab"[number % 2]})
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path / "m.jsonl"


def test_the_same_recording_is_found_sample_by_sample_and_both_files_are_named(manifest: Path):
    source = AudioTable(partial(Frames, rate=8000), str(manifest))
    assert found_in(source, "category") == {}
    splits = source.load("category")
    copied, original = splits.test.x.file[1], splits.train.x.file[3]
    values, rate = soundfile.read(original, dtype="int16")
    soundfile.write(copied, values, rate)
    same = splits.test.y[1] == splits.train.y[3]
    first = {"row": 2, "equals": 4, "shown": copied, "as": original}
    shared = {"rows": len(splits.test), "exact": 1, "near": 0, "other_target": int(not same), "first": first}
    assert found_in(source, "category") == {"train/test": shared}


def test_shifted_test_parts_are_compared_with_the_training_rows_alone():
    splits = Digits().load("category")
    splits.shifts = {"same": Rows(splits.test.x.copy(), splits.test.y)}
    assert shared_rows(parts_of(splits), Digits().preprocessor(), "category") == {}
    splits.shifts["same"].x[9] = splits.train.x[2]
    found = shared_rows(parts_of(splits), Digits().preprocessor(), "category")
    assert {pair: (shared["exact"], shared["first"]["row"]) for pair, shared in found.items()} == {
        "train/test_same": (1, 10)
    }


def test_two_data_sets_that_share_rows():
    source = Several({"a": partial(Digits, split_seed=0), "b": partial(Digits, split_seed=1)})
    splits = source.load("category")
    seen = {row.tobytes() for row in splits.train.x}
    found = shared_rows(parts_of(splits), source.preprocessor(), "category")
    expected = sum(row.tobytes() in seen for row in splits.test.x)
    assert found["train/test"]["exact"] == found["train/test"]["other_target"] == expected > 300


@pytest.mark.parametrize("split_seed", range(3))
def test_the_digits_share_no_rows(split_seed: int):
    assert found_in(Digits(split_seed), "category") == {}
