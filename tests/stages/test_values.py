"""Values of a table are kept exactly in classes, encodings and predictions of a run."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
from warmstart.data.sources.image.image_table import ImageTable
from warmstart.data.sources.table import Table
from warmstart.data.sources.text.text_table import TextTable

FAST = ("visualization=[]", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1")
CITIES = ["Oslo", "Rome", "NA", "None"]


def table(path: Path, rows: int = 120, **columns: Callable[[int], object]) -> str:
    """A CSV file whose cells are functions of the row's number."""
    lines = [",".join(columns), *(",".join(str(cell(row)) for cell in columns.values()) for row in range(rows))]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def parts(splits: Splits) -> list:
    return [splits.train, splits.validation, splits.test]


def test_a_category_is_known_in_every_part_whatever_else_its_column_holds(tmp_path: Path):
    rooms = ["1.5", *(str(1 + row % 3) for row in range(1, 120))]
    source = Table(
        table(tmp_path / "t.csv", rooms=lambda row: rooms[row], n=lambda row: row, y=lambda row: row % 2),
        "y",
        ["rooms"],
    )
    splits = source.load("category")
    preprocessor = source.preprocessor()
    preprocessor.fit(splits.train.x)
    known = {name for name in splits.train.x.rooms}
    for rows in parts(splits):
        encoded = preprocessor.encode(rows.x)[:, : len(known)].numpy()
        assert encoded.sum(1).tolist() == [float(name in known) for name in rows.x.rooms]
    assert {"1", "2", "3"} <= known


@pytest.mark.parametrize("kept", [slice(None), slice(1, None), slice(3, 5)], ids=["all", "without A1", "two"])
def test_a_slice_of_a_table_is_encoded_as_in_the_table(kept: slice, tmp_path: Path):
    codes = ["A1", "01", "02", "1.5", "2", "3", "007"]
    source = Table(
        table(tmp_path / "t.csv", 140, code=lambda row: codes[row % 7], y=lambda row: row % 2), "y", ["code"]
    )
    splits = source.load("category")
    preprocessor = source.preprocessor()
    preprocessor.fit(splits.train.x)
    complete = table(tmp_path / "complete.csv", 7, code=lambda row: codes[row])
    piece = tmp_path / "piece.csv"
    piece.write_text("code\n" + "".join(f"{code}\n" for code in codes[kept]))
    encoded = [preprocessor.encode(preprocessor.read(path).x).tolist() for path in (complete, str(piece))]
    assert encoded[0][kept] == encoded[1]
    assert all(map(sum, encoded[0]))


def test_classes_are_the_texts_of_their_cells_in_every_source(tmp_path: Path):
    names = ["01", "1", "NA", "None", "true", "1.0"]
    for number in range(120):
        Image.fromarray(np.full((4, 4, 3), number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    path = table(
        tmp_path / "t.csv",
        text=lambda row: f"text {row}",
        img=lambda row: f"{row}.png",
        n=lambda row: row,
        y=lambda row: names[row % 6],
    )
    sources = (
        Table(path, "y", ignore=["text", "img"]),
        TextTable(dict, path, "text", "y"),
        ImageTable(path, "img", "y", size=4),
    )
    for source in sources:
        splits = source.load("category")
        assert splits.labels == tuple(sorted(names))
        assert sum(map(len, parts(splits))) == 120
    numbers = [int(text.removeprefix("text ")) for text in sources[1].load("category").test.x.text]
    assert [names[number % 6] for number in numbers] == [
        sources[1].load("category").labels[y] for y in sources[1].load("category").test.y
    ]


def test_labels_that_look_missing_are_classes_and_rows_without_one_are_counted(tmp_path: Path, capfd):
    path = table(tmp_path / "t.csv", n=lambda row: row, y=lambda row: ["NA", "EU", "AS"][row % 3])
    splits = Table(path, "y").load("category")
    assert splits.labels == ("AS", "EU", "NA")
    assert sum(map(len, parts(splits))) == 120
    assert "no target" not in capfd.readouterr().err
    splits = Table(path, "y", missing_values=["NA"]).load("category")
    assert splits.labels == ("AS", "EU")
    assert len(splits.unlabelled) == 40
    assert "40 of 120 rows have no target (column y)" in capfd.readouterr().err


def test_numbers_beyond_a_float_are_different_classes(tmp_path: Path):
    path = table(tmp_path / "t.csv", n=lambda row: row, y=lambda row: 9007199254740992 + row % 2)
    assert Table(path, "y").load("category").labels == ("9007199254740992", "9007199254740993")


def test_a_table_may_bring_its_own_splits(tmp_path: Path, capfd):
    for name, count in (("Train", 60), ("VAL", 20), ("test", 16)):
        (tmp_path / "data" / name).mkdir(parents=True)
        table(tmp_path / "data" / name / "rows.csv", count, n=lambda row: row, y=lambda row: row % 2)
    splits = Table(str(tmp_path / "data"), "y").load("category")
    assert [len(rows) for rows in parts(splits)] == [60, 20, 16]
    assert "splits found: train 60, validation 20, test 16" in capfd.readouterr().err


@pytest.fixture
def trained(cli, tmp_path: Path) -> str:
    """The words that train on a table of a number and a category."""
    cells = {"size": lambda row: row % 9, "city": lambda row: CITIES[row % 4], "price": lambda row: row % 2}
    path = table(tmp_path / "homes.csv", **cells)
    words = ("experiment=table", f"data.root={path}", "data.target=price", "data.categorical=[city]")
    assert cli("stage=finetune", "init=scratch", *words, *FAST).status == 0
    return path


def predictions(outcome) -> list[dict]:
    assert outcome.status == 0, outcome.err
    return [json.loads(line) for line in outcome.out.splitlines()]


def test_predictions_do_not_depend_on_how_their_file_is_written(trained: str, cli, tmp_path: Path):
    frame = pd.DataFrame({"size": [1, 2, 3], "city": ["NA", "None", "Oslo"]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame[["city", "size"]].assign(extra="x").to_csv(tmp_path / "b.csv", index=False, sep=";")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    frame.astype({"size": float}).to_parquet(tmp_path / "d.parquet")
    frame.to_json(tmp_path / "e.jsonl", orient="records", lines=True)
    found = [predictions(cli("stage=predict", f"input={path}")) for path in sorted(tmp_path.glob("[a-e].*"))]
    assert len(found) == 5
    assert all(one == found[0] for one in found[1:])
    (tmp_path / "blank.csv").write_text("size,city\n\n1,NA\n\n\n2,None\n")
    assert [row["row"] for row in predictions(cli("stage=predict", f"input={tmp_path / 'blank.csv'}"))] == [2, 5]
    (tmp_path / "trailing.csv").write_text("size,city\n1,Oslo,\n")
    outcome = cli("stage=predict", f"input={tmp_path / 'trailing.csv'}")
    assert outcome.status == 2
    assert "row 1: 3 cells, but the header has 2" in outcome.error


def test_categories_that_training_never_saw_are_counted_and_named(trained: str, cli, tmp_path: Path):
    cities = ["Oslo"] * 37 + ["Bergen", "Bergen", "na"]
    path = table(tmp_path / "new.csv", 40, size=lambda row: row, city=lambda row: cities[row])
    outcome = cli("stage=predict", f"input={path}")
    assert len(predictions(outcome)) == 40
    assert "warning: 3 of 40 rows have a city not seen in training: Bergen, na" in outcome.err


def test_a_missing_column_is_refused_or_filled_where_asked(trained: str, cli, tmp_path: Path):
    run = cli("stage=evaluate").run("finetune")
    path = table(tmp_path / "new.csv", 3, city=lambda row: "Oslo", other=lambda row: row)
    outcome = cli("stage=predict", f"input={path}", f"run={run}")
    assert outcome.status == 2
    assert "the table has no column size" in outcome.error
    assert "city" not in outcome.error
    outcome = cli("stage=predict", f"input={path}", f"run={run}", "data.missing_columns=fill")
    sizes = rebuild(json.loads((run / "model" / "preprocessor.json").read_text())).columns[0]
    assert f"no column size: every cell is {sizes['fill']:g}" in outcome.err
    complete = table(tmp_path / "complete.csv", 3, size=lambda row: sizes["fill"], city=lambda row: "Oslo")
    assert predictions(outcome) == predictions(cli("stage=predict", f"input={complete}", f"run={run}"))


def test_latest_is_the_newest_run_of_the_columns_that_are_there(trained: str, cli, tmp_path: Path):
    first = cli("stage=evaluate").run("finetune")
    other = table(tmp_path / "other.csv", a=lambda row: row, y=lambda row: row % 2)
    words = ("experiment=table", f"data.root={other}", "data.target=y")
    assert cli("stage=finetune", "init=scratch", *words, *FAST).status == 0
    homes = table(tmp_path / "new.csv", 3, size=lambda row: row, city=lambda row: "Oslo")
    for typed in ((), ("experiment=table",)):
        assert f"predicting with {first}" in cli("stage=predict", f"input={homes}", *typed).err
    neither = table(tmp_path / "neither.csv", 3, b=lambda row: row)
    outcome = cli("stage=predict", f"input={neither}")
    assert outcome.status == 2
    assert "was trained on a; " in outcome.error
    assert f"{first} was trained on size, city" in outcome.error


def test_limits_of_a_training_leave_no_row_without_a_prediction(cli, tmp_path: Path):
    path = table(tmp_path / "t.csv", n=lambda row: row, y=lambda row: row % 2)
    words = ("experiment=table", f"data.root={path}", "data.target=y", "+trainer.limit_predict_batches=1", *FAST)
    assert cli("stage=finetune", "init=scratch", *words).status == 0
    path = table(tmp_path / "new.csv", 1200, n=lambda row: row)
    assert len(predictions(cli("stage=predict", f"input={path}"))) == 1200


def test_latest_takes_inputs_of_the_kind_that_is_given(trained: str, cli, tmp_path: Path):
    path = table(tmp_path / "texts.csv", 40, text=lambda row: f"a text of {row} words", y=lambda row: row % 2)
    words = (
        "experiment=text",
        f"data.root={path}",
        "data.text=text",
        "data.target=y",
        "data.tokenizer.model=characters",
    )
    small = ("backbone.width=16", "backbone.depth=1", "backbone.heads=2")
    assert cli("stage=finetune", "init=scratch", *words, *small, *FAST).status == 0
    homes = table(tmp_path / "new.csv", 3, size=lambda row: row, city=lambda row: "Oslo")
    assert "finetune/table/" in cli("stage=predict", f"input={homes}").err
    (tmp_path / "lines.txt").write_text("a text\n\nanother\n")
    assert [row["row"] for row in predictions(cli("stage=predict", f"input={tmp_path / 'lines.txt'}"))] == [1, 3]
    Image.new("L", (4, 4)).save(tmp_path / "photo.png")
    outcome = cli("stage=predict", f"input={tmp_path / 'photo.png'}")
    assert outcome.status == 2
    assert "was trained on text; " in outcome.error


def test_a_prediction_may_be_written_otherwise_than_the_data(trained: str, cli, tmp_path: Path):
    (tmp_path / "new.csv").write_text("size^city\n1^Oslo\nn.a.^Rome\n")
    words = ("stage=predict", f"input={tmp_path / 'new.csv'}", "data.separator='^'")
    refused = cli(*words)
    assert refused.status == 2
    assert "row 2, column size: 'n.a.' is not a number" in refused.error
    refused = cli(*words, "data.missing_values=['n.a.']")
    assert "row 2, column size: the value is missing" in refused.error
    assert cli(*words, "data.missing_values=-999").status == 2
    (tmp_path / "new.csv").write_text("size^city\n1^Oslo\n2^Rome\n")
    assert len(predictions(cli(*words))) == 2


def test_a_pretraining_of_another_table_is_not_the_latest_start(cli, tmp_path: Path):
    homes = table(tmp_path / "homes.csv", size=lambda row: row, rooms=lambda row: row % 5, y=lambda row: row % 2)
    other = table(tmp_path / "other.csv", a=lambda row: row, b=lambda row: row, y=lambda row: row % 2)
    for path in (homes, other):
        words = ("experiment=table", f"data.root={path}", "data.target=y", *FAST)
        assert cli("stage=pretrain", *words).status == 0
    start = cli("stage=report", "runs=nowhere").runs("pretrain")[0]
    outcome = cli("stage=finetune", "experiment=table", f"data.root={homes}", "data.target=y", *FAST)
    assert outcome.status == 0, outcome.err
    assert f"init=latest is {start}" in outcome.err


def test_images_are_predicted_from_the_very_table_that_they_were_trained_on(cli, tmp_path: Path):
    for number in range(40):
        Image.fromarray(np.full((8, 8, 3), 6 * number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    path = table(tmp_path / "t.csv", 40, photo=lambda row: f"{row}.png", y=lambda row: "dark" if row < 20 else "light")
    words = ("data=image_table", f"data.root={path}", "data.image=photo", "data.target=y", "data.size=8")
    outcome = cli("stage=finetune", "experiment=images", "init=scratch", *words, *FAST)
    assert outcome.status == 0, outcome.err
    found = predictions(cli("stage=predict", f"input={path}"))
    assert [row["file"] for row in found] == [str(tmp_path / f"{number}.png") for number in range(40)]


@pytest.mark.parametrize("value", ["-999", "NA"])
def test_a_missing_value_that_is_no_list_is_refused(cli, tmp_path: Path, value: str):
    path = table(tmp_path / "t.csv", 40, n=lambda row: row, y=lambda row: "ab"[row % 2])
    words = (f"data.root={path}", "data.target=y", f"data.missing_values={value}")
    outcome = cli("stage=finetune", "experiment=table", "init=scratch", *words, *FAST)
    assert outcome.status == 2
    assert f"data.missing_values={value}: must be a list" in outcome.error


def test_a_bad_cell_is_refused_before_torch_is_imported(tmp_path: Path):
    (tmp_path / "t.csv").write_text("n,y\n" + "1,a\n2,b\n" * 19 + "NA,a\n")
    words = ["stage=pretrain", "experiment=table", f"data.root={tmp_path / 't.csv'}", "data.target=y"]
    code = "import sys; from warmstart import main; sys.argv = ['train.py', *sys.argv[1:]]\ntry: main.main()\n"
    code += "finally: print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 2
    assert "row 39, column n: 'NA' is not a number; if it stands for a missing value, add data.missing_values=[NA]" in (
        found.stderr
    )
    assert found.stdout == "False\n"


@pytest.mark.parametrize(("target", "kind"), [("y", "category"), (["z", "y"], "categories"), ("y", "value")])
def test_a_target_that_does_not_suit_is_named_by_its_row_of_the_file(target: object, kind: str, tmp_path: Path):
    rows = [{"x": str(row), "y": row % 2, "z": 1} for row in range(20)]
    rows[5]["y"] = ["a"] if kind != "categories" else 3
    path = tmp_path / "t.jsonl"
    path.write_text("\n\n" + "\n".join(map(json.dumps, rows)))
    for source in (Table(str(path), target), ImageTable(str(path), "x", target, on_error="skip")):
        with pytest.raises(UserError, match="row 8, column y"):
            source.load(kind)


def test_a_split_that_is_used_as_another_is_printed(tmp_path: Path, capfd):
    (tmp_path / "data").mkdir()
    table(tmp_path / "data" / "test.csv", 20, n=lambda row: row, y=lambda row: row % 2)
    Table(str(tmp_path / "data"), "y").load("category")
    assert "test is the only split; it is used as train" in capfd.readouterr().err


def test_a_class_of_few_rows_is_kept_where_no_part_is_cut(tmp_path: Path, capfd):
    for name in ("train", "validation", "test"):
        rows = [{"x": row, "y": "rare" if row < 2 else "ab"[row % 2]} for row in range(20)] + [{"x": 20, "y": None}]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits = Table(str(tmp_path), "y").load("category")
    assert np.bincount(splits.train.y).tolist() == [9, 9, 2]
    assert len(splits.unlabelled) == 1
    assert (
        "3 of 63 rows have no target (column y): they are used in pretraining only, except 2" in capfd.readouterr().err
    )
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(UserError, match="class rare has 2 rows"):
        Table(str(tmp_path), "y").load("category")
