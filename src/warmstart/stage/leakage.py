"""Whether a pretraining has seen rows that a task is tested on."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from warmstart import screen
from warmstart.contracts import Splits, UserError
from warmstart.data.duplicates import FEWEST_FEATURES, find_duplicates
from warmstart.data.memory import MemoryDataModule
from warmstart.data.module import GenericDataModule
from warmstart.data.shared_rows import shared_rows
from warmstart.reading import load_config
from warmstart.report.shared import sentences
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import ancestors
from warmstart.stage.parts import sources_of


def note_shared_rows(run: RunFolder, data: MemoryDataModule, names: Sequence[str]) -> None:
    """Print and record which of a run's rows stand in two of the named parts.

    Runs of a sweep or a transfer are left out: these look once, at the data that all their runs have.
    """
    if run.record.get("sweep") is not None:
        return
    overlap = shared_rows({name: data.given[name] for name in names}, data.preprocessor, data.target)
    warn_of_shared_rows(overlap)
    run.note(data={**run.record["data"], "overlap": overlap})


def warn_of_shared_rows(overlap: dict[str, dict[str, Any]]) -> None:
    """Print a warning for each two parts that share rows."""
    for line in sentences(overlap):
        screen.say(f"warning: {line}", style="yellow")


def find_overlap(generic: GenericDataModule, splits: Splits) -> dict[str, Any]:
    """Rows of the task's test split that the generic training rows hold too, exactly or nearly.

    `comparable` is False where the two hold different kinds of rows.
    """
    nothing = {"exact": [], "near": [], "test_rows": len(splits.test), "comparable": False}
    if hasattr(generic.preprocessor, "overlap"):
        found = generic.preprocessor.overlap(generic.raw, splits.test.x)
        return nothing if found is None else {**nothing, "exact": found.exact, "near": found.near, "comparable": True}
    try:
        rows = generic.preprocessor(generic.preprocessor.encode(splits.test.x))
    except UserError:
        return nothing
    seen = generic.preprocessor(generic.parts["train"][0])
    if seen.shape[1:] != rows.shape[1:]:
        return nothing
    found = find_duplicates(seen, rows)
    near = found.near if rows[0].numel() >= FEWEST_FEATURES else []
    return {"exact": found.exact, "near": near, "test_rows": len(rows), "comparable": True}


def warn_of_other_splits(config: DictConfig, run: RunFolder) -> None:
    """Say so where a run, or one that its weights come from, cut the same data set into other parts.

    Nothing is said of a run whose config cannot be read.
    """
    for ancestor in ancestors(run):
        with contextlib.suppress(OSError, ValueError, YAMLError, OmegaConfBaseException):
            seen = sources_of(load_config(ancestor.path / "config.yaml").data).values()
            for theirs, ours in itertools.product(seen, sources_of(config.data).values()):
                if all(theirs.get(key) == ours.get(key) for key in ("_target_", "root", "seed")):
                    _compare(theirs, ours, ancestor)


def _compare(theirs: DictConfig, ours: DictConfig, run: RunFolder) -> None:
    for key in ("split_seed", "split", "test_speakers", "target", "config"):
        before, now = theirs.get(key), ours.get(key)
        if before != now:
            screen.say(
                f"warning: {run.path} was trained with data.{key}={before}, so it has seen rows that "
                f"data.{key}={now} tests on: use the same data.{key} in both",
                style="yellow",
            )
