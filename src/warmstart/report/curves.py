"""Learning curves over seeds: mean and band of each configuration, as runs that TensorBoard shows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tensorboard.summary import Writer

from warmstart.report.estimate import t_factor
from warmstart.run.manifest import Manifest

CURVES = "curves"
COLUMNS = ("mean", "low", "high")


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


def aggregate(paths: Sequence[Path]) -> pd.DataFrame:
    """Mean, 95% t interval (low, high) and range (least, most) by name and step, at the steps that all runs have.

    Runs that have no values yet are left aside; the interval of a single run is NaN.
    """
    tables = [table for table in map(read_metrics, paths) if len(table)]
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


def write_curves(folder: Path, files: dict[str, list[Path]]) -> None:
    """Write folder/curves/<configuration>/mean, low and high for each configuration with two seeds or more.

    All of it is written anew beside the old one, which it then replaces.
    """
    fresh, old = (folder / f".{CURVES}.{word}" for word in ("new", "old"))
    for left_over in (fresh, old):
        shutil.rmtree(left_over, ignore_errors=True)
    fresh.mkdir()
    for name, paths in files.items():
        if len(paths) > 1 and (curve := aggregate(paths))["n"].gt(1).any():
            write_events(fresh / name, curve)
    if (folder / CURVES).exists():
        os.rename(folder / CURVES, old)
    os.rename(fresh, folder / CURVES)
    shutil.rmtree(old, ignore_errors=True)


def write_events(folder: Path, curve: pd.DataFrame) -> None:
    """One TensorBoard run per column, under the metrics' own names."""
    for column in COLUMNS:
        writer = Writer(str(folder / column))
        for (name, step), value in curve[column].items():
            writer.add_scalar(name, value, step)
        writer.close()
