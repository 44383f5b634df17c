"""Figures, drawn without a display: as SVG that takes the page's own ink, or as PNG."""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from warmstart.report.runs import Labels
from warmstart.report.verdicts import BUDGET_WORDS

# Okabe and Ito's colours, told apart by people with any kind of colour vision.
BLUE, RED, GREEN, PINK, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK = "#1b1f25"
COLOURS = (BLUE, RED, GREEN, PINK, SKY, ORANGE, INK)
MARKERS = "osD^vPX<"
LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
VERDICT_LOOKS = {"helps": (BLUE, "^"), "hurts": (RED, "v"), "equivalent": (GREEN, "s"), "cannot tell": (INK, "o")}
WIDTH = 4.2
NAME_LENGTH, TITLE_LENGTH = 40, 44
STYLE = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.15,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.parse_math": False,
}
Paint = Callable[[Figure], None]
Look = dict[str, Any]
Row = dict[str, Any]
Interval = Sequence[float | None]
Lines = dict[str, list[tuple[str, float, Interval]]]


def draw(paint: Paint, name: str = "", **options: Any) -> bytes:
    """What `paint` puts on an empty figure, as the bytes of a file."""
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def png(paint: Paint) -> bytes:
    """A figure as PNG, on white."""
    return draw(paint, format="png", dpi=200, metadata={"Software": None})


def svg(name: str, paint: Paint, title: str, lines: Lines) -> str:
    """A figure as an element of an HTML page.

    Args:
        name: starts each of its ids, so that two figures on a page do not share one.
        paint: draws it.
        title: what it shows.
        lines: its numbers, for those who do not see it.
    """
    alt = "; ".join(f"{line}: {', '.join(starmap(words, points))}" for line, points in lines.items())
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    text = draw(paint, name, format="svg", transparent=True, metadata=metadata).decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| (width|height)="[\d.]+pt"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text).replace(INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}: {html.escape(alt)}"', 1)


def words(place: str, value: float, interval: Interval) -> str:
    """A point of a figure."""
    return f"{value:.3g} {place}" + ("" if interval[0] is None else f" ({interval[0]:.3g} to {interval[1]:.3g})")


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """The colour, marker and line of each arm, the same in all figures."""
    return {
        arm: {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINES[index % len(LINES)],
            "zorder": 3 - index / 100,
        }
        for index, arm in enumerate(arms)
    }


def tick(labels: Labels) -> str:
    """A label count on an axis: 5, 10%, all."""
    return f"{100 * labels:.3g}%" if isinstance(labels, float) else str(labels)


def arms_of(report: dict[str, Any]) -> dict[str, list[Row]]:
    """The rows of the first budget's table that have a mean, by arm."""
    rows: dict[str, list[Row]] = {}
    for row in report["table"]:
        if row["mean"] is not None:
            rows.setdefault(row["arm"], []).append(row)
    return rows


def label_curve(figure: Figure, report: dict[str, Any], looks: dict[str, Look]) -> None:
    """Score against labels: mean and 95 % band of each arm."""
    axes = figure.subplots()
    counts = list(dict.fromkeys(row["labels_per_class"] for row in report["table"]))
    for arm, rows in arms_of(report).items():
        places, means = [counts.index(row["labels_per_class"]) for row in rows], [row["mean"] for row in rows]
        axes.plot(places, means, label=shortened(arm), **looks[arm])
        band(axes, places, means, [row["interval"] for row in rows], looks[arm]["color"])
    axes.set_xticks(range(len(counts)), map(tick, counts))
    axes.set_xlabel("labelled rows per class" if isinstance(counts[0], int) else "labels")
    axes.set_ylabel(report["metric"])
    legend(figure, axes)


def band(axes: Axes, places: list[float], means: list[float], intervals: list[Interval], colour: str) -> None:
    """The intervals that are known: as a band, or as a bar where there is only one place."""
    known = [
        (place, *(mean if end is None else end for end in found))
        for place, mean, found in zip(places, means, intervals)
    ]
    if len(known) > 1:
        axes.fill_between(*zip(*known), color=colour, alpha=0.15, linewidth=0)
    else:
        axes.vlines(*zip(*known), color=colour)


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


def against_time(figure: Figure, lines: dict[str, dict[str, Any]], goal: dict[str, Any] | None, metric: str) -> None:
    """Validation score against steps and against seconds: mean and 95 % band of each arm.

    Args:
        figure: to draw on.
        lines: by arm its curve (mean, low and high by step), pace (steps and seconds of a step) and look.
        goal: the level of `against` at its best, and the median steps and seconds at which `arm` gets there.
        metric: the name of the score.
    """
    figure.set_figheight(4.4)
    panels = figure.subplots(2, 1, sharey=True)
    for axes, unit in zip(panels, ("steps", "seconds")):
        for arm, line in lines.items():
            curve, colour = line["curve"], line["look"]["color"]
            x = (curve.index.to_numpy() + 1) * line["pace"][unit]
            axes.plot(x, curve["mean"], label=shortened(arm), markevery=max(1, len(x) // 8), **line["look"])
            axes.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
        if goal:
            axes.axhline(goal["level"], color=INK, linestyle=":", label=shortened(f"best of {goal['against']}"))
            if goal[unit] is not None:
                star = {"color": INK, "marker": "*", "markersize": 11, "linestyle": "none", "zorder": 9}
                axes.plot(goal[unit], goal["level"], label=shortened(f"{goal['arm']} is there"), **star)
        axes.set_xlabel(unit)
        axes.set_ylabel(metric)
    legend(figure, panels[0])


def length_curve(figure: Figure, found: dict[str, Any], metric: str) -> None:
    """Generic validation loss, and below it the task score, against the length of the pretraining."""
    figure.set_figheight(4.2)
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps, losses, scores = ([point[name] for point in found["points"]] for name in ("step", "generic_loss", "score"))
    upper.plot(steps, losses, color=ORANGE, marker="s")
    upper.set_ylabel("generic val/loss")
    lower.plot(steps, scores, color=BLUE, marker="o", label="pretrained")
    band(lower, steps, scores, [point["interval"] for point in found["points"]], BLUE)
    if found["scratch"] is not None:
        lower.axhline(found["scratch"], color=RED, linestyle="--", label="scratch")
    if found["turning_step"] is not None:
        for axes in (upper, lower):
            axes.axvline(found["turning_step"], color=INK, linestyle=":", label="longer is worse past here")
    lower.set_xscale("log")
    lower.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    lower.xaxis.set_major_formatter("{x:,.0f}")
    lower.xaxis.set_minor_locator(NullLocator())
    lower.set_xlabel("steps of pretraining")
    lower.set_ylabel(metric)
    legend(figure, lower)


def legend(figure: Figure, axes: Axes) -> None:
    """Below the figure, in as many columns as its names leave room for."""
    handles, names = axes.get_legend_handles_labels()
    columns = max(1, min(3, 55 // (max(map(len, names), default=0) + 7)))
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(names) / columns))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.2)


def shortened(name: str) -> str:
    """A name that fits under a figure."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
