"""Inputs of stage=predict: predictions depend on the rows only, not on format or location."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scripts.abuse_cases import images, manifests, sounds, tables, texts
from scripts.abuse_cases.case import (
    Case,
    Check,
    Seen,
    answers,
    check,
    either,
    every,
    row_numbers,
    same_answers,
    says,
    silent,
)
from scripts.abuse_cases.written import changed, csv, json_lines, line_added, mapped, parquet, zipped
from sklearn.metrics import mean_absolute_error, r2_score

BRIEF = ("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1", "optimizer.lr=0.01")


def model(name: str, files: Any, words: tuple[str, ...], *more: str) -> Case:
    """A model to predict with."""
    return Case("predictions", name, files, (*words, *more, *BRIEF), every(), None, "run")


def predict(
    of: Case,
    experiment: str,
    name: str,
    content: Any,
    file: str,
    *words: str,
    right: Check | None = None,
    refused: tuple[str, ...] | None = None,
) -> Case:
    """Predictions for a file or folder."""
    files = content if callable(content) or isinstance(content, dict) else {file: content}
    own = ("stage=predict", f"experiment={experiment}", f"input='{{folder}}/{file}'")
    return Case("predictions", name, files, (*own, *words), right, refused, "run", of)


def cases() -> list[Case]:
    """All of them."""
    return [
        *of_tables(),
        *of_codes(),
        *of_typed_codes(),
        *of_values(),
        *of_scales(),
        *of_texts(),
        *of_images(),
        *of_sounds(),
        *latest(),
    ]


def of_tables() -> list[Case]:
    """A table of numbers and categories."""
    rows = [{k: v for k, v in row.items() if k != "y"} for row in tables.ROWS]
    typed = [{k: v for k, v in row.items() if k != "y"} for row in tables.TYPED]
    trained = model(
        "a model of a table",
        {"t.csv": tables.GOOD},
        tables.BASE,
        "data.root={folder}/t.csv",
        "data.target=y",
        "data.categorical=[c]",
        "data.missing=mean",
    )

    def new(name: str, content: Any, *words: str, file: str = "n.csv", **outcome: Any) -> Case:
        return predict(trained, "table", f"table: {name}", content, file, *words, **outcome)

    clean = new("clean", csv(rows), right=every(answers(40), row_numbers(*range(1, 41)), silent("warning")))
    same = same_answers(clean)
    cities = mapped(rows, "c", lambda i: "Oslo" if i in (3, 9) else "Bergen" if i == 20 else rows[i]["c"])
    shuffled = [(i * 7) % 40 for i in range(40)]
    blank = csv(rows[:3]).split("\n")
    gap = new("a gap in a number", csv(changed(rows, 5, a="")), right=answers(40))
    without = [{k: v for k, v in row.items() if k != "b"} for row in rows]
    no_city = [{k: v for k, v in row.items() if k != "c"} for row in rows]
    empty_b = new("empty b", csv(mapped(rows, "b", lambda i: "")), right=answers(40))
    empty_c = new("empty c", csv(mapped(rows, "c", lambda i: "")), right=answers(40))
    fill = "data.missing_columns=fill"
    return [
        trained,
        clean,
        new("the training table", tables.GOOD, right=same),
        new("the training table without its answers", tables.GOOD.replace(",yes", ",").replace(",no", ","), right=same),
        new("TSV", csv(rows, "\t"), right=same, file="n.tsv"),
        new("semicolons", csv(rows, ";"), right=same),
        new("pipes", csv(rows, "|"), right=same),
        new("gzip", zipped(csv(rows)), right=same, file="n.csv.gz"),
        new("JSON lines", json_lines(typed), right=same, file="n.jsonl"),
        new("JSON list", json.dumps(typed), right=same, file="n.json"),
        new("Parquet", parquet(typed), right=same, file="n.parquet"),
        new("all quoted, byte order mark, CRLF", "\ufeff" + csv(rows, quoted=True, end="\r\n"), right=same),
        new("CR alone", csv(rows, end="\r"), right=same),
        new("columns in another order", csv([dict(reversed(row.items())) for row in rows]), right=same),
        new("further columns", csv(mapped(mapped(rows, "note", lambda i: "x,y"), "id", lambda i: str(i))), right=same),
        new("an index column", csv([{"": str(i), **row} for i, row in enumerate(rows)]), right=same),
        new("rows in another order", csv([rows[i] for i in shuffled]), right=same_answers(clean, shuffled)),
        new("one row", csv(rows[6:7]), right=every(answers(1), same_answers(clean, [6]))),
        new("a slice", csv(rows[10:13]), right=same_answers(clean, [10, 11, 12])),
        new("a slice, Parquet", parquet(typed[10:13]), right=same_answers(clean, [10, 11, 12]), file="n.parquet"),
        new(
            "rows of one category",
            csv([r for r in rows if r["c"] == "x"]),
            right=same_answers(clean, [i for i, r in enumerate(rows) if r["c"] == "x"]),
        ),
        new(
            "each row twice",
            csv([row for row in rows for _ in "12"]),
            right=same_answers(clean, [i // 2 for i in range(80)]),
        ),
        new("1,000 rows", csv(rows * 25), right=same_answers(clean, list(range(40)) * 25)),
        new(
            "blank lines",
            "\n".join([blank[0], blank[1], "", "", blank[2], "", blank[3], ""]),
            right=every(row_numbers(1, 4, 6), same_answers(clean, [0, 1, 2])),
        ),
        new(
            "blank lines at the end",
            csv(rows[:3]) + "\n\n",
            right=every(row_numbers(1, 2, 3), same_answers(clean, [0, 1, 2])),
        ),
        new(
            "a blank line of JSON",
            "\n".join([json.dumps(typed[0]), "", json.dumps(typed[1]), ""]),
            file="n.jsonl",
            right=every(row_numbers(1, 3), same_answers(clean, [0, 1])),
        ),
        new("unseen categories", csv(cities), right=every(answers(40), says("3 of 40", "\\bc\\b", "Oslo", "Bergen"))),
        new("unseen categories in every row", csv(mapped(rows, "c", lambda i: "Oslo")), right=says("40 of 40", "Oslo")),
        new(
            "categories by another case",
            csv(mapped(rows, "c", lambda i: rows[i]["c"].upper())),
            right=says("40 of 40", "X"),
        ),
        new("categories with a space", csv(changed(rows, 1, c="x ")), right=says("1 of 40")),
        new(
            "1,000 unseen categories",
            csv(mapped(rows * 25, "c", lambda i: f"city{i}")),
            right=says("1,?000 of 1,?000", "city0"),
        ),
        gap,
        new("a gap in a number, JSON", json_lines(changed(typed, 5, a=None)), right=same_answers(gap), file="n.jsonl"),
        new(
            "a gap in a number, Parquet", parquet(changed(typed, 5, a=None)), right=same_answers(gap), file="n.parquet"
        ),
        empty_b,
        empty_c,
        new("a column missing", csv(without), refused=("b\\b", "missing_columns")),
        new("a column missing, filled", csv(without), fill, right=same_answers(empty_b)),
        new("a category missing, filled", csv(no_city), fill, right=same_answers(empty_c)),
        new("two columns missing", csv([{"a": r["a"]} for r in rows]), refused=("b\\b", "c\\b")),
        new("all columns missing", csv([{"q": "1"} for _ in rows]), refused=("a\\b", "b\\b", "c\\b")),
        new(
            "all columns missing, filled",
            csv([{"q": "1"} for _ in rows]),
            fill,
            refused=("column",),
            right=says("a\\b", "b\\b", "c\\b"),
        ),
        new(
            "a trailing comma in each row",
            csv(rows).replace("\n", ",\n").replace(",\n", "\n", 1),
            refused=("row 1\\b", "4 cells", "3"),
        ),
        new("a long row", line_added(csv(rows), 13, ",x"), refused=("row 13\\b", "4 cells")),
        new("a short row", line_added(csv(rows), 13, "\n1,2"), refused=("row 14\\b", "2 cells")),
        new("a text among numbers", csv(changed(rows, 31, a="abc")), refused=("row 31\\b", "column a")),
        new(
            "a text among numbers after blank lines",
            csv(changed(rows, 31, a="abc")).replace("\n", "\n\n", 1),
            refused=("row 32\\b", "column a"),
        ),
        new("NA among numbers", csv(changed(rows, 31, a="NA")), refused=("row 31\\b", "column a", "missing_values")),
        new("infinity among numbers", csv(changed(rows, 31, a="inf")), refused=("row 31\\b", "column a")),
        new("1e300 among numbers", csv(changed(rows, 31, a="1e300")), refused=("row 31\\b", "column a")),
        new(
            "decimal commas",
            csv(mapped(rows, "a", lambda i: rows[i]["a"].replace(".", ",")), ";"),
            refused=("row 1\\b", "column a"),
        ),
        new(
            "a column twice",
            csv(mapped(rows, "d", lambda i: "1")).replace(",d\n", ",a\n", 1),
            refused=("column", "a\\b"),
        ),
        new("no header", csv(rows).split("\n", 1)[1], refused=("no column|lacks|missing", "a\\b")),
        new("header alone", "a,b,c\n", refused=("no rows",)),
        new("an empty file", "", refused=("no rows|empty",)),
        new("UTF-16", csv(rows).encode("utf-16"), refused=("UTF-8",)),
        new("Latin-1", csv(changed(rows, 2, c="é")).encode("latin-1"), refused=("UTF-8",)),
        new("a folder", {"n.csv/x.csv": csv(rows)}, refused=("folder",), right=same),
        new("no such file", {}, refused=("no such file",)),
        new("a picture", images.encoded(images.pixels(1)), refused=("n.png|UTF-8|table",), file="n.png"),
    ]


def of_codes() -> list[Case]:
    """Categories that look like numbers, whose neighbours differ between files."""
    codes = [
        {
            "a": str(i * 7 % 11),
            "code": ("01", "02", "03", "A1")[i % 4],
            "engine": ("1.5", "2", "3")[i % 3],
            "y": "big" if (i % 4 < 2) == (i % 3 < 2) else "small",
        }
        for i in range(60)
    ]
    words = (*tables.BASE, "data.root={folder}/t.csv", "data.target=y", "data.categorical=[code,engine]")
    trained = model("a model of codes", {"t.csv": csv(codes)}, words)

    def new(name: str, rows: list[dict[str, Any]], file: str = "n.csv", form: Any = csv, **outcome: Any) -> Case:
        return predict(trained, "table", f"codes: {name}", form(rows), file, **outcome)

    clean = new("clean", codes, right=every(answers(60), silent("warning")))
    plain = [i for i, row in enumerate(codes) if row["code"] != "A1"]
    complete = [i for i, row in enumerate(codes) if row["engine"] != "1.5"]
    both = [i for i in plain if i in complete]
    chosen = lambda index: [codes[i] for i in index]  # noqa: E731
    known = lambda index: every(same_answers(clean, index), silent("not seen"))  # noqa: E731
    return [
        trained,
        clean,
        new("01, 02, 03 without A1", chosen(plain), right=known(plain)),
        new("engines of 2 and 3 alone", chosen(complete), right=known(complete)),
        new("neither A1 nor 1.5", chosen(both), right=known(both)),
        new("a single row", chosen([1]), right=known([1])),
        new("JSON lines", chosen(both), "n.jsonl", json_lines, right=known(both)),
        new("Parquet of texts", chosen(both), "n.parquet", parquet, right=known(both)),
        new(
            "codes as JSON numbers",
            [{**codes[i], "code": int(codes[i]["code"])} for i in both],
            "n.jsonl",
            json_lines,
            right=says(f"{len(both)} of {len(both)}", "code"),
        ),
        new(
            "engines as JSON numbers",
            [{**codes[i], "engine": int(codes[i]["engine"])} for i in both],
            "n.jsonl",
            json_lines,
            right=known(both),
        ),
        new(
            "engines as floats of Parquet",
            [{**codes[i], "engine": float(codes[i]["engine"])} for i in both],
            "n.parquet",
            parquet,
            right=either(says(f"{len(both)} of {len(both)}", "engine"), known(both)),
        ),
        new(
            "engines with a zero more",
            [{**codes[i], "engine": codes[i]["engine"] + ".0"} for i in complete],
            right=says(f"{len(complete)} of {len(complete)}", "engine"),
        ),
    ]


def of_typed_codes() -> list[Case]:
    """Whole numbers of Parquet are floats where one of them is missing; their names must not depend on that."""
    codes = [
        {"a": float(i * 7 % 11), "code": None if i == 4 else i % 3, "y": "big" if i % 3 else "small"} for i in range(60)
    ]
    words = (*tables.BASE, "data.target=y", "data.categorical=[code]")
    floats = parquet(codes, code="float64")
    trained = model("a model of codes as floats", {"t.parquet": floats}, words, "data.root={folder}/t.parquet")
    clean = predict(trained, "table", "typed codes: clean", floats, "n.parquet", right=answers(60))
    rest = list(range(10, 60))
    same = every(same_answers(clean, rest), silent("not seen"))
    complete = [{**codes[i], "code": int(codes[i]["code"])} for i in rest]
    return [
        trained,
        clean,
        predict(trained, "table", "typed codes: floats", parquet(complete, code="float64"), "n.parquet", right=same),
        predict(trained, "table", "typed codes: integers", parquet(complete), "n.parquet", right=same),
        predict(trained, "table", "typed codes: 8 bits", parquet(complete, code="int8"), "n.parquet", right=same),
        predict(
            trained,
            "table",
            "typed codes: nullable",
            parquet(codes, code="Int64"),
            "n.parquet",
            right=every(same_answers(clean), silent("not seen")),
        ),
    ]


def of_scales() -> list[Case]:
    """R2, MAE and MSE on the test split must be what scikit-learn makes of the predictions, at any offset and scale."""
    found = []
    for name, center, scale in (
        ("311030 by tens", 311030, 10),
        ("thousandths", 0, 1e-3),
        ("seconds of today", 1.7e9, 10),
        ("1e25", 0, 1e25),
    ):
        rows = [
            {"a": row["a"], "b": row["b"], "z": repr(center + scale * float(np.sin(7.0 * i)))}
            for i, row in enumerate(tables.ROWS)
        ]
        files = {"p/train.csv": csv(rows[:20]), "p/val.csv": csv(rows[20:28]), "p/test.csv": csv(rows[28:])}
        trained = Case(
            "predictions",
            f"scales: a model of {name}",
            files,
            (*tables.BASE, "data.root={folder}/p", "data.target=z", "objective=regression", *BRIEF),
            every(),
            ("z",),
            "run",
        )
        right = like_scikit(trained, [float(row["z"]) for row in rows[28:]])
        found += [trained, predict(trained, "table", f"scales: {name}", csv(rows[28:]), "n.csv", right=right)]
    return found


def like_scikit(trained: Case, targets: list[float]) -> Check:
    """The metrics of a run, computed by scikit-learn from predictions for its test rows."""

    @check("the test metrics that scikit-learn computes")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        metrics = json.loads((other(trained).run / "run.json").read_text())["metrics"]
        values = [next(value for key, value in answer.items() if key != "row") for answer in seen.answers]
        values = [value["z"] if isinstance(value, dict) else value for value in values]
        wanted = {"test/r2": r2_score(targets, values), "test/mae": mean_absolute_error(targets, values)}
        wrong = [
            f"{name} {metrics[name]:.8g}, scikit-learn's {value:.8g}"
            for name, value in wanted.items()
            if name in metrics and not np.isclose(metrics[name], value, rtol=1e-5, atol=1e-5 * (name == "test/r2"))
        ]
        return "; ".join(wrong) or (None if "test/r2" in metrics else f"no test/r2 among {', '.join(metrics)}")

    return holds


def latest() -> list[Case]:
    """run=latest is the newest model that was trained on such a table as input= is."""
    rows = [{k: v for k, v in row.items() if k != "y"} for row in tables.ROWS]
    others = [{"height": str(i * 7 % 11), "weight": str(i * 3 % 17), "y": ("no", "yes")[i // 2 % 2]} for i in range(40)]
    first = model(
        "latest: a first model",
        {"t.csv": tables.GOOD},
        tables.BASE,
        "data.root={folder}/t.csv",
        "data.target=y",
        "data.categorical=[c]",
    )
    second = model(
        "latest: a second model", {"t.csv": csv(others)}, tables.BASE, "data.root={folder}/t.csv", "data.target=y"
    )
    second = replace(second, beside=first)

    def with_run(of: Case) -> Check:
        @check(f"predictions by {of.name!r}")
        def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
            run = other(of).run
            return (
                None
                if run is not None and str(run) in seen.text
                else f"not {run}: {seen.text.strip().splitlines()[:2]}"
            )

        return holds

    def new(name: str, content: str, **outcome: Any) -> Case:
        words = ("stage=predict", "experiment=table", "run=latest", "input={folder}/n.csv")

        @check("both models are there")
        def trained(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
            return None if other(second).run else "the second model is not there"

        right = every(trained, outcome["right"]) if "right" in outcome else None
        return Case(
            "predictions",
            f"latest: {name}",
            {"n.csv": content},
            words,
            right,
            outcome.get("refused"),
            "run",
            beside=second,
        )

    return [
        first,
        second,
        new("the first model's columns", csv(rows), right=with_run(first)),
        new("the second model's columns", csv(others), right=with_run(second)),
        new(
            "the columns of both",
            csv([{**row, **other} for row, other in zip(rows, others)]),
            right=with_run(second),
            refused=("latest|run=",),
        ),
        new("the columns of neither", csv([{"q": "1"} for _ in rows]), refused=("run|column",)),
    ]


def of_values() -> list[Case]:
    """Regression far from zero."""
    rows = mapped(tables.ROWS, "z", lambda i: str(1_700_000_000 + 5 * i))
    trained = model(
        "a model of values",
        {"t.csv": csv(rows)},
        tables.BASE,
        "data.root={folder}/t.csv",
        "data.target=z",
        "data.ignore=[y]",
        "data.categorical=[c]",
        "objective=regression",
    )
    clean = predict(trained, "table", "values: clean", csv(rows), "n.csv", right=every(answers(40)))
    return [
        trained,
        clean,
        predict(trained, "table", "values: a slice", csv(rows[5:8]), "n.csv", right=same_answers(clean, [5, 6, 7])),
        predict(
            trained,
            "table",
            "values: a gap that is not filled",
            csv(changed(rows, 5, a="")),
            "n.csv",
            refused=("row 5\\b", "column a"),
        ),
        predict(
            trained,
            "table",
            "values: JSON lines",
            json_lines([{**r, "a": float(r["a"])} for r in rows]),
            "n.jsonl",
            right=same_answers(clean),
        ),
    ]


def of_texts() -> list[Case]:
    """Texts in a file of lines or in a table."""
    trained = model(
        "a model of texts",
        {"t.csv": texts.GOOD},
        texts.BASE,
        "data.root={folder}/t.csv",
        "data.text=text",
        "data.target=label",
    )

    def new(name: str, content: Any, file: str = "n.txt", **outcome: Any) -> Case:
        return predict(trained, "text", f"texts: {name}", content, file, **outcome)

    lines = [row["text"] for row in texts.ROWS[:6]]
    rows = [{"text": line} for line in lines]
    clean = new("clean", "\n".join(lines) + "\n", right=every(answers(6), row_numbers(*range(1, 7))))
    same = same_answers(clean)
    odd = new(
        "lines with other separators in them",
        f"{lines[0]}\u2028x\n{lines[1]}\x0by\n{lines[2]}\x85z\n",
        right=row_numbers(1, 2, 3),
    )
    return [
        trained,
        clean,
        new(
            "blank lines",
            f"\n{lines[0]}\n\n \n{lines[1]}\n",
            right=every(row_numbers(2, 5), same_answers(clean, [0, 1])),
        ),
        new("no newline at the end", "\n".join(lines), right=same),
        new("CRLF", "\r\n".join(lines), right=same),
        new("CR", "\r".join(lines), right=same),
        new(
            "CRLF and blank lines",
            f"{lines[0]}\r\n\r\n{lines[1]}\r\n",
            right=every(row_numbers(1, 3), same_answers(clean, [0, 1])),
        ),
        new("byte order mark", "\ufeff" + "\n".join(lines), right=same),
        odd,
        new("CSV", csv(rows), "n.csv", right=same),
        new("CSV with further columns", csv(texts.ROWS[:6]), "n.csv", right=same),
        new(
            "CSV with blank lines",
            csv(rows[:2]).replace("\n", "\n\n"),
            "n.csv",
            right=every(row_numbers(2, 4), same_answers(clean, [0, 1])),
        ),
        new("TSV", csv(rows, "\t"), "n.tsv", right=same),
        new("JSON lines", json_lines(rows), "n.jsonl", right=same),
        new(
            "JSON lines with blank lines",
            json_lines(rows[:2]).replace("\n", "\n\n"),
            "n.jsonl",
            right=every(row_numbers(1, 3), same_answers(clean, [0, 1])),
        ),
        new("Parquet", parquet(rows), "n.parquet", right=same),
        new("gzip of CSV", zipped(csv(rows)), "n.csv.gz", right=same),
        new("the texts None and NA", csv([{"text": "None"}, {"text": "NA"}, *rows]), "n.csv", right=answers(8)),
        new("an empty text in a table", csv(changed(rows, 3, text="")), "n.csv", refused=("row 3\\b", "text")),
        new("a comma that is not quoted", "text\na, b\n", "n.csv", refused=("row 1\\b", "2 cells")),
        new("another column", csv([{"review": line} for line in lines]), "n.csv", refused=("no column text", "review")),
        new("an empty file", "", refused=("empty",)),
        new("Latin-1", "plöt\n".encode("latin-1"), refused=("UTF-8",)),
        new("UTF-16", "plot\n".encode("utf-16"), refused=("UTF-8",)),
        new("a zero byte", "pl\0t\n", refused=("zero|binary",)),
        new("no such file", {}, refused=("no such file|cannot be read",)),
    ]


def of_images() -> list[Case]:
    """Files, folders and tables of images."""
    photos = images.photos()
    small = ("data.size=12", "data/augment=none", "trainer.precision=32-true")
    trained = model(
        "a model of images", {f"p/{k}": v for k, v in photos.items()}, images.FOLDER, "data.root={folder}/p", *small
    )
    rows = [{"photo": name, "kind": name.split("/")[0]} for name in photos]
    named = model(
        "a model of a table of images",
        {**{f"p/{k}": v for k, v in photos.items()}, "p/t.csv": csv(rows)},
        images.FOLDER,
        "data=image_table",
        "data.root={folder}/p/t.csv",
        "data.image=photo",
        "data.target=kind",
        *small,
    )

    def new(name: str, content: Any, file: str = "n", of: Case = trained, **outcome: Any) -> Case:
        return predict(of, "images", f"images: {name}", content, file, **outcome)

    flat = {f"n/{i:02}.png": content for i, content in enumerate(photos.values())}
    clean = new("a folder", flat, right=answers(16))
    same = same_answers(clean)
    bitmaps = {f"n/{i:02}.bmp": content for i, content in enumerate(images.photos("BMP", "bmp").values())}
    table = {**{f"n/{k}": v for k, v in photos.items()}, "n/t.csv": csv(rows)}

    def absolute(path: Path) -> None:
        images.write(path, photos, "n")
        (path / "n/t.csv").write_text(csv([{**row, "photo": str(path / "n" / row["photo"])} for row in rows]))

    in_table = new("the training table", table, "n/t.csv", named, right=answers(16))
    return [
        trained,
        clean,
        new("a folder of BMP", bitmaps, right=same),
        new("hidden files in the folder", {**flat, "n/._00.png": b"\0", "n/.DS_Store": b"\0"}, right=same),
        new("an unreadable kind in the folder", {**flat, "n/x.heic": b"\0"}, right=every(same, says("heic"))),
        new("one file", {"n.png": photos["cat/03.png"]}, "n.png", right=same_answers(clean, [3])),
        new("a broken file in the folder", {**flat, "n/x.png": b""}, refused=("x.png",)),
        new("half a JPEG", {"n.jpg": images.encoded(images.pixels(1), "JPEG")[:400]}, "n.jpg", refused=("n.jpg",)),
        new("a folder without images", {"n/x.txt": "x"}, refused=("no image|holds no",)),
        new("no such file", {}, "n.png", refused=("no such file|not a readable image",)),
        new(
            "a table with a column file",
            {**{f"n/{k}": v for k, v in photos.items()}, "n/t.csv": csv([{"file": r["photo"]} for r in rows])},
            "n/t.csv",
            right=same,
        ),
        named,
        in_table,
        new(
            "the training table in TSV",
            {**table, "n/t.tsv": csv(rows, "\t")},
            "n/t.tsv",
            named,
            right=same_answers(in_table),
        ),
        new(
            "the training table in JSON lines",
            {**table, "n/t.jsonl": json_lines(rows)},
            "n/t.jsonl",
            named,
            right=same_answers(in_table),
        ),
        new("the training table with absolute paths", absolute, "n/t.csv", named, right=same_answers(in_table)),
        new(
            "a path that is missing",
            {**table, "n/t.csv": csv(changed(rows, 3, photo="none.png"))},
            "n/t.csv",
            named,
            refused=("none.png",),
        ),
        new(
            "a path that leads out",
            {**table, "n/t.csv": csv(changed(rows, 3, photo="../x.png"))},
            "n/t.csv",
            named,
            refused=("row 3\\b",),
        ),
        new("a table without the column", {"n/t.csv": "q,r\n1,2\n"}, "n/t.csv", named, refused=("photo",)),
    ]


def of_sounds() -> list[Case]:
    """Files, folders and manifests of recordings."""
    files = sounds.recordings()
    trained = model(
        "a model of recordings", {f"p/{k}": v for k, v in files.items()}, sounds.FOLDER, "data.root={folder}/p"
    )
    rows = [{"wav": name, "label": name.split("/")[0]} for name in files]
    named = model(
        "a model of a manifest",
        {**{f"p/{k}": v for k, v in files.items()}, "p/t.csv": csv(rows)},
        manifests.TABLE,
        "data.root={folder}/p/t.csv",
        "data.audio=wav",
    )

    def new(
        name: str, content: Any, file: str = "n", of: Case = trained, experiment: str = "speech", **outcome: Any
    ) -> Case:
        return predict(of, experiment, f"sounds: {name}", content, file, **outcome)

    flat = {f"n/{i:02}.wav": content for i, content in enumerate(files.values())}
    clean = new("a folder", flat, right=answers(16))
    same = same_answers(clean)
    flac = {f"n/{i:02}.flac": content for i, content in enumerate(sounds.recordings("FLAC", "flac").values())}
    plain = files["no/03.wav"]
    table = {**{f"n/{k}": v for k, v in files.items()}, "n/t.csv": csv(rows)}
    in_table = new("the training manifest", table, "n/t.csv", named, "recordings", right=answers(16))
    joined = sounds.sound(sounds.np.concatenate([sounds.tone(3), sounds.tone(4), sounds.tone(5)]))
    cut = [{"audio": "long.wav", "offset": 0.3 * k, "duration": 0.3} for k in range(3)]
    return [
        trained,
        clean,
        new("a folder of FLAC", flac, right=same),
        new("one file", {"n.wav": plain}, "n.wav", right=same_answers(clean, [3])),
        new(
            "a data size of 0",
            {"n.wav": plain[:40] + b"\0\0\0\0" + plain[44:]},
            "n.wav",
            right=every(same_answers(clean, [3]), says("n.wav")),
        ),
        new("half a WAV", {"n.wav": plain[: len(plain) // 2]}, "n.wav", right=every(answers(1), says("n.wav"))),
        new("M4A in the folder", {**flat, "n/x.m4a": b"\0"}, right=every(same, says("m4a"))),
        new(
            "a manifest", {**flat, "n/t.csv": csv([{"path": f"{i:02}.wav"} for i in range(16)])}, "n/t.csv", right=same
        ),
        new(
            "pieces of a manifest",
            {"n/long.wav": joined, "n/t.jsonl": json_lines(cut)},
            "n/t.jsonl",
            right=same_answers(clean, [3, 4, 5]),
        ),
        new("a broken file in the folder", {**flat, "n/x.wav": b"x"}, refused=("x.wav",)),
        new("silence", {"n.wav": sounds.sound(0 * sounds.tone(1))}, "n.wav", refused=("n.wav",)),
        new("a folder without sounds", {"n/x.txt": "x"}, refused=("no sound",)),
        new("no such file", {}, "n.wav", refused=("no such file",)),
        named,
        in_table,
        new(
            "the training manifest in TSV",
            {**table, "n/t.tsv": csv(rows, "\t")},
            "n/t.tsv",
            named,
            "recordings",
            right=same_answers(in_table),
        ),
        new(
            "a manifest with an empty path",
            {**table, "n/t.csv": csv(changed(rows, 3, wav=""))},
            "n/t.csv",
            named,
            "recordings",
            refused=("row 3\\b", "wav"),
        ),
    ]
