"""Pools transfers that differ only in their test clusters, such as a transfer for each fold of the speakers."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.ranges import shown
from warmstart.core.screen import quoted
from warmstart.report.looks import AUTO
from warmstart.report.runs import Run, Transfer, read_transfer

TEST = ("data.test_clusters", "pretrain.data.test_clusters")  # settings in which pooled transfers differ
SHOWN = 5  # names of clusters in a sentence
OTHER = ("output_dir", "pretrain.output_dir", "trust", "pretrain.trust")  # settings that change no result


def read_pool(folders: Sequence[Path]) -> Transfer:
    """Read transfers and return them as one: scores, clusters and pretrainings are concatenated over the transfers.

    The runs with the same arm, budget, label count and seed are one run of the pool, done if all of them are. With
    transfer.seeds=auto, these are the seeds that all transfers have, whichever look each stopped at. Its test
    metric is the mean over all test rows, or, if the metric is no mean over rows, the mean of the metrics weighted by
    the numbers of test rows. Its costs and training rows are means over the transfers.

    Raises:
        UserError: there are fewer than two, they differ in anything but their test clusters, they share test clusters,
            or one has none, or has transfer.starts.
    """
    if len(folders) < 2:
        raise UserError(f"runs={listed(folders)}: give two transfers or more, or one folder without brackets")
    folds = [read_transfer(folder) for folder in folders]
    for fold in folds:
        if fold.clusters is None:
            raise UserError(f"{fold.manifest.folder} has no clusters of test rows, so that it cannot be pooled")
        if fold.starts is not None:
            raise UserError(
                f"{fold.manifest.folder} cannot be pooled: with transfer.starts, each transfer selects its own starts. "
                "Run the transfers with transfer.start=START"
            )
    for fold in folds[1:]:
        check_settings(folds[0], fold)
    for one, other in itertools.combinations(folds, 2):
        if shared := sorted(set(one.clusters) & set(other.clusters)):
            raise UserError(
                f"{one.manifest.folder} and {other.manifest.folder} are both tested on {', '.join(shared[:3])}: give "
                "transfers with different data.test_clusters"
            )
    first = folds[0]
    words = ["stage=report", f"runs={listed(folders)}"]
    return replace(
        first,
        manifest=replace(first.manifest, words=words),
        record={**first.record, **joined_overlap([fold.record for fold in folds])},
        bases=[base for fold in folds for base in fold.bases],
        runs=[pooled_run(group, folds) for group in grouped(folds)],
        curves={},
        folds=tuple(folds),
    )


def listed(folders: Sequence[Path]) -> str:
    """Return folders as a list of the command line."""
    return f"[{','.join(quoted(folder) for folder in folders)}]"


def check_settings(first: Transfer, other: Transfer) -> None:
    """Raise UserError if two transfers differ in settings other than the test clusters."""
    settings = [flat(one.config) for one in (first, other)]
    for name in sorted({*settings[0], *settings[1]} - {*TEST, *OTHER}):
        values = [one.get(name) for one in settings]
        if values[0] != values[1]:
            raise UserError(
                f"{first.manifest.folder} and {other.manifest.folder} cannot be pooled: {name} is "
                f"{shown(values[0])} and {shown(values[1])}, but only data.test_clusters may differ"
            )


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted name."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def grouped(folds: Sequence[Transfer]) -> list[list[Run]]:
    """Return the runs of all transfers with the same arm, budget, label count and seed, in the order of the plan.

    With transfer.seeds=auto, those of the seeds that all transfers have.

    Raises:
        UserError: a transfer has other runs.
    """
    seeds = [{run.seed for run in fold.runs} for fold in folds]
    kept = set.intersection(*seeds) if folds[0].rules["seeds"] == AUTO else set.union(*seeds)
    tables = [
        {(run.arm, run.budget, run.labels, run.seed): run for run in fold.runs if run.seed in kept} for fold in folds
    ]
    for fold, table in zip(folds, tables):
        if set(table) != set(tables[0]):
            raise UserError(
                f"{fold.manifest.folder} and {folds[0].manifest.folder} have other runs: resume the one that is not "
                "finished, with stage=transfer resume=FOLDER"
            )
    return [[table[key] for table in tables] for key in tables[0]]


def pooled_run(runs: Sequence[Run], folds: Sequence[Transfer]) -> Run:
    """Return the runs of one arm, budget, label count and seed as one run."""
    state = next((state for state in ("failed", "interrupted", "running", "planned") if state in states(runs)), "done")
    weights = [len(fold.clusters) for fold in folds]
    record = averaged([run.record for run in runs])
    if all(run.record.get("data") for run in runs):
        rows = record["data"]["rows"]
        tested = [name for name in rows if name.split("_")[0] == "test"]
        rows |= {name: sum(run.record["data"]["rows"][name] for run in runs) for name in tested}
    known = [run.record.get("metrics") or {} for run in runs]
    names = set.intersection(*map(set, known))
    metrics = {name: statistics.fmean([values[name] for values in known], weights) for name in sorted(names)}
    errors = [run.record.get("error") for run in runs if run.record.get("error")]
    tests, vals = [run.test for run in runs], [run.val for run in runs]
    return replace(
        runs[0],
        state=state,
        record={**record, "metrics": metrics, "error": errors[0] if errors else None},
        val=None if None in vals else statistics.fmean(vals),
        test=None if state != "done" or None in tests else statistics.fmean(tests, weights),
    )


def states(runs: Sequence[Run]) -> set[str]:
    """Return the states of runs."""
    return {run.state for run in runs}


def averaged(values: Sequence[Any]) -> Any:
    """Return the means of the numbers of nested records; other values, and numbers that some lack, are of the first."""
    first = values[0]
    if all(isinstance(value, dict) for value in values):
        return {
            key: averaged([value[key] for value in values]) if all(key in value for value in values) else first[key]
            for key in first
        }
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        mean = math.fsum(values) / len(values)
        return round(mean) if all(isinstance(value, int) for value in values) else mean
    return first


def joined_overlap(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entries on shared rows of the records of all transfers; their test rows are numbered in order."""
    overlaps = [record.get("overlap") for record in records]
    overlap, start = overlaps[0] and {**overlaps[0], "exact": [], "near": [], "test_rows": 0}, 0
    for found in overlaps if overlap else ():
        for kind in ("exact", "near"):
            overlap[kind] += [start + row for row in found[kind]]
        start += found["test_rows"]
        overlap["test_rows"] = start
    pairs: dict[str, dict[str, Any]] = {}
    for record in records:
        for pair, found in ((record.get("data") or {}).get("overlap") or {}).items():
            known = pairs.get(pair, {})
            counts = ("rows", "exact", "near", "other_target", "same_context")
            sums = {name: (known.get(name) or 0) + (found.get(name) or 0) for name in counts if name in found}
            pairs[pair] = {**found, **known, **sums}
    return {"overlap": overlap, "data": {**(records[0].get("data") or {}), "overlap": pairs}}


def summary(transfer: Transfer) -> dict[str, Any] | None:
    """Return which transfers are pooled, as a sentence, as plain JSON, and as their commands; None without a pool."""
    if not transfer.folds:
        return None
    transfers = [
        {
            "folder": str(fold.manifest.folder),
            "test_clusters": sorted(set(map(str, fold.clusters))),
            "test_rows": len(fold.clusters),
            "commit": fold.manifest.git.get("commit"),
        }
        for fold in transfer.folds
    ]
    commands = [*(fold.manifest.words for fold in transfer.folds), transfer.manifest.words]
    return {"sentence": sentence(transfers), "transfers": transfers, "commands": commands}


def sentence(transfers: Sequence[Mapping[str, Any]]) -> str:
    """Return which transfers a report pools, and what they are tested on."""
    parts = []
    for one in transfers:
        names, more = one["test_clusters"][:SHOWN], len(one["test_clusters"]) - SHOWN
        tested = ", ".join(names) + (f" and {more} more" if more > 0 else "")
        parts.append(f"{one['folder']} (tested on {tested}: {one['test_rows']:,} rows)")
    return f"Pooled over {len(transfers)} transfers with different test clusters: {'; '.join(parts)}."
