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
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalar
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

from warmstart.report.estimate import t_factor
from warmstart.run.files import remove_temporaries_of, replacing_folder
from warmstart.run.manifest import Manifest

CURVES, LAYOUT = "curves", "layout of bands"
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
    """Replace folder/curves by one TensorBoard run for each configuration with at least two seeds.

    Its scalars are the mean of each metric, with the name of the metric, so that the curves of all configurations are
    in one chart, and the 95 % interval as band/<metric>/low and high. A layout for TensorBoard's custom scalars draws
    the means with their intervals.

    Args:
        sources: runs of each configuration, as for `aggregate`.
        texts: Markdown by tag; each is written as a run with the name of the tag.
    """
    remove_temporaries_of(folder / CURVES)  # of killed processes
    with replacing_folder(folder / CURVES) as temporary:
        metrics: dict[str, None] = {}
        for name, runs in sources.items():
            if len(runs) > 1 and (curve := aggregate(runs, read))["n"].gt(1).any():
                metrics |= dict.fromkeys(curve.index.get_level_values("name"))
                points = (
                    (step, scalar_pb(scalar_tag(metric, column), row[column]))
                    for (metric, step), row in curve.iterrows()
                    for column in COLUMNS
                )
                write_events(temporary / name, points)
        if metrics:
            write_events(temporary / LAYOUT, [(0, layout_pb(metrics))])
        for tag, text in (texts or {}).items():
            write_events(temporary / tag, [(0, text_pb(tag, text))])


def scalar_tag(metric: str, column: str) -> str:
    """Return the name of a scalar: that of the metric for the mean, or of one edge of its band."""
    return metric if column == "mean" else f"band/{metric}/{column}"


def layout_pb(metrics: Iterable[str]) -> Summary:
    """Return a layout of custom scalars, with a chart of mean and 95 % interval for each metric."""
    charts = [
        layout_pb2.Chart(
            title=metric,
            margin=layout_pb2.MarginChartContent(
                series=[
                    layout_pb2.MarginChartContent.Series(
                        value=scalar_tag(metric, "mean"),
                        lower=scalar_tag(metric, "low"),
                        upper=scalar_tag(metric, "high"),
                    )
                ]
            ),
        )
        for metric in metrics
    ]
    category = layout_pb2.Category(title="mean and 95 % interval over seeds", chart=charts)
    layout = layout_pb2.Layout(category=[category]).SerializeToString()
    summary = Summary()
    tensor = tensor_util.make_tensor_proto(layout, dtype=np.object_)
    summary.value.add(
        tag=custom_scalar.CONFIG_SUMMARY_TAG, metadata=custom_scalar.create_summary_metadata(), tensor=tensor
    )
    return summary


def write_events(folder: Path, summaries: Iterable[tuple[int, Summary]]) -> None:
    """Write summaries by step as a TensorBoard run; TensorBoard's writer would start a thread per run."""
    folder.mkdir(parents=True)
    now = time.time()
    with open(folder / f"events.out.tfevents.{time.time_ns()}", "wb") as stream:
        writer = RecordWriter(stream)
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        for step, summary in summaries:
            writer.write(Event(wall_time=now, step=step, summary=summary).SerializeToString())
