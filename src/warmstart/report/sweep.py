"""The report of a sweep, finished or still running, from its manifest and run folders alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.report.curves import curve_files, write_curves
from warmstart.report.estimate import best_of_n, importance
from warmstart.report.leaderboard import STATES, jobs_csv, label, leaderboard_csv, parameters, rank, read_jobs, twin
from warmstart.report.page import render
from warmstart.run.files import write_atomically
from warmstart.run.lock import Lock
from warmstart.run.manifest import LOCKS, Manifest
from warmstart.run.sweep_checksums import check_runs

PATIENCE_SECONDS = 60.0
ROWS_SHOWN = 30


def write_report(folder: Path, failures: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Write leaderboard.csv, jobs.csv, sweep.html and curves/ into a sweep's folder; return what they show.

    Args:
        folder: of the sweep.
        failures: why jobs failed that have no record of it, by name.

    Raises:
        WriteError: the disk is full, read-only or broken.
        UserError: the folder is not a sweep's, is damaged, or another process is at this for a minute.
    """
    manifest = Manifest.read(folder)
    lock = Lock(folder / LOCKS / "report")
    if not lock.acquire(PATIENCE_SECONDS):
        raise UserError(f"{folder}: another process is writing this report; end it, or try again")
    try:
        check_runs(manifest)
        summary = summarise(manifest, failures)
        files = curve_files(manifest, summary["jobs"])
        write_atomically(folder / "jobs.csv", jobs_csv(summary["jobs"]))
        write_atomically(folder / "leaderboard.csv", leaderboard_csv(summary["configurations"], summary["metric"]))
        write_curves(folder, files)
        write_atomically(folder / "sweep.html", render(summary, files))
    finally:
        lock.release()
    return summary


def summarise(manifest: Manifest, failures: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the report shows, as plain JSON."""
    jobs = read_jobs(manifest, failures)
    search = manifest.search or {}
    configurations = rank(jobs, manifest.metric, manifest.mode, search.get("seeds"))
    complete = [row for row in configurations if row["complete"]]
    draws = search.get("sampler") not in ("tpe", "cmaes")  # which learn, so that their trials are no random draws
    varied = parameters(jobs)
    states = Counter(job["state"] for job in jobs)
    return {
        "id": manifest.folder.name,
        "stage": manifest.stage,
        "experiment": manifest.experiment,
        "words": manifest.words,
        "metric": manifest.metric,
        "twin": twin(manifest.metric),
        "mode": manifest.mode,
        "git": manifest.git,
        "is_search": manifest.search is not None,
        "states": {state: states[state] for state in STATES if states[state]},
        "seconds": sum(job["seconds"] or 0 for job in jobs),
        "parameters": varied,
        "configurations": configurations,
        "jobs": jobs,
        "best_of_n": best_of_n(complete, varied, manifest.mode) if draws else None,
        "importance": importance(jobs, varied),
    }


def counts(states: dict[str, int]) -> str:
    """How many runs are in which state."""
    return ", ".join(f"{count} {state}" for state, count in states.items())


def grid(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the ranking."""
    metric, other = summary["metric"], summary["twin"]
    scores = [metric, "95% interval", "n", *([other] if other else [])] if metric else []
    columns = ["rank", *(parameter["short"] for parameter in summary["parameters"]), *scores, "seconds", "runs"]
    rows = []
    for row in summary["configurations"][:ROWS_SHOWN]:
        cells = [str(row["rank"] or "-")]
        cells += [label(row["values"].get(parameter["key"])) for parameter in summary["parameters"]]
        if metric:
            cells += [screen.number(row["mean"]), interval_text(row), str(row["n"])]
            cells += [screen.number(row["test"])] if other else []
        rows.append([*cells, screen.number(row["seconds"], 3), counts(row["states"])])
    return columns, rows


def interval_text(row: dict[str, Any]) -> str:
    """A configuration's interval, or - where one seed gives none."""
    return "-" if row["low"] is None else f"{screen.number(row['low'])} to {screen.number(row['high'])}"


def title(summary: dict[str, Any]) -> str:
    """What the table shows, in one line."""
    if not summary["metric"]:
        return "runs by configuration"
    better = "higher" if summary["mode"] == "max" else "lower"
    return f"{summary['metric']} by configuration, mean over seeds ({better} is better)"


def show(summary: dict[str, Any]) -> None:
    """The ranking on the screen, and below it what failed and the best of n."""
    screen.table(title(summary), *grid(summary))
    hidden = len(summary["configurations"]) - ROWS_SHOWN
    if hidden > 0:
        screen.say(f"and {hidden} more, in leaderboard.csv")
    screen.say(f"{len(summary['jobs'])} jobs: {counts(summary['states'])}")
    broken = [job for job in summary["jobs"] if job["state"] == "failed"]
    for job in broken[:ROWS_SHOWN]:
        screen.say(f"{job['name']}: {(job['error'] or 'no reason was recorded').splitlines()[0]}", style="red")
    if len(broken) > ROWS_SHOWN:
        screen.say(f"and {len(broken) - ROWS_SHOWN} more, in jobs.csv", style="red")
    for line in best_lines(summary):
        screen.say(line)


def best_lines(summary: dict[str, Any]) -> list[str]:
    """The best configuration beside the best that was to be expected, over all and by value at equal n."""
    best = summary["best_of_n"]
    if best is None or best["n"] < 2:
        return []
    shorts = {parameter["key"]: parameter["short"] for parameter in summary["parameters"]}
    lines = [
        f"best of {best['n']} configurations: {screen.number(best['best'])} "
        f"(expected best of {best['n']}: {screen.number(best['expected'][-1])})"
    ]
    for group in best["groups"]:
        if group["n"] == group["equal_n"] == 1:
            continue
        name = f"{shorts[group['parameter']]}={label(group['value'])}"
        if group["n"]:
            lines.append(
                f"  {name}: best of {group['n']} {screen.number(group['best'])}, "
                f"expected best of {group['equal_n']} {screen.number(group['expected'])}"
            )
        else:
            lines.append(f"  {name}: none is done")
    return lines
