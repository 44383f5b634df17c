"""Reading texts: plain files, tables, and data sets of the `datasets` library, with the place of whatever is wrong."""

from __future__ import annotations

import difflib
import io
import json
import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from warmstart.contracts import Splits, UserError

TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".pq")
EMPTY_IS_MISSING = {"keep_default_na": False, "na_values": [""]}  # of a CSV file; "None" and "NA" are words


def read_text(path: str | Path) -> str:
    r"""A text file as UTF-8, its lines ended by \n.

    Raises:
        UserError: the file is missing, empty, binary or in another encoding; the byte is counted from 0.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise UserError(f"{path} is empty")
    if b"\0" in data and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path} is binary, not text: byte {data.index(0)} is zero")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        found = data[error.start]
        raise UserError(f"{path} is not UTF-8 text (byte {error.start} is 0x{found:02x}): save it as UTF-8") from error
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: str | Path) -> list[str]:
    """The lines of a text file that hold something.

    Raises:
        UserError: as `read_text`.
    """
    return [line for line in read_text(path).split("\n") if line.strip()]


def read_table(path: str | Path, columns: dict[str, str], frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """The texts of a CSV, TSV, Parquet, JSON or JSON lines file.

    Args:
        path: the file.
        columns: what the result's columns are called in the file.
        frame: the file's table, where it is read already.

    Raises:
        UserError: the file is missing or broken, lacks a column, or a text is empty.
    """
    frame = read_file(Path(path)) if frame is None else frame
    return pd.DataFrame({name: to_texts(pick(frame, column, str(path)), str(path)) for name, column in columns.items()})


def read_file(path: Path) -> pd.DataFrame:
    """A table from a file, all cells of a CSV file as text.

    Raises:
        UserError: the file is missing, broken, of another kind, or has no rows.
    """
    kind = path.suffix.lower()
    if kind not in TABLES:
        raise UserError(f"{path} is not a table: give a file that ends in {', '.join(TABLES)}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        if kind in (".parquet", ".pq"):
            frame = pd.read_parquet(path)
        elif kind in (".json", ".jsonl"):
            frame = to_frame(_records(read_text(path)), path)
        else:
            separator = "\t" if kind == ".tsv" else ","
            frame = pd.read_csv(io.StringIO(read_text(path)), sep=separator, dtype=str, **EMPTY_IS_MISSING)
            if not isinstance(frame.index, pd.RangeIndex):  # what pandas makes of cells beyond the header
                count = len(frame.columns)
                cells = f"{frame.index.nlevels + count} cells, the header has {count}"
                raise UserError(f"{path}, row 1: {cells}: put texts with commas in quotes")
    except (ValueError, OSError) as error:
        raise UserError(f"{path} cannot be read: {str(error).strip().splitlines()[-1]}") from error
    if frame.empty:
        raise UserError(f"{path} has no rows")
    return frame.rename(columns=str)


def to_frame(rows: list[dict[str, Any]], path: Path) -> pd.DataFrame:
    """Records as a table; raise UserError with the row, from 1 on, where a text cannot be encoded."""
    try:
        return pd.DataFrame(rows)
    except UnicodeEncodeError as error:
        for number, row in enumerate(rows, 1):
            if re.search("[\ud800-\udfff]", json.dumps(row, ensure_ascii=False)):
                raise UserError(f"{path}, row {number}: a lone surrogate, half of a character: remove it") from error
        raise


def _records(text: str) -> list[dict[str, Any]]:
    """The objects of a JSON list, or of one on each line."""
    if text.lstrip().startswith("["):
        rows = list(enumerate(json.loads(text), 1))
    else:
        rows = [(number, _parsed(line, number)) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    for number, row in rows:
        if not isinstance(row, dict):
            raise ValueError(f"entry {number} is not a JSON object")
    return [row for _, row in rows]


def _parsed(line: str, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} is not JSON ({error})") from error


def read_splits(root: str, config: str | None = None, option: str = "data.root") -> dict[str, pd.DataFrame]:
    """The tables of a data set by the names of its splits; a file is one split, `all`.

    Class numbers that have names become those; -1, which is no class, becomes None.

    Args:
        root: what `option` is set to: a file for `read_file`, a folder `datasets` reads or has saved, or a hub name.
        config: of a hub name that has several.

    Raises:
        UserError: there is no such data set, it cannot be reached, or it cannot be read.
    """
    path = Path(root)
    if path.is_file():
        return {"all": read_file(path)}
    if not path.is_dir() and (root.count("/") != 1 or root.startswith((".", "/")) or path.suffix.lower() in TABLES):
        raise UserError(f"{option}={root}: there is no such file or folder")
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    options = EMPTY_IS_MISSING if path.is_dir() and any(path.rglob("*.csv")) else {}
    try:
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            found = datasets.load_from_disk(root)
        else:
            found = datasets.load_dataset(root, None if path.is_dir() else config, **options)
            if options and any("__index_level_0__" in columns for columns in found.column_names.values()):
                raise ValueError("a row has more cells than the header")
    except Exception as error:
        for file in sorted(path.rglob("*.csv")) if path.is_dir() else ():
            read_file(file)
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetGenerationError) else error
        reason = " ".join(str(cause).split())[:200]
        tables = sorted(file for file in path.glob("*") if file.suffix.lower() in TABLES) if path.is_dir() else []
        advice = f"give the table itself, {option}={tables[0]}" if tables else "give a local copy's folder"
        raise UserError(f"{option}={root} cannot be loaded ({reason}); {advice}") from error
    splits = (found if isinstance(found, dict) else {"all": found}).items()
    frames = {str(name): _named(part) for name, part in splits if len(part)}
    if not frames:
        raise UserError(f"{option}={root} has no rows")
    return frames


def _named(part: Any) -> pd.DataFrame:
    """A split of the `datasets` library as a table, with names for class numbers."""
    frame = part.to_pandas()
    for name, feature in part.features.items():
        inner = getattr(feature, "feature", None)
        if hasattr(feature, "names"):
            names = np.array([*feature.names, None], dtype=object)
            frame[name] = names[frame[name].fillna(-1).astype(int)]
        elif hasattr(inner, "names"):
            names = [*inner.names, None]
            frame[name] = [None if row is None else [names[number] for number in row] for row in frame[name]]
    return frame.rename(columns=str)


def place(root: str, split: str, splits: Collection[str]) -> str:
    """How a message calls a split, which needs no name where it is the only one."""
    return f"data.root={root}" + (f", split {split}" if len(splits) > 1 else "")


def pick(frame: pd.DataFrame, name: str, where: str, option: str = "") -> pd.Series:
    """A column of a table.

    Args:
        frame: the table.
        name: the column's.
        where: what the user calls the table.
        option: the setting that the name comes from.

    Raises:
        UserError: there is none; the nearest names are given.
    """
    if name in frame:
        return frame[name]
    if len(frame.columns) == 1 and ";" in frame.columns[0]:
        raise UserError(f"{where} is separated by semicolons; save it with commas")
    near = difflib.get_close_matches(name, frame.columns, n=3) or list(frame.columns)[:8]
    setting = f" ({option})" if option else ""
    raise UserError(f"{where} has no column {name}{setting}; near: {', '.join(near)}")


def to_texts(column: pd.Series, where: str) -> pd.Series:
    """A column of texts, or of lists of words, checked.

    Raises:
        UserError: a text is empty or missing, with its row counted from 1, or the column holds something else.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(object)
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "string":
        empty = column.str.strip().eq("") | column.isna()
    elif is_listed(column):
        column = column.map(lambda row: list(map(str, row)), na_action="ignore")
        empty = column.str.len().fillna(0).eq(0)
    elif column.isna().all():
        empty = column.isna()
    else:
        raise UserError(f"{where}, column {column.name}: {kind} values are not text")
    if empty.any():
        rows = np.flatnonzero(empty)
        others = f", as are {len(rows) - 1:,} others" if len(rows) > 1 else ""
        raise UserError(f"{where}, row {rows[0] + 1}: the text (column {column.name}) is empty{others}: remove it")
    return column.reset_index(drop=True)


def is_listed(column: pd.Series) -> bool:
    """Whether all cells are lists, missing ones left out."""
    kinds = set(map(type, column.dropna())) if column.dtype == object else set()
    return bool(kinds) and kinds <= {list, tuple, np.ndarray}


def renumbered(splits: Splits) -> Splits:
    """The same splits, the rows of each part numbered from 0."""
    for rows in (splits.train, splits.validation, splits.test, splits.unlabelled, *splits.shifts.values()):
        if rows is not None:
            rows.x = rows.x.reset_index(drop=True)
    return splits
