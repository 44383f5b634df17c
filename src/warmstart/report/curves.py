"""Learning curves over seeds, mean and interval per configuration, and texts, as TensorBoard runs."""

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
    """Read the finite values of val/* and train/loss from a metrics.csv; an incomplete last line is ignored."""
    text = path.read_text() if path.exists() else ""
    complete_lines = text[: text.rfind("\n") + 1]
    if not complete_lines:
        return pd.DataFrame({"step": [], "name": [], "value": []})
    table = pd.read_csv(StringIO(complete_lines))
    table["value"] = pd.to_numeric(table["value"], errors="coerce")
    wanted = table["name"].str.startswith("val/") | (table["name"] == "train/loss")
    return table[wanted & np.isfinite(table["value"])].drop_duplicates(["step", "name"], keep="last")


def aggregate(sources: Sequence[Source], read: Callable[[Source], pd.DataFrame] = read_metrics) -> pd.DataFrame:
    """Return mean, 95% t interval (low, high) and range (least, most) by name and step, at the steps of all runs.

    Runs without values are excluded; the interval of a single run is NaN.
    """
    tables = [table for table in map(read, sources) if len(table)]
    if not tables:
        return pd.DataFrame({"n": [], "mean": [], "low": [], "high": [], "least": [], "most": []})
    values = pd.concat(tables).groupby(["name", "step"])["value"]
    curve = values.agg(n="size", mean="mean", spread="std", least="min", most="max")
    curve = curve[curve["n"] == len(tables)]
    margin = curve["spread"] * (t_factor(len(tables)) if len(tables) > 1 else np.nan)
    return curve.assign(low=curve["mean"] - margin, high=curve["mean"] + margin).drop(columns="spread")


def curve_files(manifest: Manifest, jobs: Sequence[dict[str, Any]]) -> dict[str, list[Path]]:
    """Return the paths of metrics.csv of finished and running jobs, by configuration."""
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
    """Replace folder/curves by <configuration>/mean, low and high of each configuration with at least two seeds.

    Args:
        sources: runs of each configuration, as for `aggregate`.
        texts: Markdown by tag; each is written as a run with the name of the tag.
    """
    remove_temporaries_of(folder / CURVES)  # of killed processes
    with replacing_folder(folder / CURVES) as temporary:
        for name, runs in sources.items():
            if len(runs) > 1 and (curve := aggregate(runs, read))["n"].gt(1).any():
                for column in COLUMNS:
                    points = curve[column].items()
                    write_events(
                        temporary / name / column, ((step, scalar_pb(metric, y)) for (metric, step), y in points)
                    )
        for tag, text in (texts or {}).items():
            write_events(temporary / tag, [(0, text_pb(tag, text))])


def write_events(folder: Path, summaries: Iterable[tuple[int, Summary]]) -> None:
    """Write summaries by step as a TensorBoard run; TensorBoard's writer would start a thread per run."""
    folder.mkdir(parents=True)
    now = time.time()
    with open(folder / f"events.out.tfevents.{time.time_ns()}", "wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for step, summary in summaries:
            writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
