"""The comparison of a transfer's arms, from its plan and run folders alone."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from warmstart import screen
from warmstart.contracts import UserError
from warmstart.report.figure import draw_label_curve
from warmstart.run.folder import RunFolder, write_atomically
from warmstart.run.manifest import Manifest


def write_report(folder: Path) -> dict[str, Any]:
    """Write report.json, report.md and report.png into a transfer's folder; return what report.json holds.

    Raises:
        UserError: the folder is not a transfer's, or no run of it is done.
    """
    plan = read_plan(folder)
    runs = [read_run(folder, slot, plan["metric"]) for slot in plan["runs"]]
    if not any(run["status"] == "done" for run in runs):
        failed = next((run for run in runs if run["status"] == "failed"), None)
        if failed is not None:
            raise UserError(f"{folder}: no finetuning run is done; {failed['name']} failed: {failed['error']}")
        raise UserError(f"{folder}: no finetuning run is done yet; go on with stage=transfer resume={folder}")
    report = {"metric": plan["metric"], "mode": plan["mode"], "table": aggregate(plan, runs), "runs": runs}
    write_atomically(folder / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
    write_atomically(folder / "report.md", to_markdown(report, read_pretraining(folder)))
    draw_label_curve(report, folder / "report.png")
    return report


def read_plan(folder: Path) -> dict[str, Any]:
    """What a transfer set out to run: the test metric, which way is better, the arms, and each finetuning.

    Raises:
        UserError: there is no plan, it is damaged, or it is that of a sweep.
    """
    manifest = Manifest.read(folder)
    slots = [{"name": job.name, **job.values} for job in manifest.jobs if "arm" in job.values]
    if not slots:
        raise UserError(f"{folder} is not the folder of a transfer")
    return {
        "metric": manifest.metric.replace("val/", "test/"),
        "mode": manifest.mode,
        "arms": list(dict.fromkeys(slot["arm"] for slot in slots)),
        "runs": slots,
    }


def read_run(folder: Path, slot: dict[str, Any], metric: str) -> dict[str, Any]:
    """One finetuning: its slot in the plan, status, score (None unless done and finite) and cost."""
    path = folder / "runs" / slot["name"]
    record = RunFolder.open(path).record if path.exists() else {"status": "planned"}
    value = (record.get("metrics") or {}).get(metric)
    done = record["status"] == "done" and value is not None and math.isfinite(value)
    return {
        **slot,
        "status": record["status"],
        "error": record.get("error"),
        "value": value if done else None,
        "seconds": (record.get("cost") or {}).get("seconds"),
        "steps": (record.get("cost") or {}).get("steps"),
    }


def read_pretraining(folder: Path) -> dict[str, Any]:
    """The record of the pretraining run."""
    return json.loads((folder / "runs" / "pretrain" / "run.json").read_text())


def aggregate(plan: dict[str, Any], runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation per arm and label budget, over the seeds that are done."""
    budgets = list(dict.fromkeys(run["labels_per_class"] for run in runs))
    table = []
    for arm in plan["arms"]:
        for budget in budgets:
            group = [run for run in runs if run["arm"] == arm and run["labels_per_class"] == budget]
            values = [run["value"] for run in group if run["value"] is not None]
            table.append(
                {
                    "arm": arm,
                    "labels_per_class": budget,
                    "metric": plan["metric"],
                    "mean": statistics.mean(values) if values else None,
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "n": len(values),
                    "failed": sum(run["status"] == "failed" for run in group),
                }
            )
    return table


def grid(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the table: arms by label budgets."""
    cells = {(row["arm"], row["labels_per_class"]): row for row in report["table"]}
    arms = list(dict.fromkeys(arm for arm, _ in cells))
    budgets = list(dict.fromkeys(budget for _, budget in cells))
    rows = []
    for arm in arms:
        texts = []
        for budget in budgets:
            cell = cells[arm, budget]
            failed = f", {cell['failed']} failed" if cell["failed"] else ""
            texts.append(f"{screen.number(cell['mean'])} ± {screen.number(cell['std'], 2)} (n={cell['n']}{failed})")
        rows.append([arm, *texts])
    return ["arm", *(f"{budget} per class" for budget in budgets)], rows


def title(report: dict[str, Any]) -> str:
    """What the table shows, in one line."""
    better = "higher" if report["mode"] == "max" else "lower"
    return f"{report['metric']} by labelled rows, mean ± standard deviation over seeds ({better} is better)"


def show(report: dict[str, Any]) -> None:
    """The table on the screen."""
    screen.table(title(report), *grid(report))


def to_markdown(report: dict[str, Any], pretraining: dict[str, Any]) -> str:
    """The report as Markdown."""
    columns, rows = grid(report)
    lines = ["# What the pretraining bought", "", title(report), ""]
    lines += [" | ".join(["", *columns, ""]).strip(), "|" + " --- |" * len(columns)]
    lines += [" | ".join(["", *row, ""]).strip() for row in rows]
    failed = [run for run in report["runs"] if run["status"] != "done"]
    cost = pretraining["cost"]
    lines += [
        "",
        "![score against labels](report.png)",
        "",
        f"- `pretrained` is finetuned from {pretraining['id']}, `scratch` from random weights; `probe` and "
        "`random_probe` are linear heads on those backbones, frozen. All seeds share this one pretraining, so the "
        "spread leaves out what another pretraining would change.",
        f"- Pretraining took {cost['seconds']:.1f} s and {cost['steps']:,} steps, "
        f"which the finetuning arms do not pay for here.",
        f"- All arms of one seed share the labelled subset, the batch order and the head's initial weights. "
        f"The validation split ({pretraining['data']['rows']['validation']:,} rows) chose the checkpoint of every run; "
        "the test split was read once per run.",
        f"- {len(report['runs'])} runs planned, {len(failed)} not done"
        + (": " + ", ".join(f"{run['name']} ({run['status']})" for run in failed) if failed else "")
        + ".",
        "- Means over so few seeds are not a verdict.",
        "",
    ]
    return "\n".join(lines)
