"""The reader of tables: cells do not depend on other rows or on the file format."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest

from warmstart.core.errors import UserError
from warmstart.data.readers.columns import to_names, to_numbers
from warmstart.data.readers.splits import read_splits
from warmstart.data.readers.table import Dialect, header_of, read_numbers, read_table

pytestmark = pytest.mark.quick


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def names(path: Path, column: str, dialect: Dialect | None = None) -> list[str | None]:
    return to_names(read_table(path, dialect)[column], "t").tolist()


@pytest.mark.parametrize(
    "cells",
    [
        ["1", "2", "3"],
        ["1", "1.5", "2"],
        ["01", "1", "1.0"],
        ["A1", "01", "02"],
        ["NA", "None", "nan", "null", "NaN", "N/A"],
        ["True", "true", "FALSE"],
        ["9007199254740993", "9007199254740992"],
        [" a", "a", "a "],
        ["1e3", "1000", "1_000"],
        ["2020-01-02", "٣", "\u200b"],
    ],
)
def test_a_name_is_the_text_of_its_cell_in_any_company(cells: list[str], tmp_path: Path):
    for chosen in (cells, cells[1:], cells[:1]):
        path = written(tmp_path / "t.csv", "x,y\n" + "".join(f"{cell},0\n" for cell in chosen))
        assert names(path, "x") == chosen


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "a,b\nx,1.5\n,NA\nü,3\n"),
        ("T.CSV", "a,b\r\nx,1.5\r\n,NA\r\nü,3\r\n"),
        ("t.csv", "\ufeffa,b\rx,1.5\r,NA\rü,3\r"),
        ("t.csv", '"a","b"\n"x","1.5"\n"","NA"\n"ü","3"'),
        ("t.csv", "a;b\nx;1.5\n;NA\nü;3\n"),
        ("t.csv", "sep=;\na;b\nx;1.5\n;NA\nü;3\n"),
        ("t.csv", "a|b\nx|1.5\n|NA\nü|3\n"),
        ("t.tsv", "a\tb\nx\t1.5\n\tNA\nü\t3\n"),
        ("t.csv.gz", gzip.compress("a,b\nx,1.5\n,NA\nü,3\n".encode(), mtime=0)),
        ("t.jsonl", '{"a": "x", "b": 1.50}\n{"a": null, "b": "NA"}\n{"a": "ü", "b": 3.0}\n'),
        ("t.json", '[{"b": 1.5, "a": "x"}, {"b": "NA"}, {"a": "\\u00fc", "b": 3}]'),
    ],
)
def test_however_a_table_is_written_it_reads_the_same(name: str, content: str | bytes, tmp_path: Path):
    path = written(tmp_path / name, content)
    assert names(path, "a") == ["x", None, "ü"]
    assert names(path, "b") == ["1.5", "NA", "3"]
    assert names(path, "b", Dialect(missing=("NA",))) == ["1.5", None, "3"]
    assert read_table(path).index.tolist() == [1, 2, 3]
    assert sorted(header_of(path)) == ["a", "b"]


def test_a_header_is_read_without_the_rows(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbf\r\n"a,b";c\r\n' + b"1;2\r\n" * 100_000 + b"\xff")
    assert header_of(path) == ["a,b", "c"]
    path.write_text("sep=|\n\na,b|c\n")
    assert header_of(path) == ["a,b", "c"]
    for damaged in (b"", b"\xff", b"a,a\n", b'"a,b'):
        path.write_bytes(damaged)
        assert header_of(path) is None


def test_typed_numbers_have_one_name_in_columns_of_any_type(tmp_path: Path):
    for column in ([1, 2, 3], [1, None, 3], [1.0, 2.5, 3.0]):
        pd.DataFrame({"x": column}).to_parquet(tmp_path / "t.parquet")
        assert names(tmp_path / "t.parquet", "x")[::2] == ["1", "3"]
    pd.DataFrame({"x": pd.array([2**60 + 1, None], dtype="Int64")}).to_parquet(tmp_path / "t.parquet")
    assert names(tmp_path / "t.parquet", "x") == [str(2**60 + 1), None]
    pd.DataFrame({"x": np.float32([0.1, 2])}).to_parquet(tmp_path / "t.parquet")
    assert names(tmp_path / "t.parquet", "x") == ["0.1", "2"]
    pd.DataFrame({"x": pd.Categorical(["b", None, "a"]), "y": [True, None, False]}).to_parquet(tmp_path / "t.parquet")
    assert names(tmp_path / "t.parquet", "x") == ["b", None, "a"]
    assert names(tmp_path / "t.parquet", "y") == ["True", None, "False"]


def test_an_index_of_a_parquet_file_is_a_column_where_it_has_a_name(tmp_path: Path):
    frame = pd.DataFrame({"x": [1, 2]}, index=pd.Index(["a", "b"], name="who"))
    frame.to_parquet(tmp_path / "t.parquet")
    assert names(tmp_path / "t.parquet", "who") == ["a", "b"]
    frame.rename_axis(None).to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet")) == ["x"] == header_of(tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2,\n", r"row 1: 3 cells, but the header has 2\. .* data\.separator="),
        ("a,b\n1,2\n\n3\n", r"row 3: 1 cells, but the header has 2"),
        ("a,b,\n1,2\n", r"row 1: 2 cells, but the header has 3"),
        ('a,b\n1,2\n3,"4\n5,6\n', r"row 2 \(near line 4\): a quote is not closed"),
        ('a,b\n1,"x"y\n', r"row 1 \(near line 2\): .*double each quote"),
        ("a,b,a\n1,2,3\n", "two columns are called a"),
        ("a,b\n", "has no rows"),
        ("\n\n", "is empty"),
        ("a,b\n1,\0\n", "is binary"),
    ],
)
def test_a_damaged_table_is_refused_by_its_row(content: str, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        read_table(written(tmp_path / "t.csv", content))


def test_an_object_with_two_values_of_one_name_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match=r"line 2 is not JSON .*two values called a"):
        read_table(written(tmp_path / "t.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n'))


def test_rows_are_counted_as_in_the_file(tmp_path: Path):
    csv = written(tmp_path / "t.csv", '\na,b\n\n1,"two\nlines"\n   \n2,x\n')
    assert read_table(csv).index.tolist() == [2, 4]
    lines = written(tmp_path / "t.jsonl", '\n{"a": 1}\n\n{"a": 2}\n')
    assert read_table(lines).index.tolist() == [2, 4]
    assert read_numbers(written(tmp_path / "n.csv", "\n1,2\n\n3,4\n"), 2).rows == [1, 3]
    assert read_numbers(written(tmp_path / "n.csv", "x,y\n1,2\n\n3,4\n"), 2).rows == [1, 3]


def test_a_missing_number_may_be_written_with_zeros_after_the_point(tmp_path: Path):
    path = written(tmp_path / "t.csv", "x\n-999\n-999.0\n-999.00\n-999.5\n-9990\n")
    for listed in ("-999", "-999.0"):
        assert names(path, "x", Dialect(missing=(listed,))) == [None, None, None, "-999.5", "-9990"]
    path = written(tmp_path / "t.csv", "x\nv1\nv1.0\n1.0\n1\n")
    assert names(path, "x", Dialect(missing=("-999", "v1.0"))) == ["v1", None, "1.0", "1"]


def test_a_quoted_empty_cell_of_a_single_column_is_a_missing_cell(tmp_path: Path):
    assert names(written(tmp_path / "t.csv", 'a\nx\n""\n\ny\n'), "a") == ["x", None, "y"]


def test_a_cell_of_any_length_is_read(tmp_path: Path):
    path = written(tmp_path / "t.csv", f"a,b\n{'x' * 300_000},1\n")
    assert len(names(path, "a")[0]) == 300_000


def test_numbers_are_those_that_python_reads_and_no_others():
    column = pd.Series([" 1.5 ", "-2e3", None, "+.5", "True", "1700000000.25"], dtype=object)
    assert to_numbers(column, "t")[[0, 1, 3, 4, 5]].tolist() == [1.5, -2000.0, 0.5, 1.0, 1700000000.25]
    assert np.isnan(to_numbers(column, "t")[2])


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("1_000", "'1_000' is not a number"),
        ("1,5", "is not a number"),
        ("٣", "is not a number"),
        ("0x10", "is not a number"),
        ("12%", "is not a number"),
        ("nan", r"add data\.missing_values=\[nan\]"),
        ("NA", r"add data\.missing_values=\[NA\]"),
        ("inf", "the value is infinite"),
        ("1e400", "the value is infinite"),
        ("1e39", "too large for 32-bit"),
    ],
)
def test_what_is_no_number_is_named_with_its_row(cell: str, message: str):
    column = pd.Series(["1", cell], index=[1, 7], dtype=object, name="x")
    with pytest.raises(UserError, match=f"t, row 7, column x: .*{message}"):
        to_numbers(column, "t")


def test_a_folder_has_the_splits_that_its_files_are_named_after(tmp_path: Path):
    for name in ("Training.csv", "sub/VAL/part.csv", "my-test.csv", "test_rotated.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        written(tmp_path / name, f"x\n{name}\n")
    found = {name: frame.x.tolist() for name, frame in read_splits(str(tmp_path)).items()}
    assert found == {
        "train": ["Training.csv"],
        "validation": ["sub/VAL/part.csv"],
        "test": ["my-test.csv"],
        "test_rotated": ["test_rotated.csv"],
    }
    written(tmp_path / "other.csv", "x\n1\n")
    with pytest.raises(UserError, match=r"other\.csv has no split"):
        read_splits(str(tmp_path))


def test_shards_of_a_split_are_one_table_and_must_have_the_same_columns(tmp_path: Path):
    for number in range(2):
        written(tmp_path / f"train-0000{number}-of-00002.csv", f"x,y\n0{number},1\n")
    assert read_splits(str(tmp_path))["train"].x.tolist() == ["00", "01"]
    written(tmp_path / "train-00001-of-00002.csv", "x\n01\n")
    with pytest.raises(UserError, match="differ in the columns y"):
        read_splits(str(tmp_path))


def test_tables_of_a_data_set_with_a_card_are_read_as_they_stand_too(tmp_path: Path):
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: a.csv}\n"
    written(tmp_path / "README.md", card + "  - {split: test, path: b.csv}\n---\n")
    written(tmp_path / "a.csv", "code,n\n01,1\nNA,2\n")
    written(tmp_path / "b.csv", "code,n\n02,1\n")
    frames = read_splits(str(tmp_path))
    assert {name: frame.code.tolist() for name, frame in frames.items()} == {"train": ["01", "NA"], "test": ["02"]}


def test_rows_of_json_with_other_keys_have_missing_cells(tmp_path: Path):
    rows = [{"a": 1, "n": 10**400}, {"b": [1, 2.0], "n": 0.1 + 0.2}, {"n": 0.10000000000000000555}]
    path = written(
        tmp_path / "t.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + '{"n": 1.00000000000000001}\n'
    )
    frame = read_table(path)
    assert frame.b.tolist() == [None, ["1", "2"], None, None]
    assert names(path, "n") == [str(10**400), "0.30000000000000004", "0.1", "1.00000000000000001"]


def test_class_numbers_have_their_names_in_a_file_as_in_its_folder(tmp_path: Path):
    features = datasets.Features({"y": datasets.ClassLabel(names=["cat", "dog"]), "n": datasets.Value("int64")})
    datasets.Dataset.from_dict({"y": [1, 0, -1], "n": [1, 2, 3]}, features).to_parquet(tmp_path / "train.parquet")
    for root in (tmp_path, tmp_path / "train.parquet"):
        (frame,) = read_splits(str(root)).values()
        assert to_names(frame["y"], "t").tolist() == ["dog", "cat", None]


def test_a_folder_of_pickles_is_never_unpickled(tmp_path: Path):
    pd.DataFrame({"x": [1]}).to_pickle(tmp_path / "train.pkl")
    with pytest.raises(UserError, match="cannot be loaded"):
        read_splits(str(tmp_path))


def test_a_folder_of_texts_is_no_table(tmp_path: Path):
    for name in ("01", "02"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "a.txt", "a text\n")
    with pytest.raises(UserError, match="data=text_files, or data=text_folder with a folder per class"):
        read_splits(str(tmp_path))


def test_listed_texts_are_missing_in_typed_columns_too(tmp_path: Path):
    whole, real = pd.array([1, None, -999], dtype="Int64"), np.array([0.5, -999, 1], dtype=np.float32)
    pd.DataFrame({"whole": whole, "real": real, "flag": [True, False, True]}).to_parquet(tmp_path / "t.parquet")
    frame = read_table(tmp_path / "t.parquet", Dialect(missing=(-999, "True")))
    assert frame.isna().to_numpy().tolist() == [[False, False, True], [True, True, False], [True, False, True]]
    assert to_names(frame["whole"], "t").tolist() == ["1", None, None]


def test_records_without_any_name_are_no_rows(tmp_path: Path):
    with pytest.raises(UserError, match="has no rows"):
        read_table(written(tmp_path / "t.jsonl", "{}\n{}\n"))


def test_class_numbers_of_a_text_file_get_the_names_of_the_card(tmp_path: Path):
    names = "dtype: {class_label: {names: {'0': neg, '1': pos, '2': '1'}}}"
    (tmp_path / "README.md").write_text(
        f"---\ndataset_info:\n  features:\n  - {{name: x, dtype: string}}\n  - {{name: y, {names}}}\n---\n"
    )
    (tmp_path / "train.csv").write_text("x,y\na,0\nb,-1\nc,pos\nd,2\ne,\n")
    frames = read_splits(str(tmp_path))
    assert to_names(frames["train"]["y"], "t").tolist() == ["neg", None, "pos", "1", None]
