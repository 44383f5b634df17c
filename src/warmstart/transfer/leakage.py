"""Checks whether rows of a test split are also training rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warmstart.core import screen
from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.data.datamodule import GenericDataModule, MemoryDataModule
from warmstart.data.duplicates.overlap import FEWEST_FEATURES, find_duplicates, shared_rows
from warmstart.data.readers.files import listed
from warmstart.report.shared_rows import sentences
from warmstart.run.folder import RunFolder


def note_shared_rows(run: RunFolder, data: MemoryDataModule, names: Sequence[str]) -> None:
    """Print and record the rows that two of the named splits share.

    Runs of a sweep or a transfer are skipped: the sweep checks the data once for all its runs.
    """
    if run.record.get("sweep") is not None:
        return
    overlap = shared_rows({name: data.given[name] for name in names}, data.preprocessor, data.target)
    warn_of_shared_rows(overlap)
    run.note(data={**run.record["data"], "overlap": overlap})


def warn_of_shared_rows(overlap: dict[str, dict[str, Any]]) -> None:
    """Print a warning for each pair of splits that share rows."""
    for line in sentences(overlap):
        screen.say(f"warning: {line}", style="yellow")


def note_clusters(splits: Splits) -> dict[str, int] | None:
    """Print how many clusters of the test split are also in train.

    Returns:
        The number of clusters of each split, and of test clusters in train (`shared`); None if there are none.
    """
    if splits.test.cluster is None:
        return None
    found = {name: set(getattr(splits, name).cluster) for name in ("train", "validation", "test")}
    shared = sorted(found["train"] & found["test"])
    if shared:
        screen.say(
            f"warning: {len(shared):,} of {len(found['test']):,} clusters of the test split are also in train "
            f"({listed(shared)}): scores are those on known clusters, not on new ones",
            style="yellow",
        )
    return {**{name: len(names) for name, names in found.items()}, "shared": len(shared)}


def find_overlap(generic: GenericDataModule, splits: Splits) -> dict[str, Any]:
    """Find rows of the task's test split that are exact or near duplicates of generic training rows.

    `comparable` is False if the two data sets hold different kinds of rows.
    """
    incomparable = {"exact": [], "near": [], "test_rows": len(splits.test), "comparable": False}
    if "overlap" in generic.preprocessor.abilities:
        found = generic.preprocessor.overlap(generic.raw, splits.test.x)
        return (
            incomparable
            if found is None
            else {**incomparable, "exact": found.exact, "near": found.near, "comparable": True}
        )
    try:
        rows = generic.preprocessor(generic.preprocessor.encode(splits.test.x))
    except UserError:
        return incomparable
    seen = generic.preprocessor(generic.parts["train"][0])
    if seen.shape[1:] != rows.shape[1:]:
        return incomparable
    found = find_duplicates(seen, rows)
    near = found.near if rows[0].numel() >= FEWEST_FEATURES else []
    return {"exact": found.exact, "near": near, "test_rows": len(rows), "comparable": True}
