"""Forest plot of paired differences with intervals and verdicts."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from warmstart.report.figure import BLUE, FOREGROUND, GREEN, RED, Row, tick
from warmstart.report.verdicts import BUDGET_PHRASES

VERDICT_STYLES = {
    "helps": (BLUE, "^"),
    "hurts": (RED, "v"),
    "equivalent": (GREEN, "s"),
    "cannot tell": (FOREGROUND, "o"),
}
TITLE_LENGTH = 44


def comparisons(report: dict[str, Any]) -> dict[str, list[Row]]:
    """Group the verdicts by arms and budget."""
    groups: dict[str, list[Row]] = {}
    for row in report["verdicts"]:
        groups.setdefault(f"{row['arm']} against {row['against']}, {BUDGET_PHRASES[row['budget']]}", []).append(row)
    return groups


def forest(figure: Figure, report: dict[str, Any]) -> None:
    """Draw paired differences with intervals and verdicts by comparison, with lines at 0 and bands for the margin."""
    axes, margin = figure.subplots(), report["rules"]["margin"]
    y, ticks = 0.0, {}
    for title, rows in comparisons(report).items():
        lines = textwrap.wrap(title, TITLE_LENGTH)
        axes.text(0, y, "\n".join(lines), va="top", weight="bold", transform=axes.get_yaxis_transform())
        y += 0.8 * len(lines) + 0.6
        extent = y - 0.5, y + len(rows) - 0.5
        axes.fill_betweenx(extent, -margin, margin, color=FOREGROUND, alpha=0.1, linewidth=0)
        axes.vlines(0, *extent, color=FOREGROUND, linewidth=0.8)
        for row in rows:
            difference(axes, y, row)
            ticks[y] = f"{tick(row['labels'])} label{'' if row['labels'] == 1 else 's'}"
            y += 1
    axes.set_ylim(y - 0.4, -0.2)
    axes.set_yticks(list(ticks), ticks.values())
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"difference in {report['metric']} (positive is better)")
    figure.set_figheight(0.8 + 0.2 * y)


def difference(axes: Axes, y: float, row: dict[str, Any]) -> None:
    """Draw difference, interval and verdict of one comparison at height `y`."""
    colour, marker = VERDICT_STYLES.get(row["verdict"], (FOREGROUND, "x"))
    if row["interval"][0] is not None:
        axes.hlines(y, *row["interval"], color=colour)
    if row["difference"] is not None:
        axes.plot(row["difference"], y, color=colour, marker=marker, markersize=6)
    axes.text(1.02, y, row["verdict"] or "no verdict", va="center", transform=axes.get_yaxis_transform())
