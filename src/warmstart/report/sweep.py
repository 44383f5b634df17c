"""The report of a finished or running sweep, from its manifest and run folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.report.curves import curve_files, write_curves
from warmstart.report.estimate import best_of_n, importance
from warmstart.report.leaderboard import (
    STATES,
    jobs_csv,
    label,
    leaderboard_csv,
    parameters,
    rank,
    read_jobs,
    test_metric,
)
from warmstart.report.page import render
from warmstart.run.files import write_atomically
from warmstart.run.lock import Lock
from warmstart.run.manifest import LOCKS, Manifest, check_runs

LOCK_TIMEOUT = 60.0
MAX_ROWS = 30


def write_report(folder: Path, failures: Mapping[str, str] | None = None, show_test: bool = False) -> dict[str, Any]:
    """Write leaderboard.csv, jobs.csv, sweep.html and curves/ into a sweep's folder; return their content.

    Args:
        failures: errors of failed jobs that are not in their records, by name.
        show_test: include test scores, which are not used for the ranking.

    Raises:
        WriteError: the disk is full, read-only or failed.
        UserError: the folder is no sweep or is damaged, or another process writes the report for over a minute.
    """
    manifest = Manifest.read(folder)
    lock = Lock(folder / LOCKS / "report")
    if not lock.acquire(LOCK_TIMEOUT):
        raise UserError(f"{folder}: another process is writing this report; wait until it has ended, and try again")
    try:
        check_runs(manifest)
        summary = summarize(manifest, failures, show_test)
        files = curve_files(manifest, summary["jobs"])
        write_atomically(folder / "jobs.csv", jobs_csv(summary["jobs"], summary["shows_test"]))
        table = leaderboard_csv(summary["configurations"], summary["metric"], summary["shows_test"])
        write_atomically(folder / "leaderboard.csv", table)
        write_curves(folder, files)
        write_atomically(folder / "sweep.html", render(summary, files))
    finally:
        lock.release()
    return summary


def summarize(manifest: Manifest, failures: Mapping[str, str] | None = None, show_test: bool = False) -> dict[str, Any]:
    """Return the content of the report as plain JSON.

    Test scores are shown if they were asked for, or if there is no validation metric that could select by them.
    """
    jobs = read_jobs(manifest, failures)
    search = manifest.search or {}
    configurations = rank(jobs, manifest.metric, manifest.mode, search.get("seeds"))
    complete = [row for row in configurations if row["complete"]]
    is_random = search.get("sampler") not in ("tpe", "cmaes")  # trials of adaptive samplers are not independent
    varied = parameters(jobs)
    states = Counter(job["state"] for job in jobs)
    return {
        "id": manifest.folder.name,
        "stage": manifest.stage,
        "experiment": manifest.experiment,
        "words": manifest.words,
        "metric": manifest.metric,
        "test_metric": test_metric(manifest.metric) if show_test else None,
        "shows_test": show_test or test_metric(manifest.metric) is None,
        "mode": manifest.mode,
        "git": manifest.git,
        "is_search": manifest.search is not None,
        "states": {state: states[state] for state in STATES if states[state]},
        "seconds": sum(job["seconds"] or 0 for job in jobs),
        "parameters": varied,
        "configurations": configurations,
        "jobs": jobs,
        "best_of_n": best_of_n(complete, varied, manifest.mode) if is_random else None,
        "importance": importance(jobs, varied),
        "winner": winner(manifest, configurations, jobs),
    }


def winner(manifest: Manifest, configurations: list[dict[str, Any]], jobs: list[dict[str, Any]]) -> str | None:
    """Return the run folder with the best validation score of the first configuration; None without a ranking."""
    if not configurations or configurations[0]["rank"] != 1:
        return None
    best = max if manifest.mode == "max" else min
    runs = [job for job in jobs if job["configuration"] == configurations[0]["name"] and job["score"] is not None]
    return str(manifest.path(best(runs, key=lambda job: job["score"])["name"]))


def next_commands(summary: dict[str, Any], folder: Path) -> list[str]:
    """Return the commands that display the curves, and that use the best run."""
    commands = [screen.command("tensorboard", "--logdir", str(folder))]
    stages = {"finetune": ("evaluate", "run"), "pretrain": ("finetune", "init")}
    if summary["winner"] is not None and summary["stage"] in stages:
        stage, key = stages[summary["stage"]]
        words = (f"stage={stage}", f"experiment={screen.quoted(summary['experiment'])}")
        commands.append(screen.command("python", "train.py", *words, f"{key}={screen.quoted(summary['winner'])}"))
    return commands


def counts(states: dict[str, int]) -> str:
    """Return the counts of states as text."""
    return ", ".join(f"{count} {state}" for state, count in states.items())


def grid(summary: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the ranking."""
    metric, other = summary["metric"], summary["test_metric"]
    scores = [metric, "95% interval", "n", *([other] if other else [])] if metric else []
    columns = ["rank", *(parameter["short"] for parameter in summary["parameters"]), *scores, "seconds", "runs"]
    rows = []
    for row in summary["configurations"][:MAX_ROWS]:
        cells = [str(row["rank"] or "-")]
        cells += [label(row["values"].get(parameter["key"])) for parameter in summary["parameters"]]
        if metric:
            cells += [screen.number(row["mean"]), interval_text(row), str(row["n"])]
            cells += [screen.number(row["test"])] if other else []
        rows.append([*cells, screen.number(row["seconds"], 3), counts(row["states"])])
    return columns, rows


def interval_text(row: dict[str, Any]) -> str:
    """Return a configuration's interval as text, or - with a single seed."""
    return "-" if row["low"] is None else f"{screen.number(row['low'])} to {screen.number(row['high'])}"


def title(summary: dict[str, Any]) -> str:
    """Return the title of the ranking."""
    if not summary["metric"]:
        return "runs by configuration"
    better = "higher" if summary["mode"] == "max" else "lower"
    return f"{summary['metric']} by configuration, mean over seeds ({better} is better)"


def show(summary: dict[str, Any]) -> None:
    """Print the ranking, the failed jobs and the best of n."""
    screen.table(title(summary), *grid(summary))
    hidden = len(summary["configurations"]) - MAX_ROWS
    if hidden > 0:
        screen.say(f"and {hidden} more, in leaderboard.csv")
    screen.say(f"{len(summary['jobs'])} jobs: {counts(summary['states'])}")
    failed = [job for job in summary["jobs"] if job["state"] == "failed"]
    for job in failed[:MAX_ROWS]:
        screen.say(f"{job['name']}: {(job['error'] or 'no reason was recorded').splitlines()[0]}", style="red")
    if len(failed) > MAX_ROWS:
        screen.say(f"and {len(failed) - MAX_ROWS} more, in jobs.csv", style="red")
    for line in best_lines(summary):
        screen.say(line)


def best_lines(summary: dict[str, Any]) -> list[str]:
    """Return lines with best and expected best, over all configurations and by parameter value at equal n."""
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
            lines.append(f"  {name}: none done")
    return lines
