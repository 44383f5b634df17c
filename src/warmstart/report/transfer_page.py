"""A transfer's report for people: report.html, report.md, report.png, and curves/ for TensorBoard."""

from __future__ import annotations

import html
import math
import re
import shlex
import statistics
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from warmstart.report import figure
from warmstart.report.bought import per_step
from warmstart.report.curves import aggregate, curve_groups, write_curves
from warmstart.report.runs import Transfer
from warmstart.report.verdicts import BUDGET_WORDS, labels_text, pairs
from warmstart.run.folder import write_atomically
from warmstart.screen import number

UNITS = ("steps", "seconds", "examples")
Report = dict[str, Any]
Section = dict[str, Any]
Table = dict[str, Any]


def write_page(folder: Path, transfer: Transfer, report: Report) -> None:
    """Write report.html, report.md, report.png and curves/ into a transfer's folder."""
    curve = partial(figure.label_curve, report=report, looks=figure.looks(transfer.arms))
    sections = [gain(report, curve), noise(report), sooner(transfer, report), multiplied(report), long_enough(report)]
    commands = ["python", "train.py", *report["words"]], ["python", "train.py", "stage=report", f"runs={folder}"]
    content = {
        "report": report,
        "word": report["headline"]["verdict"] or "no verdict",
        "sections": [section for section in sections if section],
        "verdicts": verdicts(report),
        "tables": [*means(report), verdicts(report), *checks(report), rates(report)],
        "unfinished": [run for run in report["runs"] if run["status"] != "done"],
        "settings": (folder / "config.yaml").read_text(),
        "commands": [shlex.join(command) for command in commands],
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name == "transfer.html.j2",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    text = environment.get_template("transfer.md.j2").make_module(content)
    page = environment.get_template("transfer.html.j2").render({**content, "text": text})
    write_atomically(folder / "report.png", figure.png(curve))
    write_atomically(folder / "report.md", str(text))
    write_atomically(folder / "report.html", page)
    write_curves(folder, curve_groups(transfer.runs), transfer.curve, {"verdict": text.summary()})


def plain(text: str) -> str:
    """Text as one line that Markdown shows as it is."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def span(ends: list[float | None], form: str = ".3g") -> str:
    """An interval in words."""
    return "-" if ends[0] is None else f"{ends[0]:{form}} to {ends[1]:{form}}"


def gain(report: Report, curve: figure.Paint) -> Section:
    """Score by labels."""
    arms = [report["verdicts"][0][key] for key in ("arm", "against")] if report["verdicts"] else report["rules"]["arms"]
    parts = []
    for arm in arms[:2]:
        known = [row for row in report["table"] if row["arm"] == arm and row["mean"] is not None]
        ends = [known[0], known[-1]] if len(known) > 1 else known
        texts = [f"{number(row['mean'], 3)} with {labels_text([row['labels_per_class']])}" for row in ends]
        parts.append(f"{arm} has {' and '.join(texts) or 'no run that is done'}")
    words = BUDGET_WORDS[next(iter(report["rules"]["budgets"]))]
    return {
        "question": "How much does it help, by labels?",
        "answer": f"Mean {report['metric']}, {words}: {'; '.join(parts)}.",
        "figure": figure.svg("labels", figure.label_curve_words(report), curve),
        "note": "Means over seeds; the bands are 95 % intervals over seeds and test examples.",
    }


def noise(report: Report) -> Section | None:
    """Paired differences with their intervals."""
    rows, margin = report["verdicts"], report["rules"]["margin"]
    if not rows:
        return None
    words = Counter(row["verdict"] or "no verdict" for row in rows).most_common()
    return {
        "question": "Is the difference more than noise?",
        "answer": f"Of {len(rows)} comparisons, {', '.join(f'{count} say {word}' for word, count in words)}.",
        "figure": figure.svg("noise", figure.forest_words(rows), partial(figure.forest, report=report)),
        "note": f"Differences paired by seed, with 95 % intervals. Inside the grey margin of ±{margin:g} a difference "
        "does not matter. The words are corrected for the number of comparisons; the intervals are not.",
    }


def sooner(transfer: Transfer, report: Report) -> Section | None:
    """Validation score against steps and seconds, and the time to the control's best."""
    budget, labels, metric = transfer.budgets[0], transfer.labels[0], transfer.manifest.metric
    lines = {}
    for arm, look in figure.looks(transfer.arms).items():
        runs = [run for run in transfer.group(arm, budget, labels) if run.state == "done"]
        if metric in (curve := aggregate(runs, transfer.curve)).index:
            pace = {"steps": 1.0, "seconds": statistics.median(per_step(run, "seconds") for run in runs)}
            lines[arm] = {"curve": curve.loc[metric], "pace": pace, "look": look}
    if not lines:
        return None
    goal, answer = None, "No arm was timed against another."
    if report["time_to_target"]:
        goal = {**report["time_to_target"][0]}
        both = pairs(*(transfer.group(goal[key], "steps", goal["labels"]) for key in ("arm", "against")))
        goal["level"] = statistics.fmean(control.val for _, control in both)
        after = f"at step {goal['steps']:g} in the median" if goal["steps"] is not None else "never in the median"
        answer = (
            f"With {labels_text([labels])}, {goal['reached']} of {goal['n']} {goal['arm']} runs validate as well as the "
            f"best of {goal['against']}, {after} ({goal['against']} itself: at step {goal['steps_against']:g})."
        )
    return {
        "question": "Does it get there sooner?",
        "answer": answer,
        "figure": figure.svg("time", figure.time_words(lines), partial(figure.against_time, lines, goal, metric)),
        "note": f"Validation at {labels_text([labels])}, {BUDGET_WORDS[budget]}: means over seeds with 95 % bands.",
        "table": time_table(report),
    }


def time_table(report: Report) -> Table | None:
    """What it takes to validate as well as the control's best, and after how many tasks pretraining is paid back."""
    found = report["time_to_target"]
    if not found:
        return None
    arm, against = found[0]["arm"], found[0]["against"]
    rows = [["runs that get there", *(f"{one['reached']} of {one['n']}" for one in found)]]
    for unit in UNITS:
        pairs_of = [[one[unit], one[f"{unit}_against"]] for one in found]
        rows.append([f"{unit}: {arm} / {against}", *(" / ".join(map(never, pair)) for pair in pairs_of)])
    for unit in UNITS:
        tasks = [one[f"tasks_to_pay_back_{unit}"] for one in found]
        rows.append([f"tasks that pay back its {unit}", *(never(None if n is None else math.ceil(n)) for n in tasks)])
    return {"columns": ["median over seeds", *(labels_text([one["labels"]]) for one in found)], "rows": rows}
