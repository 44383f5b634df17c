"""Writes the report of a transfer as report.html, report.md, report.png, and curves/ for TensorBoard."""

from __future__ import annotations

import html
import math
import re
import statistics
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from warmstart.core.screen import command, number, quoted, safe
from warmstart.report import extrapolation, figure
from warmstart.report.costs import cost_section
from warmstart.report.curves import aggregate, write_curves
from warmstart.report.page import templates
from warmstart.report.paired import MIN_UNITS
from warmstart.report.runs import Transfer, are_timed_alike
from warmstart.report.savings import per_step
from warmstart.report.section import Section, Table, section
from warmstart.report.starts import screen_section, starts_section
from warmstart.report.verdicts import (
    BUDGET_PHRASES,
    against_text,
    budget_phrase,
    compared_rows,
    labels_text,
    more_needed,
    pairs,
    scope_text,
    unit_noun,
)
from warmstart.run.files import write_atomically

UNITS = ("steps", "seconds", "examples")
Report = dict[str, Any]


def write_page(folder: Path, transfer: Transfer, report: Report) -> None:
    """Write report.html, report.md, report.png and curves/ into the folder of a transfer."""
    first, more = ([found for make in group if (found := make(transfer, report))] for group in (FIRST_PAGE, SECTIONS))
    scope = scope_text(report)
    for shown in (*first, *more):
        shown["answer"] += f" All results are{scope}; they do not extend to others." if scope else ""
    unit = unit_noun(transfer.rules)
    runs = f"runs={quoted(folder)}"
    commands = report["pooled"]["commands"] if report["pooled"] else (report["words"], ["stage=report", runs])
    content = {
        "report": report,
        "verdict": report["headline"]["verdict"],
        "badge": figure.badge_text(report["headline"]),
        "scope": scope,
        "first": first,
        "sections": more,
        "means": means(report, transfer.budgets[0]),
        "costs": cost_section(transfer, report),
        "checks": checks(report),
        "rates": rates(report),
        "min_units": MIN_UNITS,
        "unit": unit,
        "more_needed": partial(more_needed, unit=unit, clusters=report["clusters"]),
        "many_arms": figure.has_many_arms(transfer.arms),
        "budgets": {name: BUDGET_PHRASES[name] for name in transfer.budgets},
        "unfinished": [run for run in report["runs"] if run["status"] != "done"],
        "settings": safe((folder / "config.yaml").read_text(encoding="utf-8")),
        "commands": [command("python", "train.py", *overrides) for overrides in commands],
    }
    filters = {"plain": plain, "number": number, "span": span, "tick": figure.tick, "judged": figure.verdict_text}
    filters |= {"against": against_text}
    environment = templates(lambda name: name == "transfer.html.j2", **filters)
    text = environment.get_template("transfer.md.j2").make_module(content)
    macros = {"text": lambda name, *values: getattr(text, name)(*values)}  # plain text, not escaped HTML
    page = environment.get_template("transfer.html.j2").render({**content, **macros})
    write_atomically(folder / "report.png", figure.png(label_plot(transfer, report)))
    difference = folder / "difference.png"
    if figure.headline_rows(report):
        write_atomically(difference, figure.png(partial(figure.difference_curve, report=report)))
    else:
        difference.unlink(missing_ok=True)
    write_atomically(folder / "report.md", str(text))
    write_atomically(folder / "report.html", page)
    write_curves(folder, transfer.done(), transfer.curve, {"verdict": text.summary()})


def plain(text: str) -> str:
    """Escape text for one line of Markdown, without control characters."""
    return re.sub(r"([\\`*\[\]|])", r"\\\1", html.escape(" ".join(safe(str(text)).split()), quote=False))


def span(bounds: list[float | None], sign: str = "") -> str:
    """Return an interval as text."""
    return "-" if bounds[0] is None else " to ".join(f"{bound:{sign}#.3g}".rstrip(".") for bound in bounds)


def label_plot(transfer: Transfer, report: Report) -> figure.Plot:
    """Return the plot of scores by label count."""
    return partial(figure.label_curve, report=report, styles=figure.styles(transfer.arms))


def label_section(transfer: Transfer, report: Report) -> Section:
    """Return the section on scores by label count."""
    budget = transfer.budgets[0]
    table = figure.arms_of(report)
    found = compared_rows(report)
    compared = [found[0][key] for key in ("arm", "against")] if found else [*table][:2]
    clauses = []
    for arm in compared:
        rows = table.get(arm, [])
        scores = [
            f"{figure.point_text('', row['mean'], row['interval'])} with {labels_text([row['labels_per_class']])}"
            for row in rows[:1] + rows[1:][-1:]
        ]
        clauses.append(f"{arm} {' and '.join(scores) or 'has no finished run'}")
    lines = {
        arm: [(f"at {figure.tick(row['labels_per_class'])}", row["mean"], row["interval"]) for row in rows]
        for arm, rows in table.items()
    }
    answer = (
        f"Mean {report['metric']} {budget_phrase(transfer, compared, budget)} (95 % interval): {'; '.join(clauses)}."
    )
    drawn = figure.svg("labels", label_plot(transfer, report), f"{report['metric']} by labels", lines)
    return section("labels", "Score by label count", answer, drawn, image="report.png")


def difference_section(transfer: Transfer, report: Report) -> Section | None:
    """Return the section on the difference of the headline by label count."""
    rows = figure.headline_rows(report)
    if not rows:
        return None
    arm, against = rows[0]["arm"], rows[0]["against"]
    points = [
        (f"at {figure.tick(row['labels'])}: {row['verdict'] or 'no verdict'}", row["difference"], row["interval"])
        for row in rows
    ]
    clauses = [
        f"{figure.verdict_text(row['verdict'])} at {figure.tick(row['labels'])} ({row['difference']:+.3g})"
        for row in rows
    ]
    answer = f"{arm} against {against}, {rows[0]['budget_text']}, positive is better: {', '.join(clauses)}."
    lines = {f"{arm} against {against}": points}
    drawn = figure.svg("difference", partial(figure.difference_curve, report=report), "difference by labels", lines)
    return section("difference", "Difference by label count", answer, drawn, image="difference.png")


def comparison_section(transfer: Transfer, report: Report) -> Section | None:
    """Return the section on all paired differences."""
    rows = report["verdicts"]
    if not rows:
        return None
    verdicts = Counter(figure.verdict_text(row["verdict"]) for row in rows).most_common()
    lines = {
        title: [
            (f"at {figure.tick(row['labels'])}: {row['verdict'] or 'no verdict'}", row["difference"], row["interval"])
            for row in found
            if row["difference"] is not None
        ]
        for title, found in figure.comparisons(report).items()
    }
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts)
    answer = f"{len(rows)} comparison{'s' if len(rows) != 1 else ''}: {counts}."
    drawn = figure.svg("noise", partial(figure.forest, report=report), "paired differences", lines)
    return section("noise", "Paired differences", answer, drawn)


def time_section(transfer: Transfer, report: Report) -> Section | None:
    """Return the section on validation scores by time, and the time to the control's best score."""
    budget, labels, metric = transfer.budgets[0], transfer.labels[0], transfer.manifest.metric
    curves, lines, records = {}, {}, []
    for arm, style in figure.styles(transfer.arms).items():
        runs = [run for run in transfer.group(arm, budget, labels) if run.state == "done"]
        if metric in (curve := aggregate(runs, transfer.curve)).index:
            curve = curve.loc[metric].clip(*transfer.bounds)
            curves[arm] = {"curve": curve, "per_step": {"steps": 1.0}, "style": style, "runs": runs}
            records += [run.record for run in runs]
            lines[arm] = [(f"after {step + 1} steps", curve["mean"][step], (None,)) for step in curve.index[[0, -1]]]
    if not curves:
        return None
    if are_timed_alike(records):
        for one in curves.values():
            one["per_step"]["seconds"] = statistics.median(per_step(run.cost, "seconds") for run in one["runs"])
    target, answer = None, f"Validation scores with {labels_text([labels])}; no arm is compared with another."
    if report["time_to_target"]:
        target = {**report["time_to_target"][0]}
        paired_runs = pairs(*(transfer.group(target[key], "steps", target["labels"]) for key in ("arm", "against")))
        target["level"] = statistics.fmean(control.val for _, control in paired_runs)
        answer = (
            f"{target['reached']} of {target['n']} {target['arm']} runs reach the best validation score of "
            f"{target['against']} with {labels_text([target['labels']])}. Median steps to this score: "
            f"{amount(target['steps'])} for {target['arm']}, {amount(target['steps_against'])} for {target['against']}."
        )
    plot = partial(figure.time_curve, lines=curves, target=target, metric=metric)
    drawn = figure.svg("time", plot, f"{metric}, {BUDGET_PHRASES[budget]}", lines)
    table = time_table(report["time_to_target"], bool(transfer.bases))
    return section("time", "Time to target score", answer, drawn, table)


def time_table(found: list[dict[str, Any]], has_pretraining: bool) -> Table | None:
    """Return the table of times to the control's best score, and of the tasks after which the cost is recovered."""
    if not found:
        return None
    rows = [["runs that reach it", *(f"{one['reached']} of {one['n']}" for one in found)]]
    for unit in UNITS:
        if all(unit in one for one in found):
            rows.append([unit, *(f"{amount(one[unit])} / {amount(one[f'{unit}_against'])}" for one in found)])
    for unit in UNITS if has_pretraining else ():
        key = f"tasks_to_pay_back_{unit}"
        if all(key in one for one in found):
            tasks = [one[key] and math.ceil(one[key]) for one in found]
            rows.append([f"tasks to recover the cost, by {unit}", *map(amount, tasks)])
    return {"columns": ["labels", *(figure.tick(one["labels"]) for one in found)], "rows": rows}


def amount(value: float | None) -> str:
    """Return a number of steps, seconds, examples or tasks as text."""
    return "never" if value is None else f"{value:,.0f}" if value >= 100 else number(value, 2)


def multiplier_section(transfer: Transfer, report: Report) -> Section | None:
    """Return the section on label efficiency."""
    found = report["labels_saved"]
    if not found:
        return None
    arm, against = found[0]["arm"], found[0]["against"]
    rows = [[figure.tick(one["labels"]), one["text"]] for one in found]
    first = labels_text([found[0]["labels"]])
    answer = f"{against} needs {rows[0][1]} as many labels to match {arm} with {first}."
    table = {"columns": ["labels", f"labels that {against} needs"], "rows": rows}
    return section("multiplier", "Label efficiency", answer, table=table)


def length_section(transfer: Transfer, report: Report) -> Section | None:
    """Return the section on pretraining length."""
    found = report["pretraining_length"]
    if not found:
        return None
    points = [(f"after {one['step']} steps", one) for one in found["points"]]
    lines = {
        "task score": [(label, one["score"], one["interval"]) for label, one in points],
        "generic validation loss": [(label, one["generic_loss"], (None,)) for label, one in points],
    }
    plot = partial(figure.length_curve, found=found, metric=report["metric"])
    answer = found["sentence"]
    drawn = figure.svg("length", plot, "task score and generic loss by length of pretraining", lines)
    return section("length", "Pretraining length", answer, drawn)


def extrapolation_section(transfer: Transfer, report: Report) -> Section | None:
    """Return the section on more labels and more pretraining."""
    found = report["extrapolation"]
    if not found:
        return None
    lines = {
        one["arm"]: [(f"at {other['rows']:,}", other["score"], other["interval"]) for other in one["forecasts"]]
        for one in found["labels"]
    }
    plot = partial(
        figure.continuation, found=found["labels"], metric=report["metric"], styles=figure.styles(transfer.arms)
    )
    drawn = figure.svg("extrapolation", plot, f"expected {report['metric']} with more labels", lines) if lines else None
    columns, rows = extrapolation.rows_of(report)
    answer = " ".join(line[:1].upper() + line[1:] for line in extrapolation.sentences(report))
    table = {"columns": columns, "rows": rows}
    return section("extrapolation", "More labels or more pretraining", answer, drawn, table)


def means(report: Report, first: str) -> list[Table]:
    """Return a table of means per budget, arms by label counts."""
    tables = []
    for budget, rows in {first: report["table"], **report["tables"]}.items():
        cells: dict[str, list[str]] = {}
        for row in rows:
            failed = f", {row['failed']} failed" if row["failed"] else ""
            text = f"{number(row['mean'])} ± {number(row['std'], 2)}\n{span(row['interval'])}, n={row['n']}{failed}"
            cells.setdefault(row["arm"], []).append(text)
        labels = dict.fromkeys(labels_text([row["labels_per_class"]]) for row in rows)
        lines = [[arm, *texts] for arm, texts in cells.items()]
        tables.append({"title": f"Means {BUDGET_PHRASES[budget]}", "columns": ["arm", *labels], "rows": lines})
    return tables


def checks(report: Report) -> Table:
    """Return the table of feature similarity, overfitting and calibration by arm."""
    names = ("cka", "loss_gap", "calibration_error")
    rows = [
        [one["arm"], one["budget"], str(one["n"]), *(number(one[name], 3) for name in names)]
        for one in report["checks"]["arms"]
    ]
    columns = ["arm", "budget", "n", "CKA", "loss gap", "calibration error"]
    return {"columns": columns, "rows": rows}


def rates(report: Report) -> Table:
    """Return the table of learning rates, arms by label counts."""
    found = {(one["arm"], one["labels"]): f"{one['lr']:.3g}" for one in report["tuning"]}
    arms, labels = (list(dict.fromkeys(key[index] for key in found)) for index in (0, 1))
    rows = [[arm, *(found.get((arm, count), "-") for count in labels)] for arm in arms]
    return {"columns": ["arm", *(labels_text([count]) for count in labels)], "rows": rows}


# The sections of the page, in this order; the table of verdicts follows those of the first page.
FIRST_PAGE = (starts_section, label_section, difference_section)
SECTIONS = (
    screen_section,
    comparison_section,
    time_section,
    multiplier_section,
    length_section,
    extrapolation_section,
)
