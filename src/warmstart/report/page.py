"""A sweep as one HTML page that needs nothing else: tables made here, plots drawn by its own script."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from warmstart.core import screen
from warmstart.report.curves import aggregate
from warmstart.report.leaderboard import label

ROWS_DRAWN = 50
JOBS_DRAWN = 2000
CURVES_DRAWN = 8
POINTS_DRAWN = 100


def render(summary: dict[str, Any], files: dict[str, list[Path]]) -> str:
    """The page; `files` holds the metrics.csv of each configuration's runs."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters.update(label=label, number=screen.number, score=score)
    rows = summary["configurations"][:ROWS_DRAWN]
    broken = [job for job in summary["jobs"] if job["state"] == "failed"]
    return environment.get_template("page.html.j2").render(
        summary=summary,
        rows=[{**row, "bar": bar} for row, bar in zip(rows, bars(rows), strict=True)],
        has_intervals=any(row["low"] is not None for row in rows),
        broken=broken[:ROWS_DRAWN],
        broken_count=len(broken),
        data=data(summary, files),
    )


def score(value: float | None) -> str:
    """A number with four significant digits, zeros included, so that a column lines up."""
    return f"{value:#.4g}" if value is not None and 1e-3 <= abs(value) < 1e4 else screen.number(value)


def data(summary: dict[str, Any], files: dict[str, list[Path]]) -> dict[str, Any]:
    """What the script draws, thinned so that a thousand jobs stay light."""
    parameters, best = summary["parameters"], summary["best_of_n"]
    numbers = {row["name"]: number for number, row in enumerate(summary["configurations"])}
    jobs = sorted(summary["jobs"], key=lambda job: numbers[job["configuration"]])[:JOBS_DRAWN]
    return {
        "metric": summary["metric"],
        "mode": summary["mode"],
        "states": list(summary["states"]),
        "parameters": [
            {**parameter, "values": [drawn(parameter, value) for value in parameter["values"]]}
            for parameter in parameters
        ],
        "configurations": [describe(row, parameters) for row in summary["configurations"]],
        "jobs": [
            {
                "name": job["name"],
                "c": numbers[job["configuration"]],
                "state": job["state"],
                "score": job["score"],
                "values": [drawn(parameter, job["values"].get(parameter["key"])) for parameter in parameters],
            }
            for job in jobs
        ],
        "hidden": len(summary["jobs"]) - len(jobs),
        "importance": summary["importance"] and sorted(summary["importance"].items(), key=lambda item: -item[1]),
        "expected": best and [[k + 1, best["expected"][k]] for k in thin(len(best["expected"]))],
        "best": best and [best["n"], best["best"]],
        "curves": curves(summary, files),
    }


def describe(row: dict[str, Any], parameters: list[dict[str, Any]]) -> str:
    """A configuration in one line: what it does not share with the others."""
    own = (f"{parameter['short']} {label(row['values'].get(parameter['key']))}" for parameter in parameters)
    return " · ".join(own) or row["name"]


def drawn(parameter: dict[str, Any], value: Any) -> Any:
    """A number, or the text of a category."""
    return label(value) if parameter["kind"] == "category" else value


def thin(count: int) -> list[int]:
    """At most a hundred of `count` positions, evenly, with both ends."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(count, POINTS_DRAWN))})


def curves(summary: dict[str, Any], files: dict[str, list[Path]]) -> list[dict[str, Any]]:
    """Mean and range over seeds of the best configurations, by metric."""
    names = list(dict.fromkeys([summary["metric"] or "val/loss", "val/loss", "train/loss"]))
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    tables = ((number, aggregate(files.get(row["name"], []))) for number, row in enumerate(summary["configurations"]))
    filled = ((number, table) for number, table in tables if len(table))
    for slot, (number, table) in enumerate(itertools.islice(filled, CURVES_DRAWN)):
        for name in names:
            if name in table.index:
                found[name].append({"c": number, "slot": slot, **line(table.loc[name])})
    return [{"name": name, "lines": lines} for name, lines in found.items() if lines]


def line(table: pd.DataFrame) -> dict[str, list[float]]:
    """One curve with its range, in a hundred points or fewer and six digits."""
    table = table.iloc[thin(len(table))]
    columns = {name: [float(f"{value:.6g}") for value in table[name]] for name in ("mean", "least", "most")}
    return {"n": int(table["n"].iloc[0]), "x": [int(step) for step in table.index], **columns}


def bars(rows: list[dict[str, Any]]) -> list[dict[str, float] | None]:
    """Where each mean and interval lies between the lowest and the highest of all, in percent."""
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
