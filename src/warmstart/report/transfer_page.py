"""A transfer's report for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from warmstart.report.figure import draw_label_curve
from warmstart.report.runs import Transfer


def write_page(folder: Path, transfer: Transfer, report: dict[str, Any]) -> None:
    """Write."""
    draw_label_curve(report, folder / "report.png")
