"""The figure of paired differences: what is compared, how far apart it is, and the verdict."""

from __future__ import annotations

import textwrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from warmstart.report.figure import BLUE, GREEN, INK, RED, Row, tick
from warmstart.report.verdicts import BUDGET_WORDS

VERDICT_LOOKS = {"helps": (BLUE, "^"), "hurts": (RED, "v"), "equivalent": (GREEN, "s"), "cannot tell": (INK, "o")}
TITLE_LENGTH = 44


def comparisons(report: dict[str, Any]) -> dict[str, list[Row]]:
    """The verdicts by what they compare."""
    groups: dict[str, list[Row]] = {}
    for row in report["verdicts"]:
        groups.setdefault(f"{row['arm']} against {row['against']}, {BUDGET_WORDS[row['budget']]}", []).append(row)
    return groups


def forest(figure: Figure, report: dict[str, Any]) -> None:
    """Paired differences with their intervals and verdicts, by comparison, beside 0 and the margin."""
    axes, margin = figure.subplots(), report["rules"]["margin"]
    place, ticks = 0.0, {}
    for title, rows in comparisons(report).items():
        lines = textwrap.wrap(title, TITLE_LENGTH)
        axes.text(0, place, "\n".join(lines), va="top", weight="bold", transform=axes.get_yaxis_transform())
        place += 0.8 * len(lines) + 0.6
        reach = place - 0.5, place + len(rows) - 0.5
        axes.fill_betweenx(reach, -margin, margin, color=INK, alpha=0.1, linewidth=0)
        axes.vlines(0, *reach, color=INK, linewidth=0.8)
        for row in rows:
            difference(axes, place, row)
            ticks[place] = f"{tick(row['labels'])} label{'' if row['labels'] == 1 else 's'}"
            place += 1
    axes.set_ylim(place - 0.4, -0.2)
    axes.set_yticks(list(ticks), ticks.values())
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"difference in {report['metric']}, right of 0 is better")
    figure.set_figheight(0.8 + 0.2 * place)


def difference(axes: Axes, place: float, row: dict[str, Any]) -> None:
    """A line of a forest: difference, interval and verdict."""
    colour, marker = VERDICT_LOOKS.get(row["verdict"], (INK, "x"))
    if row["interval"][0] is not None:
        axes.hlines(place, *row["interval"], color=colour)
    if row["difference"] is not None:
        axes.plot(row["difference"], place, color=colour, marker=marker, markersize=6)
    axes.text(1.02, place, row["verdict"] or "no verdict", va="center", transform=axes.get_yaxis_transform())
