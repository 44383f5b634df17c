"""Figures, drawn without a display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart by people with any kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#999999", "#CC79A7", "#E69F00")
MARKERS = "osD^vP"


def draw_label_curve(report: dict[str, Any], path: Path) -> None:
    """Score against labelled rows per class, a line with error bars (one standard deviation) per arm."""
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    table = [row for row in report["table"] if row["mean"] is not None]
    budgets = list(dict.fromkeys(row["labels_per_class"] for row in report["table"]))
    arms = list(dict.fromkeys(row["arm"] for row in table))
    for index, arm in enumerate(arms):
        rows = [row for row in table if row["arm"] == arm]
        axes.errorbar(
            [budgets.index(row["labels_per_class"]) + 0.04 * (index - (len(arms) - 1) / 2) for row in rows],
            [row["mean"] for row in rows],
            yerr=[row["std"] or 0 for row in rows],
            label=arm,
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            capsize=3,
        )
    axes.set_xticks(range(len(budgets)), map(str, budgets))
    axes.set_xlabel("labelled rows per class")
    axes.set_ylabel(report["metric"])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=150)
    temporary.replace(path)
