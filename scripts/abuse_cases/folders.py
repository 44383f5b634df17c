"""Folders with splits, for images, audio, texts and tables; and rows that are in two splits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scripts.abuse_cases import images, sounds, tables, texts
from scripts.abuse_cases.case import Case, Check, check, count, every, labels, parts, says
from scripts.abuse_cases.written import Rows, csv, json_lines, mapped, parquet

BRIEF = ("trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1")


def case(
    name: str,
    files: Any,
    words: tuple[str, ...],
    right: Check | None = None,
    refused: tuple[str, ...] | None = None,
    door: str = "load",
) -> Case:
    """A folder p that is loaded."""
    files = {f"p/{path}": content for path, content in files.items()} if isinstance(files, dict) else files
    return Case("folders", name, files, (*words, "data.root={folder}/p"), right, refused, door)


def cases() -> list[Case]:
    """All of them."""
    return [
        *class_folders("images", images.FOLDER, lambda number: images.encoded(images.pixels(number)), "png"),
        *class_folders("sounds", sounds.FOLDER, lambda number: sounds.sound(sounds.tone(number % 40)), "wav"),
        *class_folders(
            "texts", (*texts.BASE, "data=text_folder"), lambda number: f"a text about {number}\nwith two lines\n", "txt"
        ),
        *split_tables("texts", (*texts.BASE, "data.text=text", "data.target=label"), texts.ROWS, "label"),
        *split_tables("tables", (*tables.BASE, "data.target=y", "data.categorical=[c]"), tables.ROWS, "y"),
        *text_classes(),
        *twice(),
    ]


def class_folders(kind: str, words: tuple[str, ...], content: Callable[[int], Any], ending: str) -> list[Case]:
    """A folder per split, a folder per class in it."""

    def made(split: str, first: int, each: int, classes: tuple[str, ...] = ("cat", "dog")) -> dict[str, Any]:
        return {
            f"{split}/{name}/{i:02}.{ending}": content(first + 100 * k + i)
            for k, name in enumerate(classes)
            for i in range(each)
        }

    def three(train: str, validation: str, test: str) -> dict[str, Any]:
        return {**made(train, 0, 10), **made(validation, 20, 3), **made(test, 30, 4)}

    known = every(
        labels("cat", "dog"), parts(train=20, validation=6, test=8), says("splits found", r"train\D+20", r"test\D+8")
    )
    two = {**made("train", 0, 10), **made("test", 30, 4)}
    found = [
        *(
            case(f"{kind}: {', '.join(names)}", three(*names), words, known)
            for names in (
                ("train", "val", "test"),
                ("Train", "Validation", "Test"),
                ("TRAIN", "VALID", "TEST"),
                ("train", "eval", "test"),
            )
        ),
        case(
            f"{kind}: train and test",
            two,
            words,
            every(labels("cat", "dog"), parts(test=8), says("splits found", r"test\D+8")),
        ),
        case(
            f"{kind}: train and val",
            {**made("train", 0, 10), **made("val", 20, 3)},
            words,
            every(labels("cat", "dog"), parts(validation=6), says("splits found")),
        ),
        case(f"{kind}: train alone", made("train", 0, 10), words, every(labels("cat", "dog"), count(20)), ("train",)),
        case(
            f"{kind}: val and test without train",
            {**made("val", 20, 6), **made("test", 30, 6)},
            words,
            refused=("train",),
        ),
        case(
            f"{kind}: val and validation",
            {**three("train", "val", "test"), **made("validation", 40, 3)},
            words,
            refused=("val", "validation"),
        ),
        case(
            f"{kind}: a class that is in test alone", {**two, **made("test", 60, 4, ("fox",))}, words, refused=("fox",)
        ),
        case(
            f"{kind}: a class that test lacks",
            {**made("train", 0, 10), **made("test", 30, 4, ("cat",))},
            words,
            every(labels("cat", "dog"), says("dog")),
            ("dog",),
        ),
        case(
            f"{kind}: one class in train",
            {**made("train", 0, 10, ("cat",)), **made("test", 30, 4, ("cat",))},
            words,
            refused=("two|one class",),
        ),
        case(
            f"{kind}: splits below classes",
            {f"{k.split('/')[1]}/{k.split('/')[0]}/{k.split('/')[2]}": v for k, v in two.items()},
            words,
            refused=("train",),
        ),
        case(
            f"{kind}: a folder in between",
            {f"data/{k}": v for k, v in two.items()},
            words,
            every(labels("cat", "dog"), says("splits")),
            ("data",),
        ),
        case(
            f"{kind}: files beside the splits",
            {**two, "README.md": "# x", ".git/HEAD": "x"},
            words,
            every(labels("cat", "dog"), parts(test=8)),
        ),
        case(
            f"{kind}: another folder beside the splits",
            {**two, **{f"extra/{k}": v for k, v in made("cat", 70, 2).items()}},
            words,
            every(labels("cat", "dog"), says("extra")),
            ("extra",),
        ),
        case(
            f"{kind}: classes called train and bus",
            {**made(".", 0, 10, ("train", "bus"))},
            words,
            labels("train", "bus"),
        ),
    ]
    return found


def split_tables(kind: str, words: tuple[str, ...], rows: Rows, target: str) -> list[Case]:
    """A table per split, beside one another or in folders."""
    train, held, test = rows[:24], rows[24:30], rows[30:]
    known = every(parts(train=24, validation=6, test=10), says("splits found", r"train\D+24", r"test\D+10"))
    forms = (("csv", csv), ("jsonl", json_lines), ("parquet", parquet))
    coded = mapped(rows, target, lambda i: ("01", "02")[i // 2 % 2])
    names = mapped(rows, target, lambda i: ("NA", "EU")[i // 2 % 2])
    blank = mapped(test, target, lambda i: "")
    return [
        *(
            case(
                f"{kind}: {ending} for each split",
                {f"train.{ending}": form(train), f"validation.{ending}": form(held), f"test.{ending}": form(test)},
                words,
                known,
            )
            for ending, form in forms
        ),
        case(
            f"{kind}: a folder of CSV for each split",
            {"train/a.csv": csv(train), "val/a.csv": csv(held), "test/a.csv": csv(test)},
            words,
            known,
        ),
        case(
            f"{kind}: several CSV in a split",
            {
                "train/a.csv": csv(train[:9]),
                "train/b.csv": csv(train[9:]),
                "val/a.csv": csv(held),
                "test/a.csv": csv(test),
            },
            words,
            known,
        ),
        case(
            f"{kind}: names in upper case",
            {"Train.csv": csv(train), "VAL.csv": csv(held), "Test.csv": csv(test)},
            words,
            known,
        ),
        case(
            f"{kind}: train.csv and dev.csv",
            {"train.csv": csv(train + test), "dev.csv": csv(held)},
            words,
            parts(validation=6),
            ("dev|split",),
        ),
        case(
            f"{kind}: classes 01 and 02 in splits",
            {"train.csv": csv(coded[:30]), "test.csv": csv(coded[30:])},
            words,
            every(labels("01", "02"), parts(test=10)),
        ),
        case(
            f"{kind}: classes NA and EU in splits",
            {"train.csv": csv(names[:30]), "test.csv": csv(names[30:])},
            words,
            every(labels("NA", "EU"), parts(test=10)),
        ),
        case(
            f"{kind}: a test split without targets",
            {"train.csv": csv(train + held), "test.csv": csv(blank)},
            words,
            every(count(30), says("test", r"no target|\b10\b")),
        ),
        case(
            f"{kind}: a test split without the target column",
            {
                "train.csv": csv(train + held),
                "test.csv": csv([{k: v for k, v in row.items() if k != target} for row in test]),
            },
            words,
            every(count(30), says("test")),
            (f"no column {target}", "test"),
        ),
        case(
            f"{kind}: a test class that train lacks",
            {"train.csv": csv(train + held), "test.csv": csv(mapped(test, target, lambda i: "odd"))},
            words,
            refused=("odd",),
        ),
        case(
            f"{kind}: a long row in a split",
            {"train.csv": csv(train + held), "test.csv": csv(test).replace("\n", ",\n").replace(",\n", "\n", 1)},
            words,
            refused=("test", "row 1\\b"),
        ),
        case(
            f"{kind}: columns of two splits in another order",
            {"train.csv": csv(train + held), "test.csv": csv([dict(reversed(row.items())) for row in test])},
            words,
            parts(test=10),
        ),
        case(f"{kind}: an empty folder", lambda path: (path / "p").mkdir(), words, refused=("p\\b",)),
        case(f"{kind}: a folder of other files", {"a.pdf": b"%PDF", "b.docx": b"PK"}, words, refused=("p\\b",)),
    ]


def text_classes() -> list[Case]:
    """A folder of text files per class."""
    words = (*texts.BASE, "data=text_folder")

    def made(*names: str) -> dict[str, Any]:
        return {f"{name}/{i:02}.txt": f"text {i} of {k}\n" for k, name in enumerate(names) for i in range(8)}

    return [
        *(
            case(f"text folders: classes {' and '.join(names)}", made(*names), words, every(labels(*names), count(16)))
            for names in (("01", "02"), ("1", "01"), ("None", "NA"), ("pos", "neg"), ("é 🙂", "a b"))
        ),
        case("text folders: an empty text", {**made("pos", "neg"), "pos/x.txt": ""}, words, refused=("x.txt", "empty")),
        case(
            "text folders: a text in Latin-1",
            {**made("pos", "neg"), "pos/x.txt": "é".encode("latin-1")},
            words,
            refused=("x.txt", "UTF-8"),
        ),
        case(
            "text folders: a zero byte",
            {**made("pos", "neg"), "pos/x.txt": "a\0b"},
            words,
            refused=("x.txt", "zero|binary"),
        ),
        case(
            "text folders: other files",
            {**made("pos", "neg"), "pos/x.pdf": b"%PDF", "pos/.DS_Store": b"\0"},
            words,
            every(labels("pos", "neg"), count(16), says("pdf")),
        ),
        case("text folders: one class", made("pos"), words, refused=("two",)),
    ]


def twice() -> list[Case]:
    """The same row in training and test is reported, whatever it is made of."""

    def shared(name: str, files: dict[str, Any], words: tuple[str, ...], size: int) -> Case:
        reported = says(rf"\b{size}\b.*(test|train)", "same|also|both|duplicate|shared|overlap|seen")
        return case(f"{name} in train and test", files, (*words, *BRIEF), reported, door="run")

    table, text = tables.ROWS, texts.ROWS
    picture = images.encoded(images.pixels(1234))
    noise = sounds.sound(sounds.tone(77))

    def per_class(make: Callable[[int], Any], ending: str, extra: Any) -> dict[str, Any]:
        files = {
            f"{split}/{name}/{i:02}.{ending}": make(first + 100 * k + i)
            for split, first in (("train", 0), ("val", 20), ("test", 40))
            for k, name in enumerate(("cat", "dog"))
            for i in range(6)
        }
        return {**files, f"train/cat/x.{ending}": extra, f"test/cat/y.{ending}": extra}

    @check("says nothing of shared rows")
    def nothing(seen: Any, other: Any) -> str | None:
        found = [line for line in seen.text.splitlines() if "warning" in line and "test" in line]
        return found[0] if found else None

    spread = mapped(table, "a", lambda i: f"{i}.25")
    return [
        shared(
            "three rows of a table",
            {"train.csv": csv(spread[:24]), "val.csv": csv(spread[24:30]), "test.csv": csv(spread[30:] + spread[:3])},
            (*tables.BASE, "data.target=y", "data.categorical=[c]"),
            3,
        ),
        shared(
            "three texts",
            {"train.csv": csv(text[:24]), "val.csv": csv(text[24:30]), "test.csv": csv(text[30:] + text[:3])},
            (*texts.BASE, "data.text=text", "data.target=label"),
            3,
        ),
        shared("a picture", per_class(lambda n: images.encoded(images.pixels(n)), "png", picture), images.FOLDER, 1),
        shared(
            "a recording",
            per_class(lambda n: sounds.sound(sounds.tone(n % 35 + 40 * (n > 99), 0.2 + n % 60 / 100)), "wav", noise),
            sounds.FOLDER,
            1,
        ),
        shared(
            "a text file",
            per_class(
                lambda n: f"text number {n} of a folder, which is like no other\n",
                "txt",
                "the very same text, word by word\n",
            ),
            (*texts.BASE, "data=text_folder"),
            1,
        ),
        case(
            "no row of a table in train and test",
            {"train.csv": csv(spread[:24]), "val.csv": csv(spread[24:30]), "test.csv": csv(spread[30:])},
            (*tables.BASE, "data.target=y", "data.categorical=[c]", *BRIEF),
            nothing,
            door="run",
        ),
    ]
