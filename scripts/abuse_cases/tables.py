"""Tables of numbers and categories, as written by spreadsheets, databases and people."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scripts.abuse_cases.case import (
    Case,
    Check,
    categories,
    count,
    either,
    every,
    finite,
    known,
    labels,
    numbers,
    says,
    silent,
    targets,
    twin,
)
from scripts.abuse_cases.written import changed, csv, json_lines, line_added, mapped, parquet, zipped

BASE = ("stage=finetune", "experiment=table", "init=scratch", "visualization=[]")
ROWS = [
    {"a": f"{i * 7 % 11 - 5}.{i * 3 % 10}", "b": str(i * 5 % 17), "c": "xyz"[i % 3], "y": ("no", "yes")[i // 2 % 2]}
    for i in range(40)
]
TYPED = [{**row, "a": float(row["a"]), "b": int(row["b"])} for row in ROWS]
GOOD = csv(ROWS)


def table(
    name: str,
    content: Any,
    *words: str,
    right: Check | None = None,
    refused: tuple[str, ...] | None = None,
    file: str = "t.csv",
) -> Case:
    """A file whose data are loaded: target y, category c, numbers a and b."""
    own = (f"data.root='{{folder}}/{file}'", "data.target=y", "data.categorical=[c]")
    return Case("tables", name, {file: content}, (*BASE, *own, *words), right, refused)


CLEAN = table("clean", GOOD, right=every(labels("no", "yes"), count(40), finite, categories("c", "x", "y", "z")))
SAME = twin(CLEAN)
FILLED = "data.missing=mean"
GAPS = table("gaps filled with the mean", csv(changed(changed(ROWS, 3, a=""), 20, a="")), FILLED, right=finite)


def cases() -> list[Case]:
    """All of them."""
    return [CLEAN, *forms(), *shapes(), *number_cells(), *missing(), *names(), *whole_numbers(), *classes(), *values()]


def forms() -> list[Case]:
    """One table in many forms must be one table."""
    blank = GOOD.replace("\n", "\n\n", 20)
    lists = {key: [row[key] for row in TYPED] for key in TYPED[0]}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    as_categories = parquet(TYPED, c="category", y="category")
    indexed = io.BytesIO()
    pd.DataFrame(TYPED, index=pd.Index(range(100, 140), name="id")).to_parquet(indexed)
    hinted = "sep=;\n" + csv(ROWS, ";")
    return [
        table("TSV", csv(ROWS, "\t"), right=SAME, file="t.tsv"),
        table("tabs in .csv", csv(ROWS, "\t"), right=SAME),
        table("semicolons", csv(ROWS, ";"), right=SAME),
        table("pipes", csv(ROWS, "|"), right=SAME),
        table("semicolons in .tsv", csv(ROWS, ";"), right=SAME, refused=("separator|no column",), file="t.tsv"),
        table("gzip", zipped(GOOD), right=SAME, file="t.csv.gz"),
        table("gzip of TSV", zipped(csv(ROWS, "\t")), right=SAME, file="t.tsv.gz"),
        table("gzip of JSON lines", zipped(json_lines(TYPED)), right=SAME, file="t.jsonl.gz"),
        table("JSON lines", json_lines(TYPED), right=SAME, file="t.jsonl"),
        table("JSON lines, numbers in quotes", json_lines(ROWS), right=SAME, file="t.jsonl"),
        table("JSON lines in .json", json_lines(TYPED), right=SAME, file="t.json"),
        table("JSON lines with blank lines", json_lines(TYPED).replace("\n", "\n\n"), right=SAME, file="t.jsonl"),
        table("JSON list", json.dumps(TYPED, indent=1), right=SAME, file="t.json"),
        table("JSON of columns", json.dumps(lists), right=SAME, refused=("json",), file="t.json"),
        table("Parquet", parquet(TYPED), right=SAME, file="t.parquet"),
        table("Parquet, .pq", parquet(TYPED), right=SAME, file="t.pq"),
        table("Parquet, categories as such", as_categories, right=SAME, file="t.parquet"),
        table(
            "Parquet with an index",
            indexed.getvalue(),
            "data.ignore=[id]",
            right=SAME,
            refused=("no column id",),
            file="t.parquet",
        ),
        table("Parquet, float32 and int8", parquet(TYPED, a="float32", b="int8"), right=SAME, file="t.parquet"),
        table("Parquet, nullable integers", parquet(TYPED, b="Int64"), right=SAME, file="t.parquet"),
        table("Parquet, numbers as texts", parquet(ROWS), right=SAME, file="t.parquet"),
        table("all quoted", csv(ROWS, quoted=True), right=SAME),
        table("byte order mark", "\ufeff" + GOOD, right=SAME),
        table("byte order mark, all quoted", "\ufeff" + csv(ROWS, quoted=True), right=SAME),
        table("CRLF", csv(ROWS, end="\r\n"), right=SAME),
        table("CR alone", csv(ROWS, end="\r"), right=SAME),
        table("UTF-16", GOOD.encode("utf-16"), refused=("UTF-8",)),
        table("UTF-16 without a mark", GOOD.encode("utf-16-le"), refused=("t.csv",)),
        table("Latin-1", GOOD.replace("x", "é").encode("latin-1"), refused=("UTF-8",)),
        table("UTF-8 after 300 kB", (GOOD + GOOD[8:] * 800).encode() + b"1,2,\xff,no\n", refused=("UTF-8",)),
        table("no newline at the end", GOOD.rstrip("\n"), right=SAME),
        table("newlines at the end", GOOD + "\n\n\n", right=SAME),
        table("blank lines between rows", blank, right=SAME),
        table("blank lines of CRLF", blank.replace("\n", "\r\n"), right=SAME),
        table("blank first line", "\n" + GOOD, right=SAME, refused=("header|no column|cells",)),
        table("spaces after the commas", GOOD.replace(",", ", "), right=SAME, refused=("no column|column",)),
        table("Excel's sep= line", hinted, right=SAME, refused=("sep=|no column|cells",)),
        table(
            "comments before the header",
            "# made by a program\n# on Monday\n" + GOOD,
            refused=("no column|cells|header",),
        ),
        table("upper-case ending", GOOD, right=SAME, file="T.CSV"),
        table(".txt", GOOD, right=SAME, refused=(r"\.csv|table",), file="t.txt"),
        table("no ending", GOOD, right=SAME, refused=(r"\.csv|table",), file="table"),
        table("odd file name", GOOD, right=SAME, file="my [1] täble, v2 = final.csv"),
        table("linked file", lambda path: linked(path, GOOD), right=SAME),
        table("spaces as separator", csv(ROWS, " "), refused=("no column|separat",)),
        table("spaces as the given separator", csv(ROWS, " "), "data.separator=' '", right=SAME),
        table("carets as the given separator", csv(ROWS, "^"), "data.separator='^'", right=SAME),
        table("a wrong separator given", GOOD, "data.separator=';'", refused=("no column|separat",)),
        table(
            "semicolons, a comma in the header",
            csv(ROWS, ";").replace("a;", '"a,0";'),
            "data.separator=';'",
            right=SAME,
        ),
        table("an Excel file called .csv", archive.getvalue(), refused=("t.csv",)),
        table("an Excel file", archive.getvalue(), refused=("t.xlsx",), file="t.xlsx"),
        table("gzip called .csv", zipped(GOOD), right=SAME, refused=("t.csv",)),
        table("text called .csv.gz", GOOD, right=SAME, refused=("t.csv.gz",), file="t.csv.gz"),
        table("half a gzip", zipped(GOOD)[:120], refused=("t.csv.gz",), file="t.csv.gz"),
        table("half a Parquet", parquet(TYPED)[:500], refused=("t.parquet",), file="t.parquet"),
        table("text called .parquet", GOOD, refused=("t.parquet",), file="t.parquet"),
        table("a web page called .csv", "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n", refused=("t.csv",)),
        table("JSON lines called .csv", json_lines(TYPED), refused=("no column|cells",)),
        table("CSV called .jsonl", GOOD, refused=("line 1|not JSON",), file="t.jsonl"),
        table(
            "a broken JSON line",
            json_lines(TYPED).replace('"b": 13', '"b": 13,,', 1),
            refused=("line 7|row 7",),
            file="t.jsonl",
        ),
        table("a JSON line that is a list", json_lines(TYPED) + "[1, 2]\n", refused=("41",), file="t.jsonl"),
        table("a JSON line cut off", json_lines(TYPED)[:-12], refused=("40",), file="t.jsonl"),
        table("NUL bytes", GOOD.replace("x", "x\0", 1), refused=("t.csv", "zero|nul|binary")),
        table("NUL bytes at the end", GOOD + "\0" * 64, refused=("t.csv", "zero|nul|binary")),
    ]


def linked(path: Path, content: str) -> None:
    """Write the content to another file and link to it."""
    real = path.with_name("real.data")
    real.write_text(content)
    path.symlink_to(real)


def shapes() -> list[Case]:
    """Headers and rows of odd sizes."""
    lines = GOOD.splitlines(keepends=True)
    wide = [{**{f"n{k}": str((i * k) % 13) for k in range(2000)}, "y": row["y"]} for i, row in enumerate(ROWS)]
    long = [{**row, "note": "long " * 40_000 if i == 7 else "short"} for i, row in enumerate(ROWS)]
    two_lines = mapped(ROWS, "note", lambda i: "first\nsecond" if i < 5 else "one")
    numbered = [{"": str(i), **row} for i, row in enumerate(ROWS)]
    tiny = [{"a": str(i), "y": "no" if i % 2 else "yes"} for i in range(10)]
    digits = [{"0": row["a"], "1": row["b"], "2": row["c"], "3": row["y"]} for row in ROWS]
    return [
        table("empty file", "", refused=("t.csv", "no rows|empty")),
        table("spaces alone", "  \n \n", refused=("t.csv", "no rows|empty|no column")),
        table("header alone", lines[0], refused=("no rows",)),
        table("header alone, Parquet", empty_parquet(), refused=("no rows",), file="t.parquet"),
        table("one row", "".join(lines[:2]), refused=("1 row|one class|at least",)),
        table("nine rows", "".join(lines[:10]), refused=("9 rows|at least",)),
        table("ten rows", csv(tiny), "data.categorical=[]", right=count(10), refused=("rows",)),
        table("no header", "".join(lines[1:]), refused=("no column",)),
        table("columns called by numbers", csv(digits), "data.target=3", "data.categorical=[2]", right=SAME),
        table("target column missing", GOOD.replace(",y\n", ",target\n"), refused=("no column y", "data.target")),
        table("category column missing", GOOD.replace(",c,", ",cc,"), refused=("no column c", "data.categorical")),
        table(
            "a trailing comma in each row",
            GOOD.replace("\n", ",\n").replace("y,\n", "y\n", 1),
            refused=("row 1\\b", "5 cells", "4"),
        ),
        table("a trailing comma in one row", line_added(GOOD, 13, ","), refused=("row 13\\b", "5 cells", "4")),
        table("a trailing comma everywhere", GOOD.replace("\n", ",\n"), refused=("Unnamed|unnamed|missing",)),
        table(
            "a trailing comma everywhere, ignored",
            GOOD.replace("\n", ",\n"),
            'data.ignore=["Unnamed: 4"]',
            right=SAME,
            refused=("no column Unnamed: 4.*Unnamed: 0",),
        ),
        table("a long row", line_added(GOOD, 13, ",1,2"), refused=("row 13\\b", "6 cells", "4")),
        table(
            "a short row", GOOD.replace(lines[13], lines[13].rsplit(",", 1)[0] + "\n"), refused=("row", "3 cells", "4")
        ),
        table("a short last row", GOOD + "1,2\n", refused=("row 41", "2 cells")),
        table("a long row after line breaks in cells", line_added(csv(two_lines), 18, ",1"), refused=("row 13\\b",)),
        table(
            "a long row after blank lines",
            line_added("\n\n".join(GOOD.split("\n")), 26, ",1"),
            refused=("row (25|26)\\b",),
        ),
        table(
            "a line of dashes", lines[0] + "---,---,---,---\n" + "".join(lines[1:]), refused=("row 1\\b", "column a")
        ),
        table("a header in the middle", "".join([*lines[:20], lines[0], *lines[20:]]), refused=("row 20", "column a")),
        table("a total at the end", GOOD + "Total,320,,\n", refused=("row 41", "column a")),
        table("a total without numbers at the end", GOOD + ",,Total,\n", refused=("row 41", "column a")),
        table("a closing line of text", GOOD + "(40 rows)\n", refused=("row 41", "1 cell")),
        table("an unclosed quote", line_added(GOOD, 30, ',"oops'), refused=("t.csv|row",)),
        table("a quote that opens a cell", GOOD.replace(",x,", ',"x,', 1), refused=("t.csv|row",)),
        table(
            "two columns of one name",
            csv(mapped(ROWS, "d", lambda i: str(i))).replace(",d\n", ",a\n", 1),
            refused=("column", "a\\b"),
        ),
        table("two columns of one name, Parquet", same_names(), refused=("t.parquet",), file="t.parquet"),
        table("names that differ by case", csv(mapped(ROWS, "A", lambda i: str(i))), right=every(count(40), finite)),
        table("one column without a name", csv(numbered), 'data.ignore=["Unnamed: 0"]', right=SAME),
        table(
            "an index column that is not ignored",
            csv(numbered),
            right=numbers("Unnamed: 0", list(range(40))),
            refused=("Unnamed",),
        ),
        table(
            "two columns without names",
            csv(numbered).replace(",a,", ",,", 1),
            right=every(count(40), finite),
            refused=("column|header|name",),
        ),
        table(
            "quotes in the header",
            csv([{'the "a"': r["a"], "b": r["b"], "c": r["c"], "y": r["y"]} for r in ROWS]),
            right=SAME,
        ),
        table(
            "line breaks in the header",
            csv([{"a\n(mm)": r["a"], "b": r["b"], "c": r["c"], "y": r["y"]} for r in ROWS]),
            right=SAME,
        ),
        table("2,000 columns", csv(wide), "data.categorical=[]", right=every(count(40), finite)),
        table("a cell of 200,000 characters", csv(long), "data.ignore=[note]", right=SAME, refused=("row 8",)),
        table("line breaks in cells", csv(two_lines), "data.ignore=[note]", right=SAME),
        table(
            "only the target",
            csv([{"y": row["y"]} for row in ROWS]),
            "data.categorical=[]",
            refused=("no feature|column",),
        ),
        table("a constant number", csv(mapped(ROWS, "a", lambda i: "3")), right=every(count(40), finite)),
        table("a constant category", csv(mapped(ROWS, "c", lambda i: "x")), right=every(categories("c", "x"), finite)),
        table("a folder", lambda path: path.mkdir(), refused=("folder|no table|no file",)),
        table("no such file", GOOD, "data.root=/no/such/file.csv", refused=("no such file",)),
    ]


def empty_parquet() -> bytes:
    """A table of columns without rows."""
    file = io.BytesIO()
    pd.DataFrame({"a": [1.0], "b": [1], "c": ["x"], "y": ["no"]}).iloc[:0].to_parquet(file)
    return file.getvalue()


def same_names() -> bytes:
    """A Parquet file with two columns called a."""
    import pyarrow
    import pyarrow.parquet

    columns = [
        [row["a"] for row in TYPED],
        [row["b"] for row in TYPED],
        [row["c"] for row in TYPED],
        [r["y"] for r in TYPED],
    ]
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, names=["a", "a", "c", "y"]), file)
    return file.getvalue()


def number_cells() -> list[Case]:
    """Cells of a number column: what is a number is that number; what is none is refused with its row and column."""

    def cell(text: str, right: float | None = None, may_refuse: bool = True) -> Case:
        content = csv(changed(ROWS, 7, a=text))
        other = csv(changed(ROWS, 7, a="0")) if right is None else csv(changed(ROWS, 7, a=repr(right)))
        same = None if right is None else twin(table(f"plain {right}", other, right=finite))
        refused = ("row 7\\b", "column a") if may_refuse else None
        return table(f"number {text!r}", content, right=same, refused=refused)

    exact = [
        cell(text, value, False)
        for text, value in (
            ("1e2", 100.0),
            ("1E+02", 100.0),
            ("+5", 5.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-0", 0.0),
            ("007", 7.0),
            ("0.1000000000000000055511151231257827", 0.1),
            ("1e-400", 0.0),
        )
    ]
    either = [
        cell(text, value)
        for text, value in (
            (" 1.5 ", 1.5),
            ("\t1.5", 1.5),
            ("١٢", 12.0),
            ("\uff11\uff12", 12.0),
            ("\u22125", -5.0),
            ("\u00a05", 5.0),
            ("true", 1.0),
            ("'5", 5.0),
            ("\ufeff5", 5.0),
        )
    ]
    never = [
        cell(text)
        for text in (
            "1,234",
            "1.234,56",
            "1 234",
            "1\u202f234",
            "1_000",
            "12%",
            "$5",
            "5 €",
            "5kg",
            "1/2",
            "0x1F",
            "1e",
            "--5",
            "5-",
            "(5)",
            "12:30",
            "2020-01-02",
            "yes",
            "abc",
            "?",
            "-",
            "n/a",
            "#DIV/0!",
            "=1+1",
            "<5",
            "1+2j",
            "1e5e5",
            "\u200b",
        )
    ]
    endless = [cell(text) for text in ("inf", "-inf", "Infinity", "1e400", "-1e999", "∞")]
    decimal = csv(mapped(ROWS, "a", lambda i: ROWS[i]["a"].replace(".", ",")), ";")
    dates = [{**row, "a": pd.Timestamp("2020-01-01") + pd.Timedelta(days=i)} for i, row in enumerate(TYPED)]
    lists = [{**row, "a": [1.0, 2.0]} for row in TYPED]
    odd = json_lines(TYPED).replace('"a": -5.0', '"a": %s', 1)
    return [
        *exact,
        *either,
        *never,
        *endless,
        table("decimal commas", decimal, refused=("row 1\\b", "column a")),
        table("a text among numbers, row 31", csv(changed(ROWS, 31, b="abc")), refused=("row 31", "column b")),
        table("a date column, Parquet", parquet(dates), refused=("column a", "date"), file="t.parquet"),
        table(
            "a boolean number column, Parquet",
            parquet(mapped(TYPED, "b", lambda i: i % 3 == 0)),
            right=numbers("b", [float(i % 3 == 0) for i in range(40)]),
            refused=("column b",),
            file="t.parquet",
        ),
        table("lists in a number column, Parquet", parquet(lists), refused=("column a",), file="t.parquet"),
        table(
            "infinity, Parquet",
            parquet(changed(TYPED, 7, a=float("inf"))),
            refused=("row 7\\b", "column a"),
            file="t.parquet",
        ),
        table("an object in a JSON number", odd % '{"v": 1}', refused=("row 1\\b", "column a"), file="t.jsonl"),
        table("a list in a JSON number", odd % "[1]", refused=("row 1\\b", "column a"), file="t.jsonl"),
        table(
            "true in a JSON number",
            odd % "true",
            right=every(finite, count(40)),
            refused=("row 1\\b", "column a"),
            file="t.jsonl",
        ),
        table("NaN in a JSON number", odd % "NaN", refused=("row 1\\b|line 1\\b",), file="t.jsonl"),
        table("Infinity in a JSON number", odd % "Infinity", refused=("row 1\\b|line 1\\b",), file="t.jsonl"),
        table("a JSON number of 400 digits", odd % ("9" * 400), refused=("row 1\\b", "column a"), file="t.jsonl"),
        table(
            "numbers of 1e30",
            csv(mapped(ROWS, "a", lambda i: f"{i}e30")),
            right=every(finite, count(40)),
            refused=("column a",),
        ),
        table(
            "numbers of 1e-30",
            csv(mapped(ROWS, "a", lambda i: f"{i}e-30")),
            right=every(finite, numbers("a", [i * 1e-30 for i in range(40)])),
            refused=("column a",),
        ),
        table(
            "time stamps in seconds", csv(mapped(ROWS, "a", lambda i: str(1_700_000_000 + i))), right=spread("a", 40)
        ),
        table(
            "identifiers of 18 digits as numbers",
            csv(mapped(ROWS, "a", lambda i: str(10**17 + 10**4 * i))),
            right=spread("a", 40),
        ),
    ]


def spread(column: str, distinct: int) -> Check:
    """Encoded values stay apart."""
    from scripts.abuse_cases.case import check, encoded

    @check(f"{distinct} different values of {column}")
    def holds(seen: Any, other: Any) -> str | None:
        found = len(np.unique(np.concatenate(list(encoded(seen, column)))))
        return None if found == distinct else f"{found} different values of {column}"

    return holds


def missing() -> list[Case]:
    """Only an empty cell is missing, and what data.missing_values lists."""
    filled = twin(GAPS)

    def marked(text: str) -> str:
        return csv(changed(changed(ROWS, 3, a=text), 20, a=text))

    cells = [
        table(f"{text} among numbers", marked(text), FILLED, refused=("row 3\\b", "column a", "missing_values"))
        for text in ("NA", "nan", "NaN", "None", "null", "NULL", "N/A", "#N/A", ".")
    ]
    listed = [
        table(f"{text} listed as missing", marked(text), FILLED, f"data.missing_values=['{text}']", right=filled)
        for text in ("NA", "None", "-999", "?", "#N/A", "not known", "n/a")
    ]
    return [
        GAPS,
        *cells,
        *listed,
        table("gaps, none allowed", marked(""), refused=("row 3\\b", "column a", "missing")),
        table("gaps filled with the median", marked(""), "data.missing=median", right=finite),
        table("gaps, quoted", csv(changed(changed(ROWS, 3, a=""), 20, a=""), quoted=True), FILLED, right=filled),
        table(
            "gaps, Parquet",
            parquet(changed(changed(TYPED, 3, a=None), 20, a=None)),
            FILLED,
            right=filled,
            file="t.parquet",
        ),
        table(
            "gaps, JSON null",
            json_lines(changed(changed(TYPED, 3, a=None), 20, a=None)),
            FILLED,
            right=filled,
            file="t.jsonl",
        ),
        table(
            "gaps, JSON keys left out",
            json_lines([{k: v for k, v in row.items() if k != "a" or i not in (2, 19)} for i, row in enumerate(TYPED)]),
            FILLED,
            right=filled,
            file="t.jsonl",
        ),
        table("spaces among numbers", marked("  "), FILLED, right=filled, refused=("row 3\\b", "column a")),
        table(
            "two marks listed",
            csv(changed(changed(ROWS, 3, a="NA"), 20, a="-")),
            FILLED,
            "data.missing_values=['NA','-']",
            right=filled,
        ),
        table("a listed mark that is not there", GOOD, FILLED, "data.missing_values=[NA]", right=SAME),
        table(
            "a number without values",
            csv(mapped(ROWS, "a", lambda i: "")),
            FILLED,
            right=every(finite, count(40)),
            refused=("column a",),
        ),
        table(
            "a category without values",
            csv(mapped(ROWS, "c", lambda i: "")),
            right=every(finite, count(40)),
            refused=("column c",),
        ),
        table(
            "a missing category",
            csv(changed(ROWS, 5, c="")),
            right=every(count(40), known("c", 1)),
            refused=("row 5", "column c"),
        ),
        table(
            "categories called NA, None, null, nan",
            csv(mapped(ROWS, "c", lambda i: ("NA", "None", "null", "nan")[i % 4])),
            right=every(categories("c", "NA", "None", "null", "nan"), known("c")),
        ),
        table(
            "a category called (missing)",
            csv(mapped(ROWS, "c", lambda i: ("(missing)", "", "x")[i % 3])),
            right=categories_count("c", 3),
            refused=("column c",),
        ),
    ]


def categories_count(column: str, size: int) -> Check:
    """How many different categories there are."""
    from scripts.abuse_cases.case import check

    @check(f"{size} categories of {column}")
    def holds(seen: Any, other: Any) -> str | None:
        found = next(one["values"] for one in seen.data.preprocessor.state()["columns"] if one["name"] == column)
        return None if len(found) == size else f"categories {found}"

    return holds


def names() -> list[Case]:
    """A category's name is the text of its cell."""

    def named(name: str, *texts: str, file: str = "t.csv", rows: Callable[[Any], Any] = csv) -> Case:
        content = rows(mapped(ROWS, "c", lambda i: texts[i % len(texts)]))
        return table(f"categories {name}", content, right=every(categories("c", *texts), known("c")), file=file)

    rooms = mapped(ROWS, "c", lambda i: "1.5" if i == 7 else str(i % 3 + 1))
    wholes = mapped(TYPED, "c", lambda i: 1.5 if i == 7 else i % 3 + 1)
    halves = parquet(mapped(TYPED, "c", lambda i: (1.0, 2.0, 1.5)[i % 3]))
    gap = parquet(mapped(TYPED, "c", lambda i: None if i == 7 else (1.0, 2.0)[i % 2]))
    mixed = json_lines(TYPED)
    for old, new in (('"x"', "1"), ('"y",', "1.0,"), ('"z"', "1.50")):
        mixed = mixed.replace(f'"c": {old}', f'"c": {new}')
    return [
        table("rooms with one half", csv(rooms), right=known("c", 1)),
        table("rooms with one half, JSON lines", json_lines(wholes), right=known("c", 1), file="t.jsonl"),
        named("01, 02, 1", "01", "02", "1"),
        named("1, 1.0, 1.50, 1.5", "1", "1.0", "1.50", "1.5"),
        named("1e5 and 100000", "1e5", "100000"),
        named("0 and -0", "0", "-0", "+0"),
        named("of many digits", "9007199254740993", "9007199254740992", "12345678901234567890123"),
        named("true, True, TRUE, 1", "true", "True", "TRUE", "1"),
        named("by case", "Oslo", "oslo", "OSLO"),
        named("by accents", "caf\u00e9", "cafe\u0301", "cafe"),
        named("with zero-width characters", "a", "a\u200b", "\u200ba"),
        named("with other spaces", "a b", "a\u00a0b", "a  b"),
        named("with spaces around", "a", " a", "a "),
        named("with commas, quotes, line breaks", "a,b", 'say "a"', "two\nlines"),
        named("of emoji and right-to-left", "🙂", "👍🏽", "שלום"),
        named("that look like dates", "2020-01-02", "02/01/2020", "1-2"),
        named("that look like markup", "[red]", "<b>", "{x}"),
        named("infinite", "inf", "Infinity", "nan"),
        named("with an apostrophe", "'007", "007", "7"),
        named("01, 02, 1 in TSV", "01", "02", "1", file="t.tsv", rows=lambda rows: csv(rows, "\t")),
        named("01, 02, 1 with semicolons", "01", "02", "1", rows=lambda rows: csv(rows, ";")),
        named("01, 02, 1 as JSON texts", "01", "02", "1", file="t.jsonl", rows=json_lines),
        named("01, 02, 1 as Parquet texts", "01", "02", "1", file="t.parquet", rows=parquet),
        named("01, 02, 1, all quoted", "01", "02", "1", rows=lambda rows: csv(rows, quoted=True)),
        table(
            "JSON categories 1, 1.0, 1.50",
            mixed,
            right=either(categories("c", "1", "1.0", "1.50"), categories("c", "1", "1.5")),
            file="t.jsonl",
        ),
        table(
            "JSON categories true, false",
            json_lines(mapped(TYPED, "c", lambda i: i % 3 == 0)),
            right=categories("c", "True", "False"),
            file="t.jsonl",
        ),
        table(
            "JSON integers beyond 2**53",
            json_lines(mapped(TYPED, "c", lambda i: 2**60 + i % 2)),
            right=categories("c", str(2**60), str(2**60 + 1)),
            file="t.jsonl",
        ),
        table(
            "Parquet categories 1.0, 1.5, 2.0",
            halves,
            right=either(categories("c", "1.0", "1.5", "2.0"), categories("c", "1", "1.5", "2")),
            file="t.parquet",
        ),
        table(
            "Parquet categories 1.0, 2.0 and a gap",
            gap,
            right=every(either(categories_of("c", "1.0", "2.0"), categories_of("c", "1", "2")), known("c", 1)),
            refused=("row 8", "column c"),
            file="t.parquet",
        ),
        table(
            "Parquet integers as categories",
            parquet(mapped(TYPED, "c", lambda i: i % 3)),
            right=categories("c", "0", "1", "2"),
            file="t.parquet",
        ),
        table(
            "Parquet integers beyond 2**53",
            parquet(mapped(TYPED, "c", lambda i: 2**60 + i % 2)),
            right=categories("c", str(2**60), str(2**60 + 1)),
            file="t.parquet",
        ),
        table(
            "Parquet integers beyond 2**53 and a gap",
            parquet(mapped(TYPED, "c", lambda i: None if i == 3 else str(2**60 + i % 2)), c="Int64"),
            right=categories_of("c", str(2**60), str(2**60 + 1)),
            refused=("row 4", "column c"),
            file="t.parquet",
        ),
        table(
            "Parquet booleans as categories",
            parquet(mapped(TYPED, "c", lambda i: i % 3 == 0)),
            right=categories("c", "True", "False"),
            file="t.parquet",
        ),
        table(
            "Parquet dates as categories",
            parquet(mapped(TYPED, "c", lambda i: pd.Timestamp("2020-01-01") + pd.Timedelta(days=i % 2))),
            right=categories_count("c", 2),
            refused=("column c",),
            file="t.parquet",
        ),
        table(
            "rows in another order",
            csv(ROWS[::-1]),
            right=every(labels("no", "yes"), categories("c", "x", "y", "z"), count(40)),
        ),
    ]


def categories_of(column: str, *names: str) -> Check:
    """These categories are among those of a column, and no other but the one for missing cells."""
    from scripts.abuse_cases.case import check

    @check(f"categories of {column} with {', '.join(names)}")
    def holds(seen: Any, other: Any) -> str | None:
        found = next(one["values"] for one in seen.data.preprocessor.state()["columns"] if one["name"] == column)
        return None if set(names) <= set(found) and len(found) <= len(names) + 1 else f"categories {found}"

    return holds


def whole_numbers() -> list[Case]:
    """Class numbers and codes as targets."""
    wide = [{**row, "y": ("01", "1")[i // 2 % 2]} for i, row in enumerate(ROWS)]
    return [
        table("classes 01 and 1", csv(wide), right=labels("01", "1")),
        table(
            "classes 1 and 1.0", csv(mapped(ROWS, "y", lambda i: ("1", "1.0")[i // 2 % 2])), right=labels("1", "1.0")
        ),
        table(
            "classes 1.5, 2, 3",
            csv(mapped(ROWS, "y", lambda i: ("1.5", "2", "3")[i % 3])),
            right=labels("1.5", "2", "3"),
        ),
        table(
            "classes of 17 digits",
            csv(mapped(ROWS, "y", lambda i: str(2**60 + i % 2))),
            right=labels(str(2**60), str(2**60 + 1)),
        ),
        table(
            "classes 0 and 1 with gaps",
            csv(mapped(ROWS, "y", lambda i: "" if i == 3 else str(i % 2))),
            right=every(labels("0", "1"), count(39), says(r"\b1 (of 40 )?rows?\b")),
        ),
        table("classes 0.0 and 1.0", csv(mapped(ROWS, "y", lambda i: f"{i % 2}.0")), right=labels("0.0", "1.0")),
        table(
            "classes 1 and true in JSON",
            json_lines(mapped(TYPED, "y", lambda i: (1, True)[i % 2])),
            right=labels("1", "True"),
            file="t.jsonl",
        ),
        table(
            "classes 1 and '1' in JSON",
            json_lines(mapped(TYPED, "y", lambda i: (1, "1", 2)[i % 3])),
            right=labels("1", "2"),
            file="t.jsonl",
        ),
        table(
            "classes 1, 1.0 and 1.5 in JSON",
            json_lines(mapped(TYPED, "y", lambda i: (1, 1.0, 1.5)[i % 3])),
            right=either(labels("1", "1.0", "1.5"), labels("1", "1.5")),
            file="t.jsonl",
        ),
        table(
            "boolean classes, Parquet",
            parquet(mapped(TYPED, "y", lambda i: i % 2 == 0)),
            right=labels("True", "False"),
            file="t.parquet",
        ),
        table(
            "integer classes with gaps, Parquet",
            parquet(mapped(TYPED, "y", lambda i: None if i == 3 else i % 2), y="Int64"),
            right=every(labels("0", "1"), count(39)),
            file="t.parquet",
        ),
    ]


def classes() -> list[Case]:
    """Targets that are names."""
    regions = csv(mapped(ROWS, "y", lambda i: ("NA", "EU", "AS")[i % 3]))
    gaps = csv(mapped(ROWS, "y", lambda i: "" if i % 8 == 5 else ROWS[i]["y"]))
    rare = csv(changed(ROWS, 9, y="maybe"))
    return [
        table("classes NA, EU, AS", regions, right=every(labels("NA", "EU", "AS"), count(40))),
        table(
            "classes None, null, nan",
            csv(mapped(ROWS, "y", lambda i: ("None", "null", "nan")[i % 3])),
            right=every(labels("None", "null", "nan"), count(40)),
        ),
        table(
            "classes true and false",
            csv(mapped(ROWS, "y", lambda i: ("true", "false")[i % 2])),
            right=labels("true", "false"),
        ),
        table(
            "classes Yes and yes", csv(mapped(ROWS, "y", lambda i: ("Yes", "yes")[i % 2])), right=labels("Yes", "yes")
        ),
        table(
            "classes with spaces around",
            csv(mapped(ROWS, "y", lambda i: ("yes", "yes ")[i % 2])),
            right=labels("yes", "yes "),
            refused=("column y",),
        ),
        table(
            "classes with commas and quotes",
            csv(mapped(ROWS, "y", lambda i: ("a,b", 'a"b')[i % 2])),
            right=labels("a,b", 'a"b'),
        ),
        table(
            "classes of two lines", csv(mapped(ROWS, "y", lambda i: ("a\nb", "c")[i % 2])), right=labels("a\nb", "c")
        ),
        table(
            "classes with zero-width characters",
            csv(mapped(ROWS, "y", lambda i: ("a", "a\u200b")[i % 2])),
            right=labels("a", "a\u200b"),
        ),
        table(
            "classes of accents",
            csv(mapped(ROWS, "y", lambda i: ("é", "e\u0301")[i % 2])),
            right=labels("é", "e\u0301"),
        ),
        table("classes of emoji", csv(mapped(ROWS, "y", lambda i: "🙂🙁"[i % 2])), right=labels("🙂", "🙁")),
        table(
            "classes of 300 letters",
            csv(mapped(ROWS, "y", lambda i: "ab"[i % 2] * 300)),
            right=labels("a" * 300, "b" * 300),
        ),
        table(
            "classes that look like markup",
            csv(mapped(ROWS, "y", lambda i: ("[red]", "[/]")[i % 2])),
            right=labels("[red]", "[/]"),
        ),
        table("targets with gaps", gaps, right=every(labels("no", "yes"), count(35), says(r"\b5 (of 40 )?rows"))),
        table(
            "targets with gaps, TSV",
            gaps.replace(",", "\t"),
            right=every(count(35), says(r"\b5 (of 40 )?rows")),
            file="t.tsv",
        ),
        table(
            "targets with gaps, JSON lines",
            json_lines([{**r, "y": r["y"] if i % 8 != 5 else None} for i, r in enumerate(TYPED)]),
            right=every(count(35), says(r"\b5 (of 40 )?rows")),
            file="t.jsonl",
        ),
        table(
            "targets NA listed as missing",
            csv(mapped(ROWS, "y", lambda i: "NA" if i % 8 == 5 else ROWS[i]["y"])),
            "data.missing_values=[NA]",
            right=every(labels("no", "yes"), count(35), says(r"\b5 (of 40 )?rows")),
        ),
        table("targets without gaps", GOOD, right=silent("no target|without a? ?target")),
        table("no target at all", csv(mapped(ROWS, "y", lambda i: "")), refused=("column y",)),
        table(
            "targets of spaces",
            csv(mapped(ROWS, "y", lambda i: " " if i % 8 == 5 else ROWS[i]["y"])),
            right=every(count(35), labels("no", "yes"), says("5")),
            refused=("column y|class",),
        ),
        table("one class", csv(mapped(ROWS, "y", lambda i: "no")), refused=("one class", "no")),
        table("a class of one row", rare, refused=("class maybe", "1 row")),
        table("a class for each row", csv(mapped(ROWS, "y", lambda i: f"id{i}")), refused=("class id", "1 row")),
        table("the target among the ignored", GOOD, "data.ignore=[y]", right=SAME, refused=("y",)),
        table(
            "two targets for classes",
            GOOD,
            "data.target=[y,c]",
            "data.categorical=[]",
            refused=("one column|multilabel",),
        ),
    ]


def values() -> list[Case]:
    """Targets that are numbers, one or several."""
    real = ("objective=regression", "data.target=z", "data.ignore=[y]")

    def valued(
        name: str,
        function: Callable[[int], Any],
        right: Check | None = None,
        refused: tuple[str, ...] | None = None,
        **form: Any,
    ) -> Case:
        return table(
            f"regression on {name}",
            form.get("rows", csv)(mapped(form.get("of", ROWS), "z", function)),
            *real,
            right=right,
            refused=refused,
            file=form.get("file", "t.csv"),
        )

    several = ("objective=multilabel", "data.target=[p,q]", "data.ignore=[y]")

    def labelled(
        name: str, p: Callable[[int], str], right: Check | None = None, refused: tuple[str, ...] | None = None
    ) -> Case:
        return table(
            f"labels {name}",
            csv(mapped(mapped(ROWS, "p", p), "q", lambda i: str(i // 2 % 2))),
            *several,
            right=right,
            refused=refused,
        )

    place = ("row 7\\b", "column z")
    at7 = lambda text: lambda i: text if i == 6 else f"{i}.5"  # noqa: E731
    return [
        valued("plain numbers", lambda i: f"{i}.5", every(targets(40), finite)),
        valued("1.7e9 and units", lambda i: str(1_700_000_000 + i), every(targets(40), finite)),
        valued("311030 and hundredths", lambda i: f"{311030 + i / 100:.2f}", every(targets(40), finite)),
        valued("thousandths of thousandths", lambda i: f"{i}e-9", every(targets(40), finite)),
        valued("1e25", lambda i: f"{i}e25", every(targets(40), finite), ("column z",)),
        valued("one value", lambda i: "3", finite, ("z",)),
        valued("1e400", at7("1e400"), refused=place),
        valued("NA", at7("NA"), refused=place),
        valued("a currency", at7("$5"), refused=place),
        valued("thousands separators", at7("1,234"), refused=place),
        valued("true", at7("true"), every(finite, count(40)), place),
        valued("infinity", at7("inf"), refused=place),
        valued("names", lambda i: ROWS[i]["c"], refused=("row 1\\b", "column z")),
        valued("dates", lambda i: f"2020-01-{i % 28 + 1:02}", refused=("row 1\\b", "column z")),
        valued("gaps", lambda i: "" if i % 8 == 5 else f"{i}.5", every(count(35), finite, says(r"\b5 (of 40 )?rows"))),
        valued(
            "NaN of Parquet",
            lambda i: float("nan") if i % 8 == 5 else i + 0.5,
            every(count(35), finite, says(r"\b5 (of 40 )?rows")),
            rows=parquet,
            of=TYPED,
            file="t.parquet",
        ),
        valued(
            "64-bit integers of Parquet",
            lambda i: 10**15 + i,
            every(targets(40), finite),
            rows=parquet,
            of=TYPED,
            file="t.parquet",
        ),
        labelled("0 and 1", lambda i: str(i % 2), count(40)),
        labelled("0.0 and 1.0", lambda i: f"{i % 2}.0", count(40)),
        labelled("yes and no", lambda i: ("no", "yes")[i % 2], refused=("row 1\\b|0 or 1", "p")),
        labelled("0 and 2", lambda i: str(i % 2 * 2), refused=("0 or 1",)),
        labelled("0 and -1", lambda i: str(-(i % 2)), refused=("0 or 1",)),
        labelled(
            "with a gap",
            lambda i: "" if i == 3 else str(i % 2),
            every(count(39), says(r"\b1 (of 40 )?rows?")),
            ("row 4",),
        ),
    ]
