"""Figures, drawn without a display: as SVG that takes the page's own ink, or as PNG."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import starmap
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from warmstart.report.runs import Labels

# Okabe and Ito's colours, told apart by people with any kind of colour vision.
BLUE, RED, GREEN, PINK, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK = "#1b1f25"
COLOURS = (BLUE, RED, GREEN, PINK, SKY, ORANGE, INK)
MARKERS = "osD^vPX<"
LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
WIDTH = 4.2
ASIDE = 0.36  # how far from its label count the first and last of many arms stand
POINTS = {"linestyle": "none", "markersize": 4}
NAME_LENGTH = 40
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
    """The colour, marker and line of each arm, the same in all figures; hollow where colours come round again."""
    return {
        arm: {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINES[index % len(LINES)],
            "zorder": 3 - index / 100,
            **({"markerfacecolor": "none"} if index >= len(COLOURS) else {}),
        }
        for index, arm in enumerate(arms)
    }


def is_crowded(arms: Sequence[str]) -> bool:
    """Whether there are more arms than colours, so that bands would hide each other."""
    return len(arms) > len(COLOURS)


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
    """Score against labels: mean and 95 % band of each arm; bars side by side where there are many arms."""
    axes = figure.subplots()
    counts = list(dict.fromkeys(row["labels_per_class"] for row in report["table"]))
    crowded = is_crowded(list(looks))
    aside = dict(zip(looks, np.linspace(-ASIDE, ASIDE, len(looks)) if crowded else np.zeros(len(looks))))
    for arm, rows in arms_of(report).items():
        places = [counts.index(row["labels_per_class"]) + aside[arm] for row in rows]
        means = [row["mean"] for row in rows]
        axes.plot(places, means, label=shortened(arm), **{**looks[arm], **(POINTS if crowded else {})})
        band(axes, places, means, [row["interval"] for row in rows], looks[arm]["color"], crowded)
    if crowded:
        figure.set_figheight(4)
        axes.grid(axis="x", visible=False)
        for edge in range(1, len(counts)):
            axes.axvline(edge - 0.5, color=INK, alpha=0.15, linewidth=0.8)
    axes.set_xticks(range(len(counts)), map(tick, counts))
    axes.set_xlabel("labelled rows per class" if isinstance(counts[0], int) else "labels")
    axes.set_ylabel(report["metric"])
    legend(figure, axes)


def band(
    axes: Axes, places: list[float], means: list[float], intervals: list[Interval], colour: str, bars: bool = False
) -> None:
    """The intervals that are known: as a band, or as bars where that is asked or there is only one place."""
    known = [
        (place, *(mean if end is None else end for end in found))
        for place, mean, found in zip(places, means, intervals)
    ]
    if len(known) > 1 and not bars:
        axes.fill_between(*zip(*known), color=colour, alpha=0.15, linewidth=0)
    else:
        axes.vlines(*zip(*known), color=colour)


def against_time(figure: Figure, lines: dict[str, dict[str, Any]], goal: dict[str, Any] | None, metric: str) -> None:
    """Validation score against steps and against seconds: mean and 95 % band of each arm, of two if there are many.

    Args:
        figure: to draw on.
        lines: by arm its curve (mean, low and high by step), pace (steps and seconds of a step) and look.
        goal: the level of `against` at its best, and the median steps and seconds at which `arm` gets there.
        metric: the name of the score.
    """
    figure.set_figheight(4.4)
    panels = figure.subplots(2, 1, sharey=True)
    for axes, unit in zip(panels, ("steps", "seconds")):
        for number, (arm, line) in enumerate(lines.items()):
            curve, colour = line["curve"], line["look"]["color"]
            x = (curve.index.to_numpy() + 1) * line["pace"][unit]
            axes.plot(x, curve["mean"], label=shortened(arm), markevery=max(1, len(x) // 8), **line["look"])
            if number < 2 or not is_crowded(list(lines)):
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


def interpolation_png(points: Sequence[tuple[float, float]], chosen: float, metric: str) -> bytes:
    """A line through (alpha, score) with the chosen alpha marked, as the bytes of a PNG file."""

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(*zip(*points), "o-", color=BLUE)
        axes.plot(chosen, dict(points)[chosen], "D", color=RED, label=f"chosen: {chosen:g}")
        axes.set_xlabel("share of the finetuned weights (0: the start)")
        axes.set_ylabel(metric)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.legend()

    return png(paint)
