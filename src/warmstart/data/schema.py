"""Check whether a table has the columns a trained model needs, without importing torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warmstart.data.readers.files import suffix_of
from warmstart.data.readers.folders import IMAGES, SOUNDS, TEXT_FILES, FolderFiles
from warmstart.data.readers.splits import columns_of
from warmstart.data.readers.table import Dialect, header_of

SQUAD = {"data", "version"}  # top-level keys of a SQuAD file, whose columns are nested
KINDS = {  # kinds of preprocessors by file extension, for files that are not tables
    **dict.fromkeys((f".{ending}" for ending in IMAGES.split()), ("image",)),
    **dict.fromkeys((f".{ending}" for ending in SOUNDS.split()), ("speech", "waveform")),
    **dict.fromkeys(TEXT_FILES, ("text",)),
}
BOUND = ("table",)  # kinds of preprocessors whose columns must be the same in further training


def missing_columns(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], list[str]]:
    """Return a function that maps a run's record to the columns it needs that are missing in this config's table.

    The table is `input`, read with the dialect of the run, or else the data. It is read at the first call. If its
    columns are unknown, none are missing. For an `input` of texts, images or sounds, all columns of a run of another
    kind of inputs are missing.
    """
    predicts = config.get("input") is not None
    data = config.get("data") or {}
    root = config.get("input") if predicts else data.get("root")
    fills = predicts and data.get("missing_columns") == "fill"

    @functools.cache
    def columns(separator: str | None) -> list[str] | None:
        if root is None:
            return None
        find = header_of if predicts else columns_of  # a folder as input has texts, images or sounds
        found = find(str(root), Dialect(separator))
        return None if found is not None and set(found) <= SQUAD else found

    kinds = functools.cache(lambda: kinds_of(Path(str(root))) if predicts else None)

    def missing(record: Mapping[str, Any]) -> list[str]:
        inputs = (record.get("data") or {}).get("inputs") or {}
        needed = inputs.get("columns") or []
        if predicts and inputs and kinds() is not None and inputs["kind"] not in kinds():
            return needed or [f"inputs of kind {inputs['kind']}"]
        if not needed or not (predicts or inputs.get("kind") in BOUND):
            return []
        found = columns(data.get("separator") or (inputs.get("separator") if predicts else None))
        absent = [] if found is None else [name for name in needed if name not in found]
        return [] if fills and len(absent) < len(needed) else absent

    return missing


def kinds_of(path: Path) -> tuple[str, ...] | None:
    """Return the kinds of preprocessors for a file or a folder; None for a table, which may be any."""
    if path.is_dir():
        path = next(iter(FolderFiles(path, frozenset(KINDS), frozenset()).below(path)), path)
    return KINDS.get(suffix_of(path))
