"""Renders a sweep as one self-contained HTML page: tables from a template, plots from its script."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from warmstart.core import screen
from warmstart.report.curves import aggregate
from warmstart.report.estimate import ALPHA
from warmstart.report.leaderboard import label

MAX_ROWS = 50
MAX_JOBS = 2000
MAX_CURVES = 8
MAX_POINTS = 100


def render(summary: dict[str, Any], files: dict[str, list[Path]]) -> str:
    """Return the page as HTML; `files` holds the metrics.csv of the runs of each configuration."""
    environment = templates(True, label=label, number=screen.number, score=score)
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    rows = summary["configurations"][:MAX_ROWS]
    failed = [job for job in summary["jobs"] if job["state"] == "failed"]
    return environment.get_template("page.html.j2").render(
        summary=summary,
        rows=[{**row, "bar": bar} for row, bar in zip(rows, bars(rows), strict=True)],
        has_intervals=any(row["low"] is not None for row in rows),
        failed=failed[:MAX_ROWS],
        failed_count=len(failed),
        data=data(summary, files),
        alpha=ALPHA,
    )


def templates(autoescape: bool | Callable[[str], bool], **filters: Callable[..., Any]) -> Environment:
    """Return the environment of the templates in this folder, which refuses undefined names."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment


def score(value: float | None) -> str:
    """Return a number with four significant digits, including trailing zeros for alignment."""
    return f"{value:#.4g}" if value is not None and 1e-3 <= abs(value) < 1e4 else screen.number(value)


def data(summary: dict[str, Any], files: dict[str, list[Path]]) -> dict[str, Any]:
    """Return the data of the plots, limited in size for large sweeps."""
    parameters, best = summary["parameters"], summary["best_of_n"]
    numbers = {row["name"]: number for number, row in enumerate(summary["configurations"])}
    jobs = sorted(summary["jobs"], key=lambda job: numbers[job["configuration"]])[:MAX_JOBS]
    return {
        "metric": summary["metric"],
        "mode": summary["mode"],
        "states": list(summary["states"]),
        "parameters": [
            {**parameter, "values": [plot_value(parameter, value) for value in parameter["values"]]}
            for parameter in parameters
        ],
        "configurations": [describe(row, parameters) for row in summary["configurations"]],
        "jobs": [
            {
                "name": job["name"],
                "c": numbers[job["configuration"]],
                "state": job["state"],
                "score": job["score"],
                "values": [plot_value(parameter, job["values"].get(parameter["key"])) for parameter in parameters],
            }
            for job in jobs
        ],
        "hidden": len(summary["jobs"]) - len(jobs),
        **important(summary["importance"]),
        "expected": best and [[k + 1, best["expected"][k]] for k in subsample(len(best["expected"]))],
        "best": best and [best["n"], best["best"]],
        "curves": curves(summary, files),
    }


def important(found: dict[str, dict[str, float]] | None) -> dict[str, Any]:
    """Return the shares of the parameters, largest first, and those that noise explains with their p values."""
    if found is None:
        return {"importance": None, "noise": []}
    shown = [(key, one["share"]) for key, one in found.items() if one["p"] < ALPHA]
    noise = [(key, one["p"]) for key, one in found.items() if one["p"] >= ALPHA]
    return {"importance": sorted(shown, key=lambda item: -item[1]), "noise": noise}


def describe(row: dict[str, Any], parameters: list[dict[str, Any]]) -> str:
    """Return the varied values of a configuration as one line."""
    texts = (f"{parameter['short']} {label(row['values'].get(parameter['key']))}" for parameter in parameters)
    return " · ".join(texts) or row["name"]


def plot_value(parameter: dict[str, Any], value: Any) -> Any:
    """Return a number, or the label of a category."""
    return label(value) if parameter["kind"] == "category" else value


def subsample(count: int) -> list[int]:
    """Return at most MAX_POINTS of `count` indices, evenly spaced, including both ends."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(count, MAX_POINTS))})


def curves(summary: dict[str, Any], files: dict[str, list[Path]]) -> list[dict[str, Any]]:
    """Return mean and range over seeds of the best configurations, by metric."""
    names = list(dict.fromkeys([summary["metric"] or "val/loss", "val/loss", "train/loss"]))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    tables = ((number, aggregate(files.get(row["name"], []))) for number, row in enumerate(summary["configurations"]))
    filled = ((number, table) for number, table in tables if len(table))
    for slot, (number, table) in enumerate(itertools.islice(filled, MAX_CURVES)):
        for name in names:
            if name in table.index:
                found[name].append({"c": number, "slot": slot, **line(table.loc[name])})
    return [{"name": name, "lines": lines} for name, lines in found.items() if lines]


def line(table: pd.DataFrame) -> dict[str, list[float]]:
    """Return one curve with its range, subsampled and rounded to six digits."""
    table = table.iloc[subsample(len(table))]
    columns = {name: [float(f"{value:.6g}") for value in table[name]] for name in ("mean", "least", "most")}
    return {"n": int(table["n"].iloc[0]), "x": [int(step) for step in table.index], **columns}


def bars(rows: list[dict[str, Any]]) -> list[dict[str, float] | None]:
    """Return the position of each mean and interval between the lowest and highest value of all, in percent."""
    edges = [row[key] for row in rows for key in ("low", "mean", "high") if row[key] is not None]
    low, width = (min(edges), max(edges) - min(edges)) if edges else (0.0, 0.0)

    def percent(value: float) -> float:
        return round(100 * (value - low) / width, 2) if width else 50.0

    return [
        None
        if row["mean"] is None
        else {
            "mean": percent(row["mean"]),
            "left": percent(row["mean"] if row["low"] is None else row["low"]),
            "right": percent(row["mean"] if row["high"] is None else row["high"]),
        }
        for row in rows
    ]
