"""Read column files of the CoNLL shared tasks: a word per line, and a blank line after each sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.files import check_is_file, read_text
from warmstart.data.readers.folders import files_below
from warmstart.data.readers.splits import NAMES, SHIFT, split_named

DOCUMENT = "-DOCSTART-"  # first column of a line before a document
BLANKS = " \t"
SPLITS = {"testa": "validation", "testb": "test"}  # in the names of files, besides those of other data sets
SUFFIXES = frozenset({".conll", ".txt", ".tsv", ".bio", ".iob", ".iob2", ".bioes"})
SUFFIXES |= {f".{split}" for split in ("train", "dev", "valid", "test", *SPLITS)}


def read_conll_splits(root: str, words: int, column: int) -> dict[str, pd.DataFrame]:
    """Read a file, or the files of a folder by the splits in their names; see `read_conll`.

    A single file, and files without splits, are the split `all`.

    Raises:
        UserError: there is no file, only some files have a split, or as in `read_conll`.
    """
    path = Path(root)
    if not path.is_dir():
        if not path.exists():
            raise UserError(f"data.root={root}: there is no such file or folder")
        return {"all": read_conll(path, words, column)}
    found: dict[str, list[Path]] = {}
    for file in files_below(path, SUFFIXES):
        found.setdefault(split_of(file.relative_to(path)) or "all", []).append(file)
    if not found:
        raise UserError(f"data.root={root} has no files that end in {', '.join(sorted(SUFFIXES))}")
    if "all" in found and len(found) > 1:
        raise UserError(
            f"data.root={root}: {', '.join(sorted(set(found) - {'all'}))} are splits, but {found['all'][0]} has no "
            "split: name it after one, such as train.conll, or move it away"
        )
    order = [*NAMES, *sorted(found.keys() - NAMES.keys())]
    return {
        name: pd.concat([read_conll(file, words, column, path) for file in found[name]], ignore_index=True)
        for name in order
        if name in found
    }


def split_of(path: Path) -> str | None:
    """Return the split in the names of the folders of a file, outermost first, or in its own name, such as eng.testa.

    None: a name has no split, or several.
    """
    for name in path.parts:
        if (shift := split_named(name.split(".")[0])) and shift.startswith(SHIFT):
            return shift
        words = re.split(r"[^A-Za-z]+", name.casefold())
        found = {SPLITS.get(word) or split_named(word) for word in words} - {None}
        if len(found) == 1:
            return found.pop()
    return None


def read_conll(path: Path, words: int, column: int, root: Path | None = None) -> pd.DataFrame:
    """Return the sentences of a file: lists of words, tags and line numbers (`text`, `tags`, `lines`), and the file.

    The column `document` is the document of a sentence, by the lines that start with -DOCSTART-; None if there are
    fewer than two, as in files with such a line only at the start.

    Args:
        words: number of the column of words, from 0; from -1 backwards.
        column: number of the column of tags.
        root: folder in which the names of documents begin; None for that of the file.

    Raises:
        UserError: the file has no words, a line has another number of columns than the first, or as in `read_text`.
    """
    check_is_file(path)
    rows: list[tuple[list[str], list[str], list[int], int]] = []
    is_start, document, width, first = True, 0, 0, 0
    for number, line in enumerate(read_text(path).split("\n"), 1):
        cells = re.split(f"[{BLANKS}]+", line.strip(BLANKS))
        if cells[0] == DOCUMENT or not line.strip():
            document += cells[0] == DOCUMENT
            is_start = True
            continue
        if not first:
            first, width = number, len(cells)
            check_columns(path, width, words=words, column=column)
        if len(cells) != width:
            raise UserError(
                f"{path}, line {number}: {len(cells)} columns, but line {first} has {width}: correct or remove it"
            )
        if is_start:
            rows.append(([], [], [], document))
            is_start = False
        for values, value in zip(rows[-1], (cells[words], cells[column], number)):
            values.append(value)
    if not rows:
        raise UserError(f"{path} has no words")
    frame = pd.DataFrame(dict(zip(("text", "tags", "lines", "document"), zip(*rows))))
    name = path.relative_to(root or path.parent)
    names = [f"{name} {value}" if document > 1 else None for value in frame.document]
    return frame.assign(document=pd.Series(names, dtype=object), file=str(path))


def check_columns(path: Path, width: int, **chosen: int) -> None:
    """Raise UserError if a chosen column does not exist, or both are the same."""
    if width < 2:
        raise UserError(f"{path} has one column: words and tags are needed, separated by spaces or tabs")
    for name, column in chosen.items():
        if not -width <= column < width:
            raise UserError(f"{path} has {width} columns: data.{name}={column} is none of them; the first is 0")
    if len({column % width for column in chosen.values()}) < len(chosen):
        settings = " and ".join(f"data.{name}={column}" for name, column in chosen.items())
        raise UserError(f"{path} has {width} columns: {settings} are the same")
