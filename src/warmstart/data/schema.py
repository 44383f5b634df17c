"""Which columns a trained model needs, and whether a table has them; nothing here imports torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from warmstart.data.readers.files import suffix_of
from warmstart.data.readers.folders import IMAGES, SOUNDS, TEXT_FILES, FolderFiles
from warmstart.data.readers.splits import columns_of
from warmstart.data.readers.table import Dialect, header_of

SQUAD = {"data", "version"}  # of a file as SQuAD publishes them, whose columns are further inside
KINDS = {  # of preprocessors, by the endings of files that are no tables
    **dict.fromkeys((f".{ending}" for ending in IMAGES.split()), ("image",)),
    **dict.fromkeys((f".{ending}" for ending in SOUNDS.split()), ("speech", "waveform")),
    **dict.fromkeys(TEXT_FILES, ("text",)),
}
BOUND = ("table",)  # kinds of preprocessors by whose columns a backbone is bound, in further training too


def lacking(config: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], list[str]]:
    """Return a function of a run's record: the columns that the run needs and this config's table lacks.

    The table is what `input` names, written as the run's own tables are, or else the data. It is read once the first
    record asks for it. Nothing is lacking where the columns are unknown. An `input` of texts, images or sounds lacks
    what a run of another kind of inputs needs.
    """
    predicts = config.get("input") is not None
    data = config.get("data") or {}
    root = config.get("input") if predicts else data.get("root")
    fills = predicts and data.get("missing_columns") == "fill"

    @functools.cache
    def columns(separator: str | None) -> list[str] | None:
        if root is None:
            return None
        find = header_of if predicts else columns_of  # a folder to predict for holds texts, images or sounds
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
    """Return the kinds of preprocessors that take a file, or the files of a folder; None where a table may be any."""
    if path.is_dir():
        path = next(iter(FolderFiles(path, frozenset(KINDS), frozenset()).below(path)), path)
    return KINDS.get(suffix_of(path))
