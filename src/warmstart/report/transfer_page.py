"""A transfer's report for people: report.html, report.md, report.png, and curves/ for TensorBoard."""

from __future__ import annotations

import html
import math
import re
import statistics
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from warmstart.core.screen import command, number, quoted, safe
from warmstart.report import figure, forest
from warmstart.report.costs import cost_section
from warmstart.report.curves import aggregate, write_curves
from warmstart.report.paired import FEWEST_UNITS
from warmstart.report.runs import Transfer
from warmstart.report.savings import per_step
from warmstart.report.verdicts import BUDGET_WORDS, labels_text, pairs
from warmstart.run.files import write_atomically

UNITS = ("steps", "seconds", "examples")
Report = dict[str, Any]
Section = dict[str, Any]
Table = dict[str, Any]


def write_page(folder: Path, transfer: Transfer, report: Report) -> None:
    """Write report.html, report.md, report.png and curves/ into a transfer's folder."""
    budget = transfer.budgets[0]
    curve = partial(figure.label_curve, report=report, looks=figure.looks(transfer.arms))
    sections = [
        gain(report, budget, curve),
        noise(report),
        sooner(transfer, report),
        multiplied(report),
        long_enough(report),
    ]
    runs = f"runs={quoted(folder)}"
    content = {
        "report": report,
        "word": report["headline"]["verdict"] or "no verdict",
        "sections": [section for section in sections if section],
        "means": means(report, budget),
        "costs": cost_section(transfer, report),
        "checks": checks(report),
        "rates": rates(report),
        "fewest": FEWEST_UNITS,
        "unit": "seeds" if transfer.rules["pretrain_seeds"] == 1 else "pretrainings",
        "crowded": figure.is_crowded(transfer.arms),
        "budgets": {name: BUDGET_WORDS[name] for name in transfer.budgets},
        "unfinished": [run for run in report["runs"] if run["status"] != "done"],
        "settings": safe((folder / "config.yaml").read_text(encoding="utf-8")),
        "commands": [command("python", "train.py", *words) for words in (report["words"], ["stage=report", runs])],
    }
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: name == "transfer.html.j2",
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plain=plain, number=number, span=span, tick=figure.tick)
    text = environment.get_template("transfer.md.j2").make_module(content)
    said = {"text": lambda name, *values: getattr(text, name)(*values)}  # called by a template, a macro gives HTML
    page = environment.get_template("transfer.html.j2").render({**content, **said})
    write_atomically(folder / "report.png", figure.png(curve))
    write_atomically(folder / "report.md", str(text))
    write_atomically(folder / "report.html", page)
    write_curves(folder, transfer.done(), transfer.curve, {"verdict": text.summary()})


def plain(text: str) -> str:
    """Text as one line that Markdown, and a terminal, shows as it is."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(safe(str(text)).split()), quote=False))


def span(ends: list[float | None], sign: str = "") -> str:
    """An interval in words."""
    return "-" if ends[0] is None else " to ".join(f"{end:{sign}#.3g}".rstrip(".") for end in ends)


def gain(report: Report, budget: str, curve: figure.Paint) -> Section:
    """Score by labels."""
    table = figure.arms_of(report)
    chosen = [report["verdicts"][0][key] for key in ("arm", "against")] if report["verdicts"] else [*table][:2]
    parts = []
    for arm in chosen:
        rows = table.get(arm, [])
        shown = [f"{row['mean']:.3g} with {labels_text([row['labels_per_class']])}" for row in rows[:1] + rows[1:][-1:]]
        parts.append(f"{arm} has {' and '.join(shown) or 'no run that is done'}")
    lines = {
        arm: [(f"at {figure.tick(row['labels_per_class'])}", row["mean"], row["interval"]) for row in rows]
        for arm, rows in table.items()
    }
    return {
        "name": "labels",
        "question": "How much does it help, by labels?",
        "answer": f"Mean {report['metric']}, {BUDGET_WORDS[budget]}: {'; '.join(parts)}.",
        "figure": figure.svg("labels", curve, f"{report['metric']} by labels", lines),
        "table": None,
    }


def noise(report: Report) -> Section | None:
    """Paired differences with their intervals."""
    rows = report["verdicts"]
    if not rows:
        return None
    words = Counter(row["verdict"] or "no verdict" for row in rows).most_common()
    lines = {
        title: [
            (f"at {figure.tick(row['labels'])}: {row['verdict'] or 'no verdict'}", row["difference"], row["interval"])
            for row in found
            if row["difference"] is not None
        ]
        for title, found in forest.comparisons(report).items()
    }
    return {
        "name": "noise",
        "question": "Is the difference more than noise?",
        "answer": f"{len(rows)} comparisons: {', '.join(f'{count} {word}' for word, count in words)}.",
        "figure": figure.svg("noise", partial(forest.forest, report=report), "paired differences", lines),
        "table": None,
    }


def sooner(transfer: Transfer, report: Report) -> Section | None:
    """Validation score against steps and seconds, and the time to the control's best."""
    budget, labels, metric = transfer.budgets[0], transfer.labels[0], transfer.manifest.metric
    drawn, lines = {}, {}
    for arm, look in figure.looks(transfer.arms).items():
        runs = [run for run in transfer.group(arm, budget, labels) if run.state == "done"]
        if metric in (curve := aggregate(runs, transfer.curve)).index:
            curve, pace = curve.loc[metric], statistics.median(per_step(run, "seconds") for run in runs)
            drawn[arm] = {"curve": curve, "pace": {"steps": 1.0, "seconds": pace}, "look": look}
            lines[arm] = [(f"after {step + 1} steps", curve["mean"][step], (None,)) for step in curve.index[[0, -1]]]
    if not drawn:
        return None
    goal, answer = None, f"With {labels_text([labels])}; no arm was timed against another."
    if report["time_to_target"]:
        goal = {**report["time_to_target"][0]}
        both = pairs(*(transfer.group(goal[key], "steps", goal["labels"]) for key in ("arm", "against")))
        goal["level"] = statistics.fmean(control.val for _, control in both)
        answer = (
            f"With {labels_text([goal['labels']])}, {goal['reached']} of {goal['n']} {goal['arm']} runs validate as "
            f"well as the best of {goal['against']}. Median steps to get there: {never(goal['steps'])} for "
            f"{goal['arm']}, {never(goal['steps_against'])} for {goal['against']}."
        )
    paint = partial(figure.against_time, lines=drawn, goal=goal, metric=metric)
    return {
        "name": "time",
        "question": "Does it get there sooner?",
        "answer": answer,
        "figure": figure.svg("time", paint, f"{metric}, {BUDGET_WORDS[budget]}", lines),
        "table": time_table(report["time_to_target"], bool(transfer.bases)),
    }


def time_table(found: list[dict[str, Any]], is_paid: bool) -> Table | None:
    """What it takes to validate as well as the control's best, and how many tasks pay back a pretraining of its own."""
    if not found:
        return None
    rows = [["runs that get there", *(f"{one['reached']} of {one['n']}" for one in found)]]
    rows += [[unit, *(f"{never(one[unit])} / {never(one[f'{unit}_against'])}" for one in found)] for unit in UNITS]
    for unit in UNITS if is_paid else ():
        tasks = (one[f"tasks_to_pay_back_{unit}"] for one in found)
        rows.append([f"tasks, by {unit}", *(never(count and math.ceil(count)) for count in tasks)])
    return {"columns": ["labels", *(figure.tick(one["labels"]) for one in found)], "rows": rows}


def never(value: float | None) -> str:
    """A number of steps, seconds, examples or tasks."""
    return "never" if value is None else f"{value:,.0f}" if value >= 100 else number(value, 2)


def multiplied(report: Report) -> Section | None:
    """How many times as many labels the control needs."""
    found = report["labels_saved"]
    if not found:
        return None
    arm, against = found[0]["arm"], found[0]["against"]
    rows = [[figure.tick(one["labels"]), one["text"]] for one in found]
    first = labels_text([found[0]["labels"]])
    return {
        "name": "multiplier",
        "question": "How many labels is it worth?",
        "answer": f"To do as well as {arm} with {first}, {against} needs {rows[0][1]} as many.",
        "figure": None,
        "table": {"columns": ["labels", f"{against} needs as many"], "rows": rows},
    }


def long_enough(report: Report) -> Section | None:
    """Generic validation loss and task score along the pretraining."""
    found = report["pretraining_length"]
    if not found:
        return None
    points = [(f"after {one['step']} steps", one) for one in found["points"]]
    lines = {
        "task score": [(place, one["score"], one["interval"]) for place, one in points],
        "generic validation loss": [(place, one["generic_loss"], (None,)) for place, one in points],
    }
    paint = partial(figure.length_curve, found=found, metric=report["metric"])
    return {
        "name": "length",
        "question": "How long to pretrain?",
        "answer": found["sentence"],
        "figure": figure.svg("length", paint, "task score and generic loss by length of pretraining", lines),
        "table": None,
    }


def means(report: Report, first: str) -> list[Table]:
    """A table of means per budget, arms by labels."""
    tables = []
    for budget, rows in {first: report["table"], **report["tables"]}.items():
        cells: dict[str, list[str]] = {}
        for row in rows:
            failed = f", {row['failed']} failed" if row["failed"] else ""
            text = f"{number(row['mean'])} ± {number(row['std'], 2)}\n{span(row['interval'])}, n={row['n']}{failed}"
            cells.setdefault(row["arm"], []).append(text)
        labels = dict.fromkeys(labels_text([row["labels_per_class"]]) for row in rows)
        lines = [[arm, *texts] for arm, texts in cells.items()]
        tables.append({"title": f"Means {BUDGET_WORDS[budget]}", "columns": ["arm", *labels], "rows": lines})
    return tables


def checks(report: Report) -> Table:
    """Feature change, overfitting and calibration by arm."""
    names = ("cka", "loss_gap", "calibration_error")
    rows = [
        [one["arm"], one["budget"], str(one["n"]), *(number(one[name], 3) for name in names)]
        for one in report["checks"]["arms"]
    ]
    columns = ["arm", "budget", "n", "CKA", "loss gap", "calibration error"]
    return {"columns": columns, "rows": rows}


def rates(report: Report) -> Table:
    """The learning rate of each arm, by labels."""
    found = {(one["arm"], one["labels"]): f"{one['lr']:.3g}" for one in report["tuning"]}
    arms, labels = (list(dict.fromkeys(key[place] for key in found)) for place in (0, 1))
    rows = [[arm, *(found.get((arm, count), "-") for count in labels)] for arm in arms]
    return {"columns": ["arm", *(labels_text([count]) for count in labels)], "rows": rows}
