"""Data sets with splits: folders of tables, what the `datasets` library has saved, and names on its hub."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.folders import FolderFiles, files_below
from warmstart.data.readers.library import read_by_library, stacked
from warmstart.data.readers.table import TABLES, Dialect, header_of, is_table, read_table

NAMES = {  # of splits, as users write them in any case
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
SHIFT = "test_"  # what begins the name of a shifted test split
METADATA = "metadata"  # the stem of a table that says what the files of an image or audio folder are
SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")


def split_named(word: str) -> str | None:
    """Return the split that a word means in any case: train, validation, test or test_<shift>; None where none."""
    word = word.casefold()
    if word.startswith(SHIFT) and len(word) > len(SHIFT):
        return word
    return next((split for split, words in NAMES.items() if word in words), None)


def read_splits(
    root: str, config: str | None = None, option: str = "data.root", dialect: Dialect | None = None
) -> dict[str, pd.DataFrame]:
    """Read the tables of a data set by the names of its splits; a file is one split, `all`.

    In a folder, a file belongs to the split that a word in its own name, or in that of a folder around it, means;
    where none does, all files are one split.

    Args:
        root: what `option` is set to: a table, a folder of tables, one that `datasets` has saved, or a hub name.
        config: of a hub name that has several.
        option: the setting, for messages.
        dialect: how tables are written.

    Raises:
        UserError: there is no such data set, it cannot be reached, or it cannot be read.
    """
    path = Path(root)
    if path.is_file():
        return {"all": read_table(path, dialect)}
    if not path.is_dir() and (root.count("/") != 1 or root.startswith((".", "/")) or is_table(path)):
        raise UserError(f"{option}={root}: there is no such file or folder")
    files = _tables_below(path) if path.is_dir() else {}
    if files:
        frames = {name: _joined(found, path, dialect) for name, found in files.items()}
    else:
        frames = {}
        for name, frame in read_by_library(root, config, option, dialect).items():
            canonical = split_named(name) or name
            frames[name if canonical in frames else canonical] = frame
    frames = {name: frame for name, frame in frames.items() if len(frame)}
    if not frames:
        raise UserError(f"{option}={root} has no rows")
    return frames


def columns_of(root: str, dialect: Dialect | None = None) -> list[str] | None:
    """Return the names of the columns of a table, or of a folder's first one; None where these are unknown."""
    path = Path(root)
    if path.is_dir():
        path = next(iter(FolderFiles(path, frozenset(TABLES), frozenset()).below(path)), path)
    return header_of(path, dialect)


def place(root: str, split: str, splits: Collection[str]) -> str:
    """Return how a message calls a split, which needs no name where it is the only one."""
    return f"data.root={root}" + (f", split {split}" if len(splits) > 1 else "")


def _tables_below(root: Path) -> dict[str, list[Path]]:
    """Return the tables of a folder by split; none where the folder is laid out for the `datasets` library.

    A name such as test_data means the test split where no other does, and a shifted one beside it.

    Raises:
        UserError: some tables are of a split and others of none, or it cannot be known which is the test split.
    """
    if any((root / name).is_file() for name in ("dataset_dict.json", "state.json")) or _has_card(root):
        return {}
    found: dict[str, list[Path]] = {}
    for path in files_below(root, frozenset(TABLES), frozenset()):
        found.setdefault(_split_of(path.relative_to(root)) or "", []).append(path)
    if "" in found and len(found) > 1:
        raise UserError(
            f"data.root={root}: {', '.join(sorted(set(found) - {''}))} are splits, but {found[''][0]} is of none: "
            "name it after one, such as train.csv, or move it away"
        )
    shifts = [name for name in found if name.startswith(SHIFT)]
    if shifts and "test" not in found:
        if len(shifts) > 1:
            raise UserError(f"data.root={root}: {' and '.join(shifts)} are test splits: name one of them test")
        found["test"] = found.pop(shifts[0])
    order = [*NAMES]
    names = sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name or "all": found[name] for name in names}


def _split_of(path: Path) -> str | None:
    """Return the split of a file by the names around it: of its folders, the outermost first, and its own."""
    for name in (*path.parts[:-1], SHARD.sub("", path.name.partition(".")[0])):
        words = {split_named(name)} - {None} or {split_named(word) for word in re.split(r"[^A-Za-z]+", name)} - {None}
        if len(words) == 1:
            return words.pop()
    return None


def _has_card(root: Path) -> bool:
    """Whether a README.md declares the files or the features of a data set."""
    card = root / "README.md"
    head = card.read_text(errors="replace").split("---") if card.is_file() else []
    return len(head) > 2 and bool(re.search(r"^(configs|dataset_info):", head[1], re.MULTILINE))


def _joined(files: list[Path], root: Path, dialect: Dialect | None) -> pd.DataFrame:
    """Return the rows of several tables of a folder as one."""
    return stacked([(path, _read(path, root, dialect)) for path in files])


def _read(path: Path, root: Path, dialect: Dialect | None) -> pd.DataFrame:
    """Read one table of a folder; files that a `metadata` table names get their paths from the root on."""
    frame = read_table(path, dialect)
    if path.name.partition(".")[0] == METADATA and "file_name" in frame:
        names = [None if cell is None else _named(cell, path, root) for cell in frame["file_name"]]
        frame = frame.assign(**{name: names for name in ("image", "audio") if name not in frame})
    return frame


def _named(cell: Any, table: Path, root: Path) -> str:
    """Return the path from the root on of a file that a `metadata` table names, by a path from its own folder on.

    Raises:
        UserError: it leads out of the root.
    """
    found = os.path.relpath(table.parent / str(cell), root)
    if Path(found).is_absolute() or Path(found).parts[:1] == ("..",):
        raise UserError(f"{table} names {cell}, which is outside {root}: name files in the folder")
    return found
