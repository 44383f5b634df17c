"""Learning curves over seeds: mean and band of each configuration, and texts, as runs that TensorBoard shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from warmstart.report.estimate import t_factor
from warmstart.run.files import remove_temporaries_of, replacing_folder
from warmstart.run.manifest import Manifest

CURVES = "curves"
COLUMNS = ("mean", "low", "high")
Source = TypeVar("Source")


def read_metrics(path: Path) -> pd.DataFrame:
    """The finite values of val/* and train/loss in a run's metrics.csv, also while it is being written."""
    text = path.read_text() if path.exists() else ""
    whole_lines = text[: text.rfind("\n") + 1]
    if not whole_lines:
        return pd.DataFrame({"step": [], "name": [], "value": []})
    table = pd.read_csv(StringIO(whole_lines))
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    wanted = table["name"].str.startswith("val/") | (table["name"] == "train/loss")
    return table[wanted & np.isfinite(table["value"])].drop_duplicates(["step", "name"], keep="last")


def aggregate(sources: Sequence[Source], read: Callable[[Source], pd.DataFrame] = read_metrics) -> pd.DataFrame:
    """Mean, 95% t interval (low, high) and range (least, most) by name and step, at the steps that all runs have.

    Runs that have no values yet are left aside; the interval of a single run is NaN.

    Args:
        sources: a metrics.csv per run, or what else `read` takes.
        read: gives a run's values.
    """
    tables = [table for table in map(read, sources) if len(table)]
    if not tables:
        return pd.DataFrame({"n": [], "mean": [], "low": [], "high": [], "least": [], "most": []})
    values = pd.concat(tables).groupby(["name", "step"])["value"]
    curve = values.agg(n="size", mean="mean", spread="std", least="min", most="max")
    curve = curve[curve["n"] == len(tables)]
    reach = curve["spread"] * (t_factor(len(tables)) if len(tables) > 1 else np.nan)
    return curve.assign(low=curve["mean"] - reach, high=curve["mean"] + reach).drop(columns="spread")


def curve_files(manifest: Manifest, jobs: Sequence[dict[str, Any]]) -> dict[str, list[Path]]:
    """The metrics.csv of the jobs that are done or running, by configuration."""
    files: dict[str, list[Path]] = {}
    for job in jobs:
        if job["state"] in ("done", "running"):
            files.setdefault(job["configuration"], []).append(manifest.path(job["name"]) / "metrics.csv")
    return files


def write_curves(
    folder: Path,
    sources: Mapping[str, Sequence[Source]],
    read: Callable[[Source], pd.DataFrame] = read_metrics,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write folder/curves/<configuration>/mean, low and high for each configuration with two seeds or more.

    All of it is written anew beside the old one, which it then replaces.

    Args:
        folder: of the sweep or transfer.
        sources: the runs of each configuration, as `aggregate` takes them.
        read: gives a run's values.
        texts: Markdown by tag, each written as a run of the tag's name.
    """
    remove_temporaries_of(folder / CURVES)  # of a process that was killed
    with replacing_folder(folder / CURVES) as fresh:
        for name, runs in sources.items():
            if len(runs) > 1 and (curve := aggregate(runs, read))["n"].gt(1).any():
                for column in COLUMNS:
                    points = curve[column].items()
                    write_events(fresh / name / column, ((step, scalar_pb(metric, y)) for (metric, step), y in points))
        for tag, text in (texts or {}).items():
            write_events(fresh / tag, [(0, text_pb(tag, text))])


def write_events(folder: Path, summaries: Iterable[tuple[int, Summary]]) -> None:
    """A TensorBoard run of summaries by step; written here, since TensorBoard's own writer hands each to a thread."""
    folder.mkdir(parents=True)
    now = time.time()
    with open(folder / f"events.out.tfevents.{time.time_ns()}", "wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for step, summary in summaries:
            writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
