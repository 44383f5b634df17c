"""Text sources: their splits, and errors for invalid data."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.data.preprocess.text import Preprocessor
from warmstart.data.readers.files import read_text
from warmstart.data.sources.text.film_reviews import FilmReviews
from warmstart.data.sources.text.shakespeare import Shakespeare
from warmstart.data.sources.text.sst2 import SST2
from warmstart.data.sources.text.text_files import TextFiles
from warmstart.data.sources.text.text_table import TextTable
from warmstart.data.sources.text.wikitext2 import WikiText2
from warmstart.data.sources.text.xquad import XQuAD

pytestmark = pytest.mark.quick

SENTENCES = [f"sentence number {number} of the set" for number in range(40)]
GRADES = ["good" if number % 2 else "bad" for number in range(40)]


def local(name: str) -> str:
    """A data set's local copy."""
    folder = os.environ.get("WARMSTART_DATA")
    if not folder:
        pytest.skip(f"WARMSTART_DATA is not set: there is no local copy of {name}")
    return str(Path(folder) / name)


def parts(splits: Splits) -> list[Rows]:
    return [splits.train, splits.validation, splits.test]


def sizes(splits: Splits) -> list[int]:
    return [len(rows) for rows in parts(splits)]


def check(splits: Splits, columns: tuple[str, ...] = ("text",)) -> None:
    """Tables of texts, numbered from 0, with as many targets as rows."""
    for rows in parts(splits):
        assert tuple(rows.x.columns) == columns
        assert list(rows.x.index) == list(range(len(rows)))
        assert all(isinstance(cell, str) for name in columns for cell in rows.x[name])
        assert rows.y is None or len(rows.y) == len(rows)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., str]:
    """Writes columns as CSV."""

    def write(name: str = "table.csv", **columns: Any) -> str:
        pd.DataFrame(columns).to_csv(tmp_path / name, index=False)
        return str(tmp_path / name)

    return write


# Plain files


def test_a_single_document_is_cut_in_order(tmp_path: Path):
    text = "".join(f"line {number}\r\n" for number in range(1000))
    (tmp_path / "book.txt").write_bytes(text.encode())
    splits = TextFiles(dict, str(tmp_path / "book.txt")).load(None)
    check(splits)
    assert "".join(rows.x.text[0] for rows in parts(splits)) == text.replace("\r\n", "\n")
    shares = [len(rows.x.text[0]) / len(text.replace("\r\n", "\n")) for rows in parts(splits)]
    assert shares == pytest.approx([0.9, 0.05, 0.05], abs=0.001)


def test_rows_are_files_paragraphs_or_lines(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    for number in range(20):
        (tmp_path / "deep" / f"{number}.txt").write_text(
            f"title {number}\n\n  first\nsecond {number}\n \n\nlast {number}\n"
        )
    (tmp_path / "notes.md").write_text("not among them")

    def texts(**settings: Any) -> list[str]:
        splits = TextFiles(dict, str(tmp_path), **settings).load(None)
        check(splits)
        return sorted(text for rows in parts(splits) for text in rows.x.text)

    assert len(texts()) == 20
    paragraphs = texts(rows="paragraph")
    assert len(paragraphs) == 60
    assert "  first\nsecond 3" in paragraphs
    lines = texts(rows="line")
    assert len(lines) == 80
    assert "second 3" in lines
    assert not any("not among them" in text for text in texts())


def test_a_pattern_finds_other_files(tmp_path: Path):
    for number in range(12):
        (tmp_path / f"{number}.md").write_text(f"note {number}")
    splits = TextFiles(dict, f"{tmp_path}/**/*.md", validation=0.25, test=0.25).load(None)
    assert sizes(splits) == [6, 3, 3]
    again = TextFiles(dict, f"{tmp_path}/**/*.md", validation=0.25, test=0.25).load(None)
    assert again.test.x.equals(splits.test.x)
    with pytest.raises(UserError, match=r"no \.txt file"):
        TextFiles(dict, str(tmp_path)).load(None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x89PNG\r\n\x00\x1a", "binary, not text: byte 6"),
        ("ein schöner Tag".encode("latin-1"), r"not UTF-8 text \(byte 7 is 0xf6\)"),
        ("ein Tag".encode("utf-16"), r"not UTF-8 text \(byte 0"),
    ],
)
def test_files_that_are_not_text_are_refused_by_name_and_byte(content: bytes, message: str, tmp_path: Path):
    (tmp_path / "good.txt").write_text("good")
    (tmp_path / "odd.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"odd\.txt.*{message}"):
        TextFiles(dict, str(tmp_path), rows="line").load(None)


def test_a_byte_order_mark_is_no_text(tmp_path: Path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbffirst")
    assert read_text(tmp_path / "a.txt") == "first"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"root": "nowhere"}, "data.root=nowhere: there is no such file or folder"),
        ({"validation": 0.6, "test": 0.4}, "data.validation=0.6"),
        ({"rows": "paragraph"}, "at least 10 .*or set data.rows=line"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict, message: str, tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    with pytest.raises(UserError, match=message):
        TextFiles(dict, **{"root": str(tmp_path / "a.txt"), **settings}).load(None)


# Tables


def as_csv(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def as_tsv(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_csv(folder / "t.tsv", index=False, sep="\t")
    return folder / "t.tsv"


def as_parquet(frame: pd.DataFrame, folder: Path) -> Path:
    frame.to_parquet(folder / "t.parquet")
    return folder / "t.parquet"


def as_json(frame: pd.DataFrame, folder: Path) -> Path:
    (folder / "t.json").write_text(json.dumps(frame.to_dict("records"), indent=1))
    return folder / "t.json"


def as_json_lines(frame: pd.DataFrame, folder: Path) -> Path:
    return Path(write_lines(folder / "t.jsonl", frame.to_dict("records")))


@pytest.mark.parametrize("write", [as_csv, as_tsv, as_parquet, as_json, as_json_lines])
def test_every_format_reads_the_same(write: Callable[..., Path], tmp_path: Path):
    path = str(write(pd.DataFrame({"review": SENTENCES, "title": "a title", "grade": GRADES}), tmp_path))
    source = TextTable(dict, path, "review", "grade", pair="title")
    splits = source.load("category")
    check(splits, ("text", "pair"))
    assert sizes(splits) == [28, 6, 6]
    assert splits.labels == ("bad", "good")
    for rows in parts(splits):
        assert rows.y.dtype == np.int64
        for text, y in zip(rows.x.text, rows.y):
            assert splits.labels[y] == GRADES[SENTENCES.index(text)]
        assert rows.y.mean() == 0.5
    assert source.preprocessor()["columns"] == ["review", "title"]
    read = Preprocessor(columns=["review", "title"]).read(path)
    assert list(read.x.text) == SENTENCES
    assert list(read.x.columns) == ["text", "pair"]
    assert read.rows == list(range(1, 41))


def test_no_kind_of_target_moves_a_row_to_another_part(table: Callable[..., str]):
    stars = [number % 3 for number in range(40)]
    source = TextTable(dict, table(text=SENTENCES, stars=stars), "text", "stars")
    values, classes, nothing = (source.load(kind) for kind in ("value", "category", None))
    for one, other, third in zip(parts(values), parts(classes), parts(nothing)):
        assert one.x.equals(other.x)
        assert one.x.equals(third.x)
        assert one.y.tolist() == [[float(number)] for number in other.y]
    assert values.train.y.dtype == np.float64
    assert values.labels == ("stars",)


def test_rows_without_a_target_serve_pretraining_alone(table: Callable[..., str]):
    grades = [*GRADES[:30], *[None] * 10]
    splits = TextTable(dict, table(text=SENTENCES, grade=grades), "text", "grade").load("category")
    assert sum(sizes(splits)) == 30
    assert list(splits.unlabelled.x.text) == SENTENCES[30:]
    assert list(splits.unlabelled.x.index) == list(range(10))


def test_a_table_without_targets_is_enough_to_pretrain(table: Callable[..., str]):
    source = TextTable(dict, table(text=SENTENCES), "text")
    assert sizes(source.load(None)) == [28, 6, 6]
    with pytest.raises(UserError, match=r"data.target=null: name the column"):
        source.load("category")


def test_none_is_a_class_and_no_missing_cell(tmp_path: Path, table: Callable[..., str]):
    grades = ["None" if number % 2 else "NA" for number in range(40)]
    splits = TextTable(dict, table(text=SENTENCES, grade=grades), "text", "grade").load("category")
    assert splits.labels == ("NA", "None")
    (tmp_path / "folder").mkdir()
    for name in ("train", "test"):
        table(f"folder/{name}.csv", text=SENTENCES, grade=grades)
    splits = TextTable(dict, str(tmp_path / "folder"), "text", "grade").load("category")
    assert splits.labels == ("NA", "None")
    assert sizes(splits) == [34, 6, 40]


def test_given_splits_are_kept_and_what_is_missing_is_cut_from_training(tmp_path: Path):
    for name, count in (("train", 40), ("validation", 12), ("test", 20)):
        rows = [{"text": f"{name} {number}", "label": number % 2} for number in range(count)]
        write_lines(tmp_path / f"{name}.jsonl", rows)
    splits = TextTable(dict, str(tmp_path), "text", "label").load("category")
    check(splits)
    assert sizes(splits) == [40, 12, 20]
    assert set(splits.test.x.text.str.split().str[0]) == {"test"}
    (tmp_path / "validation.jsonl").unlink()
    splits = TextTable(dict, str(tmp_path), "text", "label").load("category")
    assert sizes(splits) == [34, 6, 20]
    assert set(splits.validation.x.text.str.split().str[0]) == {"train"}
    assert not set(splits.validation.x.text) & set(splits.train.x.text)


def test_class_numbers_become_names_and_an_unlabelled_test_split_is_replaced(tmp_path: Path, capfd: Any):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["negative", "positive"])}
    )
    labels = {"train": [number % 2 for number in range(40)], "test": [-1] * 10}
    found = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict({"text": SENTENCES[: len(y)], "label": y}, features=features)
            for name, y in labels.items()
        }
    )
    found.save_to_disk(str(tmp_path / "saved"))
    splits = TextTable(dict, str(tmp_path / "saved"), "text", "label").load("category")
    assert splits.labels == ("negative", "positive")
    assert sizes(splits) == [28, 6, 6]
    assert len(splits.unlabelled) == 0
    assert "the split test has no targets" in capfd.readouterr().err


def test_tags_are_lists_of_class_numbers_one_for_each_word(tmp_path: Path):
    rows = [{"words": ["Ann", "sees", f"town{n}"], "tags": ["B-PER", "O", "B-LOC"]} for n in range(20)]
    rows[3] = {"words": ["Ann"], "tags": ["B-PER"]}
    rows[4]["tags"] = None
    path = write_lines(tmp_path / "tags.jsonl", rows)
    splits = TextTable(dict, path, "words", "tags").load("tags")
    assert splits.labels == ("B-LOC", "B-PER", "O")
    assert sizes(splits) == [13, 3, 3]
    for part in parts(splits):
        assert part.y.dtype == object
        for words, tags in zip(part.x.text, part.y):
            assert tags == ([1, 2, 0] if len(words) == 3 else [1])
    assert list(splits.unlabelled.x.text) == [["Ann", "sees", "town4"]]
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "tags.parquet")
    same = TextTable(dict, str(tmp_path / "tags.parquet"), "words", "tags").load("tags")
    assert list(same.test.x.text) == list(splits.test.x.text)
    assert list(same.test.y) == list(splits.test.y)


@pytest.mark.parametrize(
    ("column", "kind", "message"),
    [
        (["good"] * 40, "category", r"all 40 rows are of one class \(good\)"),
        (["good"] * 38 + ["bad"] * 2, "category", "class bad has 2 rows"),
        ([None] * 40, "category", "column grade is empty in every training row"),
        (["1"] * 7 + ["many"] + ["2"] * 32, "value", "row 8, column grade: 'many' is not a number"),
        (GRADES, "tags", "column text: tags need lists"),
    ],
)
def test_targets_that_do_not_suit_are_refused(column: list, kind: str, message: str, table: Callable[..., str]):
    with pytest.raises(UserError, match=message):
        TextTable(dict, table(text=SENTENCES, grade=column), "text", "grade").load(kind)


def test_uneven_tags_are_refused_by_row(tmp_path: Path):
    rows = [{"words": ["a", "b"], "tags": ["X", "Y"]} for _ in range(12)]
    rows[6]["tags"] = ["X"]
    path = write_lines(tmp_path / "tags.jsonl", rows)
    with pytest.raises(UserError, match="row 7: 2 words but 1 tags"):
        TextTable(dict, path, "words", "tags").load("tags")
    with pytest.raises(UserError, match="lists of tags"):
        TextTable(dict, path, "words", "tags").load("category")
    rows[6]["tags"] = ["X", None]
    with pytest.raises(UserError, match="row 7, column tags: a tag is empty"):
        TextTable(dict, write_lines(tmp_path / "tags.jsonl", rows), "words", "tags").load("tags")


def test_a_class_that_is_only_tested_is_refused(tmp_path: Path):
    for name, labels in (("train", "ab"), ("test", "abc")):
        write_lines(tmp_path / f"{name}.jsonl", [{"text": f"{name} {n}", "y": y} for n in range(9) for y in labels])
    with pytest.raises(UserError, match="split test: class c is not in the split train"):
        TextTable(dict, str(tmp_path), "text", "y").load("category")


def test_commas_without_quotes_are_refused_in_a_folder_too(tmp_path: Path):
    (tmp_path / "train.csv").write_text("text,y\na nice, warm film,1\na grim, cold film,0\n")
    with pytest.raises(UserError, match=r"train.csv, row 1: 3 cells, but the header has 2"):
        TextTable(dict, str(tmp_path), "text", "y").load("category")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": "reviw"}, r"no column reviw \(data.text\); similar columns: review"),
        ({"target": "grad"}, r"no column grad \(data.target\); similar columns: grade"),
        ({"pair": "titel"}, r"no column titel \(data.pair\); similar columns: title"),
        ({"text": "title"}, r"row 3: the text \(column title\) is empty, as are 1 others"),
    ],
)
def test_a_missing_column_and_an_empty_text_are_named(settings: dict, message: str, table: Callable[..., str]):
    title = ["x", "x", None, " ", *["x"] * 36]
    path = table(review=SENTENCES, title=title, grade=GRADES)
    with pytest.raises(UserError, match=message):
        TextTable(dict, path, **{"text": "review", "target": "grade", **settings}).load("category")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"text": "a"}\n{"text": \n', "line 2 is not JSON"),
        ("t.jsonl", b'{"text": "a"}\n[1]\n', "entry 2 is not a JSON object"),
        ("t.csv", b"text,y\n", "has no rows"),
        ("t.csv", b"text y\na b\n", "no column text .*set data.separator="),
        ("t.csv", b"text,y\nno\xe9l,b\n", r"not UTF-8 text \(byte 9 is 0xe9\)"),
        ("t.csv", b"", "is empty"),
        ("t.parquet", b"PAR1", "cannot be read"),
        ("t.xlsx", b"PK", "is not a table"),
    ],
)
def test_broken_tables_are_refused(name: str, content: bytes, message: str, tmp_path: Path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        TextTable(dict, str(tmp_path / name), "text").load(None)
    assert name in str(caught.value)


def test_numbers_are_no_text(tmp_path: Path):
    pd.DataFrame({"text": range(20)}).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(UserError, match="column text: integer values are not text"):
        TextTable(dict, str(tmp_path / "t.parquet"), "text").load(None)


# Named data sets


@pytest.mark.parametrize(
    "source", [SST2, XQuAD, WikiText2, FilmReviews, lambda tokenizer, root: TextTable(tokenizer, root, "text")]
)
@pytest.mark.parametrize("root", ["somebody/something", "data/reviews.csv", "/nowhere/at/all", "nowhere"])
def test_missing_data_is_reported_in_a_line(source: Callable, root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=f"data.root={root}") as caught:
        source(dict, root=root).load(None)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("column", ["text", "sentence"])
def test_sst2_in_both_layouts(column: str, tmp_path: Path):
    for name, count in (("train", 12), ("validation", 6), ("test", 8)):
        rows = [{column: f"{name} {number}", "label": number % 2} for number in range(count)]
        write_lines(tmp_path / f"{name}.jsonl", rows)
    source = SST2(dict, str(tmp_path))
    splits = source.load("category")
    check(splits)
    assert sizes(splits) == [12, 6, 8]
    assert splits.labels == ("negative", "positive")
    assert splits.test.y.tolist() == [0, 1] * 4
    assert source.preprocessor() == {"columns": [column]}
    assert source.load(None).train.y is None
    write_lines(tmp_path / "test.jsonl", [{column: "a", "label": 1}, {column: "b", "label": -1}])
    with pytest.raises(UserError, match="split test, row 2: label -1"):
        SST2(dict, str(tmp_path)).load("category")
    (tmp_path / "test.jsonl").unlink()
    with pytest.raises(UserError, match="has no split test: it has train, validation"):
        SST2(dict, str(tmp_path)).load("category")


def squad(contexts: int, per_article: int) -> dict[str, Any]:
    """SQuAD's layout: two questions to each context."""
    articles: dict[str, list] = {}
    for number in range(contexts):
        title = f"Town {number // per_article}"
        context = f"{title} was founded by Ann in {1900 + number}. It is small."
        questions = [
            {"question": f"{word} {number}?", "answers": [{"text": text, "answer_start": context.index(text)}]}
            for word, text in (("Who", "Ann"), ("How", "small"))
        ]
        articles.setdefault(title, []).append({"context": context, "qas": questions})
    return {"version": "1.1", "data": [{"title": title, "paragraphs": found} for title, found in articles.items()]}


def test_questions_of_one_context_stay_in_one_part(tmp_path: Path):
    (tmp_path / "squad.json").write_text(json.dumps(squad(40, per_article=4)))
    splits = XQuAD(dict, str(tmp_path / "squad.json")).load("span")
    check(splits, ("text", "pair"))
    assert sum(sizes(splits)) == 80
    assert min(sizes(splits)) > 0
    contexts = [set(rows.x.pair) for rows in parts(splits)]
    titles = [{context.split(" was")[0] for context in part} for part in contexts]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not contexts[first] & contexts[second]
        assert not titles[first] & titles[second]
    for rows in parts(splits):
        assert [context.split(" was")[0] for context in rows.x.pair] == list(rows.cluster)
        for context, answers in zip(rows.x.pair, rows.y):
            assert [context[start : start + len(text)] for text, start in answers] == [text for text, _ in answers]
    other = XQuAD(dict, str(tmp_path / "squad.json"), split_seed=1).load("span")
    assert not other.test.x.equals(splits.test.x)


def flat(count: int = 40) -> list[dict[str, Any]]:
    """Rows in the hub's layout, without titles."""
    return [
        {
            "context": f"In {1900 + number // 2} came Ann.",
            "question": f"When {number}?",
            "answers": {"text": [str(1900 + number // 2)], "answer_start": [3]},
        }
        for number in range(count)
    ]


def test_the_validation_part_is_cut_from_train_or_tests_where_nothing_else_does(tmp_path: Path):
    write_lines(tmp_path / "train.jsonl", flat())
    write_lines(tmp_path / "validation.jsonl", [{**row, "context": row["context"] + " So."} for row in flat(10)])
    splits = XQuAD(dict, str(tmp_path)).load("span")
    assert sizes(splits) == [34, 6, 10]
    assert not set(splits.train.x.pair) & set(splits.validation.x.pair)
    (tmp_path / "validation.jsonl").rename(tmp_path / "test.jsonl")
    assert sizes(XQuAD(dict, str(tmp_path)).load("span")) == [34, 6, 10]
    assert XQuAD(dict, str(tmp_path)).load(None).test.y is None
    assert list(splits.test.cluster) == list(splits.test.x.pair)


def test_a_question_may_have_no_answer_or_several(tmp_path: Path):
    rows = flat()
    rows[0]["answers"] = {"text": [], "answer_start": []}
    rows[1]["answers"] = {"text": ["1900", "Ann"], "answer_start": [3, 13]}
    splits = XQuAD(dict, write_lines(tmp_path / "q.jsonl", rows)).load("span")
    found = {text: y for part in parts(splits) for text, y in zip(part.x.text, part.y)}
    assert found["When 0?"] == []
    assert found["When 1?"] == [("1900", 3), ("Ann", 13)]


def test_an_answer_at_another_position_is_found_or_refused(tmp_path: Path, capfd: Any):
    rows = flat()
    rows[5]["answers"]["answer_start"] = [4]
    splits = XQuAD(dict, write_lines(tmp_path / "q.jsonl", rows)).load("span")
    assert {start for part in parts(splits) for y in part.y for _, start in y} == {3}
    assert "1 answers had a wrong start character" in capfd.readouterr().err
    rows[7]["answers"]["text"] = ["1800"]
    rows[9]["answers"] = {"text": ["n"], "answer_start": [0]}  # it is in two other places
    with pytest.raises(UserError, match=r"row 8: the answer '1800' is not in .* at character 3.*2 of 40 rows"):
        XQuAD(dict, write_lines(tmp_path / "q.jsonl", rows)).load("span")


def test_broken_question_files_are_refused(tmp_path: Path):
    (tmp_path / "q.json").write_text(json.dumps({"data": [{"title": "a"}]}))
    with pytest.raises(UserError, match="not have the format of SQuAD: 'paragraphs' is missing"):
        XQuAD(dict, str(tmp_path / "q.json")).load("span")
    (tmp_path / "q.json").write_text(json.dumps({"data": []}))
    with pytest.raises(UserError, match="has no questions"):
        XQuAD(dict, str(tmp_path / "q.json")).load("span")
    with pytest.raises(UserError, match="no column question; similar columns: questions"):
        XQuAD(dict, write_lines(tmp_path / "q.jsonl", [{"questions": "a", "context": "b"}])).load("span")
    with pytest.raises(UserError, match="all questions are about one text"):
        XQuAD(dict, write_lines(tmp_path / "q.jsonl", flat(2))).load("span")


def article(number: int) -> str:
    return f" = Title {number} = \n \n Text = of {number} . \n \n = = Section = = \n \n More . \n \n"


def test_wikitext_rows_are_articles(tmp_path: Path):
    (tmp_path / "valid.txt").write_text(" \n" + "".join(map(article, range(20))))
    (tmp_path / "test.txt").write_text(" \n" + "".join(map(article, range(20, 25))))
    splits = WikiText2(dict, str(tmp_path)).load(None)
    check(splits)
    assert sizes(splits) == [18, 2, 5]
    assert splits.train.x.text[0].startswith(" = Title 0 =")
    assert "Section" in splits.train.x.text[0]
    assert splits.validation.x.text[0].startswith(" = Title 18 =")
    (tmp_path / "train.txt").write_text(" \n" + "".join(map(article, range(30, 70))))
    assert sizes(WikiText2(dict, str(tmp_path)).load(None)) == [40, 20, 5]
    (tmp_path / "test.txt").write_text("no heading\n")
    with pytest.raises(UserError, match="split test: no article"):
        WikiText2(dict, str(tmp_path)).load(None)


def test_wikitext_in_the_hubs_layout(tmp_path: Path):
    for name, count in (("train", 12), ("validation", 3), ("test", 4)):
        lines = [
            "",
            *(line for number in range(count) for line in article(number).replace("\n \n", "\n\n").split("\n")),
        ]
        write_lines(tmp_path / f"{name}.jsonl", [{"text": line and f"{line}\n"} for line in lines])
    splits = WikiText2(dict, str(tmp_path)).load(None)
    check(splits)
    assert sizes(splits) == [12, 3, 4]
    assert splits.train.x.text[0].startswith(" = Title 0 = \n\n Text = of 0 .")


def test_shakespeare_is_complete_and_split_in_order():
    source = Shakespeare(dict)
    splits = source.load(None)
    check(splits)
    assert sizes(splits) == [1, 1, 0]
    assert [len(rows.x.text[0]) for rows in parts(splits)[:2]] == [1_003_854, 111_540]
    assert splits.train.x.text[0].startswith("First Citizen:\nBefore we proceed")
    assert source.preprocessor() == {"columns": ["text"]}


def test_film_reviews_are_split_by_seed(tmp_path: Path):
    write_lines(tmp_path / "train.jsonl", [{"text": f"review<br />{number}"} for number in range(200)])
    splits = FilmReviews(dict, str(tmp_path)).load(None)
    check(splits)
    assert sizes(splits) == [180, 10, 10]
    assert splits.test.x.text[0].startswith("review\n")
    assert FilmReviews(dict, str(tmp_path)).load(None).test.x.equals(splits.test.x)


@pytest.mark.parametrize(
    ("make", "folder", "kind", "rows"),
    [
        (SST2, "sst2", "category", [6920, 872, 1821]),
        (XQuAD, "xquad-en", "span", [751, 174, 265]),
        (XQuAD, "xquad-zh", "span", [751, 174, 265]),
        (WikiText2, "wikitext2", None, [54, 6, 60]),
        (FilmReviews, "movie_reviews", None, [1800, 100, 100]),
    ],
)
def test_real_data(make: Callable, folder: str, kind: str | None, rows: list[int]):
    source = make(dict, root=local(folder))
    splits = source.load(kind)
    check(splits, ("text", "pair") if kind == "span" else ("text",))
    assert sizes(splits) == rows
    assert kind is None or kind in source.target_kinds
