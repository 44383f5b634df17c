"""A transfer's report for people: report.html, report.md, report.png and curves/ for TensorBoard."""

from __future__ import annotations

import functools
import math
import re
import shlex
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from warmstart.report import figure, transfer_tables
from warmstart.report.bought import per_step
from warmstart.report.curves import aggregate, write_curves
from warmstart.report.runs import Run, Transfer
from warmstart.report.transfer_tables import Table, interval, number
from warmstart.report.verdicts import BUDGET_WORDS, labels_text, pairs
from warmstart.run.folder import write_atomically

LABEL_CURVE_INCHES, PANELS_INCHES = 3.6, 5.4
Section = dict[str, Any]


def write_page(folder: Path, transfer: Transfer, report: dict[str, Any]) -> None:
    """Write report.html, report.md, report.png and curves/ into a transfer's folder."""
    looks = figure.looks(transfer.arms)
    content = {
        "report": report,
        "word": report["headline"]["verdict"] or "no verdict",
        "better": "higher" if report["mode"] == "max" else "lower",
        "sections": sections(transfer, report, looks),
        "tables": transfer_tables.tables(transfer, report),
        "rules": transfer_tables.rules(transfer, report),
        "settings": (folder / "config.yaml").read_text(),
        "commands": [
            shlex.join(["python", "train.py", *report["words"]]),
            shlex.join(["python", "train.py", "stage=report", f"runs={folder}"]),
        ],
    }
    write_atomically(folder / "report.png", figure.png(label_curve(report, looks), LABEL_CURVE_INCHES))
    for name, escapes in (("html", True), ("md", False)):
        write_atomically(folder / f"report.{name}", template(f"transfer.{name}.j2", escapes).render(content))
    text = template("verdict.md.j2", False).render(content)
    write_curves(folder, groups(transfer), transfer.curve, {"verdict": text})


def template(name: str, escapes: bool) -> Any:
    """A template of this folder."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=escapes,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
