"""Read data sets with splits: folders of tables, data sets saved by the `datasets` library, and hub names."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from warmstart.core.errors import UserError
from warmstart.data.readers.folders import FolderFiles, files_below
from warmstart.data.readers.library import concatenate, read_by_library
from warmstart.data.readers.table import TABLES, Dialect, header_of, is_table, read_table

NAMES = {  # accepted names of splits, case-insensitive
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
SHIFT = "test_"  # prefix of the name of a shifted test split
METADATA = "metadata"  # stem of a table that describes the files of an image or audio folder
SHARD = re.compile(r"-\d{5}-of-\d{5}.*$")


def split_named(word: str) -> str | None:
    """Return the canonical name of a split: train, validation, test or test_<shift>; None if it is not one."""
    word = word.casefold()
    if word.startswith(SHIFT) and len(word) > len(SHIFT):
        return word
    return next((split for split, words in NAMES.items() if word in words), None)


def read_splits(
    root: str, config: str | None = None, option: str = "data.root", dialect: Dialect | None = None
) -> dict[str, pd.DataFrame]:
    """Read the tables of a data set by split; a single file is one split, `all`.

    In a folder, the split of a file is given by a word in its name or in that of a parent folder; if no file has one,
    all files are one split.

    Args:
        root: a table, a folder of tables, a data set saved by `datasets`, or a hub name.
        option: name of the setting of `root` in messages.

    Raises:
        UserError: the data set does not exist, cannot be downloaded, or cannot be read.
    """
    path = Path(root)
    if path.is_file():
        return {"all": read_table(path, dialect)}
    if not path.is_dir() and (root.count("/") != 1 or root.startswith((".", "/")) or is_table(path)):
        raise UserError(f"{option}={root}: there is no such file or folder")
    files = _tables_below(path) if path.is_dir() else {}
    if files:
        frames = {
            name: concatenate([(table, _read(table, path, dialect)) for table in found])
            for name, found in files.items()
        }
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
    """Return the column names of a table, or of the first table of a folder; None if they are unknown."""
    path = Path(root)
    if path.is_dir():
        path = next(iter(FolderFiles(path, frozenset(TABLES), frozenset()).below(path)), path)
    return header_of(path, dialect)


def describe(root: str, split: str, splits: Collection[str]) -> str:
    """Return the name of a split in messages; a single split is not named."""
    return f"data.root={root}" + (f", split {split}" if len(splits) > 1 else "")


def _tables_below(root: Path) -> dict[str, list[Path]]:
    """Return the tables of a folder by split; empty if the folder has the layout of the `datasets` library.

    A single name such as test_data is the test split if there is no other, else a shifted test split.

    Raises:
        UserError: only some of the tables have a split, or the test split is ambiguous.
    """
    if any((root / name).is_file() for name in ("dataset_dict.json", "state.json")) or _has_card(root):
        return {}
    found: dict[str, list[Path]] = {}
    for path in files_below(root, frozenset(TABLES), frozenset()):
        found.setdefault(_split_of(path.relative_to(root)) or "", []).append(path)
    if "" in found and len(found) > 1:
        raise UserError(
            f"data.root={root}: {', '.join(sorted(set(found) - {''}))} are splits, but {found[''][0]} has no split: "
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
    """Return the split in the names of the folders of a file, outermost first, or in its own name."""
    for name in (*path.parts[:-1], SHARD.sub("", path.name.partition(".")[0])):
        words = {split_named(name)} - {None} or {split_named(word) for word in re.split(r"[^A-Za-z]+", name)} - {None}
        if len(words) == 1:
            return words.pop()
    return None


def _has_card(root: Path) -> bool:
    """Return whether a README.md has the files or features of a data set."""
    card = root / "README.md"
    head = card.read_text(errors="replace").split("---") if card.is_file() else []
    return len(head) > 2 and bool(re.search(r"^(configs|dataset_info):", head[1], re.MULTILINE))


def _read(path: Path, root: Path, dialect: Dialect | None) -> pd.DataFrame:
    """Read a table of a folder; file names in a `metadata` table become paths relative to the root."""
    frame = read_table(path, dialect)
    if path.name.partition(".")[0] == METADATA and "file_name" in frame:
        names = [None if cell is None else _relative_path(cell, path, root) for cell in frame["file_name"]]
        frame = frame.assign(**{name: names for name in ("image", "audio") if name not in frame})
    return frame


def _relative_path(cell: Any, table: Path, root: Path) -> str:
    """Convert a path relative to the folder of a `metadata` table to one relative to the root.

    Raises:
        UserError: the file is outside of the root.
    """
    found = os.path.relpath(table.parent / str(cell), root)
    if Path(found).is_absolute() or Path(found).parts[:1] == ("..",):
        raise UserError(f"{table} names {cell}, which is outside of {root}: use files in the folder")
    return found
