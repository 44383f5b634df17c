"""Texts: tables, plain files, and tags of words."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from scripts.abuse_cases.case import Case, Check, count, either, every, labels, parts, says, silent, texts, twin
from scripts.abuse_cases.written import changed, csv, json_lines, line_added, mapped, parquet, zipped

TINY = ("visualization=[]", "backbone=tiny", "data.tokenizer.vocabulary=300", "data.tokenizer.context=32")
BASE = ("stage=finetune", "experiment=text", "init=scratch", *TINY)
PLAIN = ("stage=pretrain", "experiment=text", "data=text_files", "data.pack=null", *TINY)
ROWS = [
    {"text": f"the {'fine' if i % 2 else 'dull'} plot number {i}", "label": "good" if i % 2 else "bad"}
    for i in range(40)
]
GOOD = csv(ROWS)
LINES = "".join(f"line {i} of the notes\n" for i in range(40))


def table(
    name: str,
    content: Any,
    *words: str,
    right: Check | None = None,
    refused: tuple[str, ...] | None = None,
    file: str = "t.csv",
) -> Case:
    """A table whose texts are loaded."""
    own = (f"data.root='{{folder}}/{file}'", "data.text=text", "data.target=label")
    files = content if callable(content) or isinstance(content, dict) else {file: content}
    return Case("texts", name, files, (*BASE, *own, *words), right, refused)


def plain(
    name: str,
    content: Any,
    *words: str,
    right: Check | None = None,
    refused: tuple[str, ...] | None = None,
    file: str = "t.txt",
    rows: str = "line",
) -> Case:
    """Plain text files for pretraining."""
    files = content if callable(content) or isinstance(content, dict) else {file: content}
    return Case(
        "texts", name, files, (*PLAIN, f"data.root='{{folder}}/{file}'", f"data.rows={rows}", *words), right, refused
    )


CLEAN = table("clean table", GOOD, right=every(count(40), labels("good", "bad"), texts("the fine plot number 1")))
SAME = twin(CLEAN)
NOTES = plain("clean lines", LINES, right=every(count(40), texts("line 3 of the notes")))


def cases() -> list[Case]:
    """All of them."""
    return [CLEAN, *forms(), *cells(), *targets(), *tags(), *pairs(), NOTES, *files()]


def forms() -> list[Case]:
    """One table in many forms."""
    return [
        table("table in TSV", csv(ROWS, "\t"), right=SAME, file="t.tsv"),
        table("table with semicolons", csv(ROWS, ";"), right=SAME),
        table("table in gzip", zipped(GOOD), right=SAME, file="t.csv.gz"),
        table("table in JSON lines", json_lines(ROWS), right=SAME, file="t.jsonl"),
        table("table in JSON lines, gzip", zipped(json_lines(ROWS)), right=SAME, file="t.jsonl.gz"),
        table("table in a JSON list", json.dumps(ROWS), right=SAME, file="t.json"),
        table("table in Parquet", parquet(ROWS), right=SAME, file="t.parquet"),
        table("table in Parquet, classes as such", parquet(ROWS, label="category"), right=SAME, file="t.parquet"),
        table("table with a byte order mark", "\ufeff" + csv(ROWS, quoted=True), right=SAME),
        table("table of CRLF", csv(ROWS, end="\r\n"), right=SAME),
        table("table of CR", csv(ROWS, end="\r"), right=SAME),
        table("table with blank lines", GOOD.replace("\n", "\n\n"), right=SAME),
        table("table with JSON blank lines", json_lines(ROWS).replace("\n", "\r\n\r\n"), right=SAME, file="t.jsonl"),
        table("table in UTF-16", GOOD.encode("utf-16"), refused=("UTF-8",)),
        table("table in Latin-1", GOOD.replace("plot", "plöt").encode("latin-1"), refused=("UTF-8", "byte|row")),
        table("table with a zero byte", GOOD.replace("plot", "pl\0t", 1), refused=("t.csv", "zero|binary|nul")),
        table("a text with a comma, unquoted", line_added(GOOD, 9, ",bad"), refused=("row 9\\b", "3 cells")),
        table("a row without a label cell", GOOD + "alone\n", refused=("row 41", "1 cell")),
        table(
            "two columns called text",
            csv(mapped(ROWS, "t2", lambda i: "x")).replace(",t2\n", ",text\n", 1),
            refused=("column", "text"),
        ),
        table("text column missing", GOOD.replace("text,", "texts,", 1), refused=("no column text", "texts")),
        table("an empty table", "text,label\n", refused=("no rows",)),
        table("a table of nine", csv(ROWS[:9]), refused=("9 rows|at least",)),
    ]


def cells() -> list[Case]:
    """Odd texts stay as they are, letter by letter; what is none is refused by its row."""

    def kept(name: str, text: str) -> list[Case]:
        rows = changed(ROWS, 6, text=text)
        held = every(count(40), texts(text))
        return [
            table(f"{name}, CSV", csv(rows), right=held),
            table(f"{name}, JSON lines", json_lines(rows), right=held, file="t.jsonl"),
        ]

    escaped = json_lines(ROWS).replace("dull plot number 4", "dull \\ud83d plot", 1)
    return [
        *kept("a text None", "None"),
        *kept("a text NA", "NA"),
        *kept("a text of digits", "007"),
        *kept("a text true", "true"),
        *kept("a text with quotes and commas", 'so "fine", really'),
        *kept("a text of two lines", "one\ntwo"),
        *kept("a text with tabs", "a\tb"),
        *kept("a text of emoji", "👍🏽 fine 🙂"),
        *kept("a text from right to left", "שלום plot"),
        *kept("a text with accents apart", "cafe\u0301"),
        *kept("a text with spaces around", "  plot  "),
        *kept("a text with line separators", "a\u2028b\x85c\x0bd\x0ce"),
        *kept("a text of markup", "<b>[bold]plot[/bold]</b>"),
        *kept("a text that looks like a formula", "=SUM(A1)"),
        *kept("a text of zero-width characters", "a\u200bb\ufeffc"),
        table("a text of CRLF in quotes", csv(changed(ROWS, 6, text="one\r\ntwo")), right=every(count(40))),
        table(
            "a text of 200,000 characters",
            csv(changed(ROWS, 6, text="plot " * 40_000)),
            right=every(count(40), says("truncated|cut off|longer")),
            refused=("row 6\\b",),
        ),
        table("an empty text", csv(changed(ROWS, 6, text="")), refused=("row 6\\b", "text")),
        table("a text of spaces", csv(changed(ROWS, 6, text=" \t ")), refused=("row 6\\b", "text")),
        table("a text of no-break spaces", csv(changed(ROWS, 6, text="\u00a0\u00a0")), refused=("row 6\\b", "text")),
        table(
            "a JSON text null", json_lines(changed(ROWS, 6, text=None)), refused=("row 6\\b", "text"), file="t.jsonl"
        ),
        table(
            "a JSON text that is a number",
            json_lines(changed(ROWS, 6, text=5)),
            right=every(count(40), texts("5")),
            refused=("column text",),
            file="t.jsonl",
        ),
        table(
            "a JSON text that is a list",
            json_lines(changed(ROWS, 6, text=["a", "b"])),
            refused=("text",),
            file="t.jsonl",
        ),
        table(
            "texts that are numbers, Parquet",
            parquet(mapped(ROWS, "text", lambda i: i)),
            right=texts("7"),
            refused=("column text",),
            file="t.parquet",
        ),
        table("half a surrogate pair", escaped, refused=("row 5\\b", "surrogate"), file="t.jsonl"),
        table(
            "a surrogate pair",
            escaped.replace("\\ud83d", "\\ud83d\\ude42"),
            right=texts("the dull 🙂 plot"),
            file="t.jsonl",
        ),
        table(
            "missing_values among texts",
            csv(changed(ROWS, 6, text="NA")),
            "data.missing_values=[NA]",
            refused=("row 6\\b", "text"),
        ),
    ]


def targets() -> list[Case]:
    """Classes of texts."""

    def named(*names: str) -> Callable[[int], str]:
        return lambda i: names[i % len(names)]

    gaps = mapped(ROWS, "label", lambda i: "" if i % 8 == 5 else ROWS[i]["label"])
    scores = mapped(ROWS, "label", lambda i: f"{i}.5")
    value = "objective=regression"
    five = every(count(35), labels("good", "bad"), says(r"\b5 (of 40 )?rows"))
    return [
        *(
            table(
                f"labels {', '.join(names)}",
                csv(mapped(ROWS, "label", named(*names))),
                right=every(count(40), labels(*names)),
            )
            for names in (
                ("NA", "EU", "AS"),
                ("None", "null"),
                ("true", "false"),
                ("0", "1"),
                ("01", "1"),
                ("1.0", "1.5", "1"),
                ("a,b", 'a "b"'),
                ("Ja", "ja"),
                (str(2**60), str(2**60 + 1)),
            )
        ),
        table(
            "labels 1 and 1.50 in JSON",
            json_lines(mapped(ROWS, "label", lambda i: (1, 2.5)[i % 2])).replace("2.5", "1.50"),
            right=either(labels("1", "1.50"), labels("1", "1.5")),
            file="t.jsonl",
        ),
        table(
            "labels true and false in JSON",
            json_lines(mapped(ROWS, "label", lambda i: i % 2 == 0)),
            right=labels("True", "False"),
            file="t.jsonl",
        ),
        table(
            "labels 0 and 1 in Parquet",
            parquet(mapped(ROWS, "label", lambda i: i % 2)),
            right=labels("0", "1"),
            file="t.parquet",
        ),
        table(
            "labels 0 and 1 in Parquet with gaps",
            parquet(mapped(ROWS, "label", lambda i: None if i % 8 == 5 else i % 2)),
            right=every(count(35), says(r"\b5 (of 40 )?rows")),
            file="t.parquet",
        ),
        table("labels with gaps", csv(gaps), right=five),
        table(
            "labels with gaps, JSON",
            json_lines([{**r, "label": r["label"] or None} for r in gaps]),
            right=five,
            file="t.jsonl",
        ),
        table(
            "labels with keys left out, JSON",
            json_lines([{k: v for k, v in r.items() if v} for r in gaps]),
            right=five,
            file="t.jsonl",
        ),
        table("labels without gaps", GOOD, right=silent("no target|without a? ?target")),
        table("no labels", csv(mapped(ROWS, "label", lambda i: "")), refused=("column label", "empty")),
        table("one label", csv(mapped(ROWS, "label", lambda i: "good")), refused=("one class",)),
        table("a label of one row", csv(changed(ROWS, 3, label="odd")), refused=("class odd", "1 row")),
        table("scores", csv(scores), value, right=count(40)),
        table(
            "scores with NA",
            csv(changed(scores, 8, label="NA")),
            value,
            refused=("row 8\\b", "column label", "missing_values"),
        ),
        table(
            "scores with NA listed",
            csv(changed(scores, 8, label="NA")),
            value,
            "data.missing_values=[NA]",
            right=every(count(39), says(r"\b1 (of 40 )?rows?")),
        ),
        table(
            "scores with a percent sign",
            csv(changed(scores, 8, label="8%")),
            value,
            refused=("row 8\\b", "column label"),
        ),
    ]


def tags() -> list[Case]:
    """A tag for each word."""
    rows = [{"text": ["the", "plot", str(i)], "label": ["O", "B", "NA" if i % 2 else "01"]} for i in range(40)]
    words = ("objective=token_classification",)

    def tagged(name: str, content: Any, file: str = "t.jsonl", **outcome: Any) -> Case:
        return table(f"tags {name}", content, *words, file=file, **outcome)

    return [
        tagged("NA and 01", json_lines(rows), right=every(count(40), labels("O", "B", "NA", "01"))),
        tagged("in Parquet", parquet(rows), right=labels("O", "B", "NA", "01"), file="t.parquet"),
        tagged(
            "fewer than words",
            json_lines(changed(rows, 9, label=["O", "B"])),
            refused=("row 9\\b", "3 words", "2 tags"),
        ),
        tagged("with a null", json_lines(changed(rows, 9, label=["O", None, "B"])), refused=("row 9\\b", "label")),
        tagged("as one text", json_lines(mapped(rows, "label", lambda i: "O B O")), refused=("column label", "lists")),
        tagged("in CSV", GOOD, refused=("lists",), file="t.csv"),
        tagged("of no words", json_lines(changed(rows, 9, text=[], label=[])), refused=("row 9\\b",)),
        tagged(
            "with true",
            json_lines(changed(rows, 9, label=["O", True, "O"])),
            right=labels("O", "B", "NA", "01", "True"),
            refused=("row 9\\b",),
        ),
    ]


def pairs() -> list[Case]:
    """A second text."""
    rows = mapped(ROWS, "other", lambda i: f"a second text {i}")
    return [
        table("pairs", csv(rows), "data.pair=other", right=count(40)),
        table(
            "an empty second text", csv(changed(rows, 12, other="")), "data.pair=other", refused=("row 12\\b", "other")
        ),
        table("a second text None", csv(changed(rows, 12, other="None")), "data.pair=other", right=count(40)),
        table("pairs of one column", csv(rows), "data.pair=text", right=count(40), refused=("pair|text",)),
    ]


def files() -> list[Case]:
    """Plain files: a line ends at a line break and nowhere else."""
    documents = {f"d{i:02}.txt": f"document {i}\n\nsecond paragraph {i}\n" for i in range(12)}
    odd = "".join(f"line {i}\u2028of\x0bthe\x0cnotes\x85\n" for i in range(40))
    same = twin(NOTES)
    return [
        plain("lines of CRLF", LINES.replace("\n", "\r\n"), right=same),
        plain("lines of CR", LINES.replace("\n", "\r"), right=same),
        plain("lines, no newline at the end", LINES[:-1], right=same),
        plain("lines with a byte order mark", "\ufeff" + LINES, right=same),
        plain("blank lines", LINES.replace("\n", "\n\n \n"), right=same),
        plain(
            "lines with other separators in them",
            odd,
            right=every(count(40), texts("line 3\u2028of\x0bthe\x0cnotes\x85")),
        ),
        plain("lines of markdown", {"t.md": LINES}, right=same, file="t.md"),
        plain("a pattern", {"notes/a/t.md": LINES}, right=same, file="notes/**/*.md"),
        plain("a folder with odd name", {"my [notes]/t.txt": LINES}, right=same, file="my [notes]"),
        plain(
            "hidden and system files beside",
            {"n/t.txt": LINES, "n/.DS_Store": b"\0\1", "n/._t.txt": b"\0\5\26\7"},
            right=same,
            file="n",
        ),
        plain("an upper-case ending", {"n/T.TXT": LINES}, right=same, refused=("no .txt",), file="n"),
        plain("other files in the folder", {"n/t.txt": LINES, "n/b.pdf": b"%PDF"}, right=same, file="n"),
        plain(
            "documents",
            {f"n/{k}": v for k, v in documents.items()},
            right=every(count(12), texts(documents["d03.txt"])),
            file="n",
            rows="document",
        ),
        plain(
            "paragraphs",
            {f"n/{k}": v for k, v in documents.items()},
            right=every(count(24), texts("document 3")),
            file="n",
            rows="paragraph",
        ),
        plain(
            "paragraphs ended by spaces",
            "\n \t\n".join(f"paragraph {i}" for i in range(20)),
            right=every(count(20), texts("paragraph 3")),
            rows="paragraph",
        ),
        plain("one document", "a plain word " * 400, right=parts(train=1, validation=1, test=1), rows="document"),
        plain(
            "an empty document among others",
            {**{f"n/{k}": v for k, v in documents.items()}, "n/e.txt": ""},
            refused=("e.txt", "empty"),
            file="n",
            rows="document",
        ),
        plain("an empty file", "", refused=("t.txt", "empty")),
        plain("a file of newlines", "\n\n\n", refused=("t.txt", "empty")),
        plain("few lines", "one\ntwo\n", refused=("2 rows|only 2",)),
        plain("lines in UTF-16", LINES.encode("utf-16"), refused=("UTF-8",)),
        plain("lines in UTF-16 without a mark", LINES.encode("utf-16-le"), refused=("zero|binary|UTF-8",)),
        plain("lines in Latin-1", LINES.replace("notes", "nötes").encode("latin-1"), refused=("UTF-8", "byte")),
        plain("a zero byte", LINES.replace("of", "o\0", 1), refused=("zero|binary", "byte")),
        plain("a picture called .txt", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", refused=("t.txt", "binary|UTF-8")),
        plain("a folder without texts", {"n/a.csv": GOOD}, refused=("no .txt",), file="n"),
        plain("a pattern that finds nothing", {"n/a.csv": GOOD}, refused=("no such file",), file="n/*.txt"),
    ]
