"""The report of a transfer: effect of the pretraining, its costs, and warnings."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from warmstart.core import screen
from warmstart.report import caveats, extrapolation, looks, savings, starts, verdicts
from warmstart.report.costs import cost_table, costs
from warmstart.report.headline import headline
from warmstart.report.pool import summary
from warmstart.report.runs import Labels, Run, Transfer, read_transfer, runs_csv
from warmstart.report.savings import length_curve
from warmstart.report.transfer_page import write_page
from warmstart.report.verdicts import labels_text, tick
from warmstart.run.files import creating, write_atomically


def write_report(folder: Path) -> dict[str, Any]:
    """Write report.json, runs.csv, report.md, report.html, figures and curves/; return the content of report.json.

    Raises:
        UserError: the folder is no transfer, or its runs cannot be compared.
    """
    return write(folder, read_transfer(folder))


def write_pooled_report(transfer: Transfer, folder: Path) -> dict[str, Any]:
    """Write the report of a pool of transfers into a new folder, with the settings of the first; see `write_report`."""
    with creating(folder):
        folder.mkdir(parents=True)
    write_atomically(folder / "config.yaml", (transfer.folds[0].manifest.folder / "config.yaml").read_bytes())
    return write(folder, transfer)


def write(folder: Path, transfer: Transfer) -> dict[str, Any]:
    """Write the files of the report of a transfer into a folder, and return the content of report.json."""
    report = summarize(transfer)
    write_atomically(folder / "runs.csv", runs_csv(transfer))
    write_page(folder, transfer, report)
    write_atomically(folder / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


def summarize(transfer: Transfer) -> dict[str, Any]:
    """Return the report as plain JSON."""
    judged = verdicts.judge(transfer)
    ranked = starts.summarize(transfer, judged)
    first, *others = transfer.budgets
    report = {
        "experiment": transfer.manifest.experiment,
        "pooled": summary(transfer),
        "metric": transfer.metric,
        "mode": transfer.manifest.mode,
        "headline": starts.headline(transfer, judged, ranked) if ranked else headline(transfer, judged),
        "starts": ranked,
        "test_rows": transfer.test_rows,
        "clusters": transfer.test_clusters and transfer.test_clusters.summary(),
        "labels": label_counts(transfer),
        "table": table(transfer, first),
        "tables": {budget: table(transfer, budget) for budget in others},
        "verdicts": judged,
        "looks": looks.summarize(transfer, judged),
        "rules": transfer.rules,
        "tuning": tuning(transfer),
        "own_training": own_training(transfer),
        "costs": costs(transfer),
        "labels_saved": [],
        "time_to_target": [],
        "pretraining_length": length_curve(transfer),
        "extrapolation": extrapolation.extrapolation(transfer),
        "pretraining": [
            {"id": base["id"], "weights_sha256": base.get("weights_sha256"), "cost": base["cost"]}
            for base in transfer.bases
        ],
        "checks": caveats.checks(transfer),
        "words": transfer.manifest.words,
        "git": transfer.manifest.git,
        "runs": [run_row(run) for run in transfer.runs],
    }
    if judged and first == "steps":
        pair = tuple(verdicts.compared_rows(report)[0][key] for key in ("arm", "against"))
        report["labels_saved"] = savings.label_multipliers(transfer, *pair)
        report["time_to_target"] = savings.time_to_target(transfer, *pair)
    return {"warnings": caveats.warnings(transfer, report), **report}


def label_counts(transfer: Transfer) -> list[dict[str, Any]]:
    """Return the entries of transfer.labels with their training rows, smallest first."""
    rows = [{"labels": labels, "rows": transfer.rows(labels)} for labels in transfer.labels]
    return sorted(rows, key=lambda row: row["rows"])


def run_row(run: Run) -> dict[str, Any]:
    """Return the entry of a finetuning."""
    row = {"name": run.name, "arm": run.arm, "budget": run.budget, "labels_per_class": run.labels, "seed": run.seed}
    return {**row, "status": run.state, "error": run.record.get("error"), "value": run.test}


def table(transfer: Transfer, budget: str) -> list[dict[str, Any]]:
    """Return mean, sample standard deviation and 95 % interval over finished seeds, per arm and label count."""
    rows = []
    for arm in transfer.arms:
        if arm not in transfer.rules["budgets"][budget]:
            continue
        for labels in transfer.labels:
            group = transfer.group(arm, budget, labels)
            done = [run for run in group if run.test is not None]
            values = [run.test for run in done]
            rows.append(
                {
                    "arm": arm,
                    "labels_per_class": labels,
                    "metric": transfer.metric,
                    "mean": statistics.mean(values) if values else None,
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "interval": list(verdicts.interval(transfer, done)),
                    "n": len(values),
                    "failed": sum(run.state == "failed" for run in group),
                }
            )
    return rows


def tuning(transfer: Transfer) -> list[dict[str, Any]]:
    """Return the learning rate of each trained arm by label count; in a pool, if it is the same in all transfers."""
    if transfer.folds:
        first, *others = map(tuning, transfer.folds)
        return [row for row in first if all(row in rows for rows in others)]
    found: dict[tuple[str, Labels], float] = {}
    for job in transfer.manifest.jobs:
        if job.values.get("arm") in transfer.arms and "optimizer" in job.config:
            found.setdefault((job.values["arm"], job.values["labels_per_class"]), job.config["optimizer"]["lr"])
    return [{"arm": arm, "labels": labels, "lr": rate} for (arm, labels), rate in found.items()]


def own_training(transfer: Transfer) -> list[dict[str, Any]]:
    """Return the arms with their own training length or their own tuning."""
    rows = []
    for arm in transfer.arms:
        node = transfer.config["arm"][arm]
        length, tune, patience = node.get("length"), node.get("tune"), node.get("patience")
        clauses = [f"trains for up to {length:g} times the steps"] if length else []
        if length and patience:
            clauses[0] += f", until validation has not improved {patience} times"
        if tune:
            clauses.append(f"has its learning rate selected on validation data among {tune} per label count")
        if clauses:
            sentence = f"{arm} {' and '.join(clauses)}, at every budget."
            rows.append({"arm": arm, "length": length, "patience": patience, "tune": tune, "sentence": sentence})
    return rows


def grid(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of a table, arms by label counts."""
    cells = {(row["arm"], row["labels_per_class"]): row for row in rows}
    arms, counts = (list(dict.fromkeys(values)) for values in zip(*cells))
    lines = []
    for arm in arms:
        texts = []
        for labels in counts:
            cell = cells[arm, labels]
            failed = f", {cell['failed']} failed" if cell["failed"] else ""
            texts.append(f"{screen.number(cell['mean'])} ± {screen.number(cell['std'], 2)} (n={cell['n']}{failed})")
        lines.append([arm, *texts])
    return ["arm", *(labels_text([labels]) for labels in counts)], lines


def verdict_grid(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows of the table of verdicts."""
    columns = ["arm", "against", "budget", "labels", "n", "difference", "95% interval", "p (Holm)", "verdict"]
    lines = []
    for row in report["verdicts"]:
        low, high = row["interval"]
        verdict = row["verdict"] or "no verdict"
        if needed := verdicts.more_needed(row, verdicts.unit_noun(report["rules"]), report["clusters"]):
            verdict += f" ({needed})"
        verdict += verdicts.scope_text(report) if row["verdict"] else ""
        lines.append(
            [
                row["arm"],
                verdicts.against_text(row),
                *(row["budget"], tick(row["labels"]), str(row["n"])),
                "-" if row["difference"] is None else f"{row['difference']:+.4f}",
                "-" if low is None else f"{low:+.4f} to {high:+.4f}",
                "-" if row["p_holm"] is None else f"{row['p_holm']:.2g}",
                verdict + (f": {row['flag']}" if row["flag"] else ""),
            ]
        )
    return columns, lines


def title(report: dict[str, Any], budget: str) -> str:
    """Return the title of a table of means."""
    better = "higher" if report["mode"] == "max" else "lower"
    longer = [one["arm"] for one in report["own_training"] if one["length"]]
    phrase = verdicts.BUDGET_PHRASES[budget] + (f" (except {', '.join(longer)})" if longer else "")
    return f"{report['metric']} {phrase}: mean ± standard deviation over seeds ({better} is better)"


def show(report: dict[str, Any]) -> None:
    """Print tables, sentences, warnings and the headline."""
    if report["pooled"]:
        screen.say(report["pooled"]["sentence"])
    show_tables(report)
    for line in sentences(report):
        screen.say(line)
    for line in report["warnings"]:
        screen.say(f"warning: {line}", style="yellow")
    for line in report["headline"]["sentences"]:
        screen.say(line, style="bold")


def show_tables(report: dict[str, Any]) -> None:
    """Print the tables of means, starts, verdicts and costs."""
    first, *others = report["rules"]["budgets"]
    screen.table(title(report, first), *grid(report["table"]))
    for budget in others:
        if report["tables"].get(budget):
            screen.table(title(report, budget), *grid(report["tables"][budget]))
    if report["starts"]:
        screen.table("Starts, ranked by mean score", *starts.ranking_table(report["starts"]))
    if report["verdicts"]:
        screen.table("Verdicts (differences are paired by seed; positive is better)", *verdict_grid(report))
    if report["costs"]:
        fewest = [row for row in report["costs"] if row["labels"] == report["costs"][0]["labels"]]
        heading = f"Costs by arm with {labels_text([fewest[0]['labels']])} (means over seeds)"
        screen.table(heading, *cost_table({**report, "costs": fewest}).values())
    if report["extrapolation"]:
        screen.table(extrapolation.title(report), *extrapolation.rows_of(report))


def sentences(report: dict[str, Any]) -> list[str]:
    """Return sentences on starts, more labels, learning rates, arms of another length, and looks."""
    found = starts.sentences(report["starts"]) if report["starts"] else []
    found += extrapolation.sentences(report) if report["extrapolation"] else []
    tuned = [one["arm"] for one in report["own_training"] if one["tune"]]
    if report["rules"]["tune"] or tuned:
        rates = [one for one in report["tuning"] if report["rules"]["tune"] or one["arm"] in tuned]
        selected = ", ".join(f"{one['arm']} at {tick(one['labels'])}: {one['lr']:g}" for one in rates)
        found.append(f"learning rates selected on validation data: {selected}")
    found += [one["sentence"] for one in report["own_training"]]
    return found + ([report["looks"]["sentence"]] if report["looks"] else [])
