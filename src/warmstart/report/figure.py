"""Figures, drawn without a display: as SVG that takes the page's own ink, or as PNG."""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from warmstart.report.runs import Labels

# Okabe and Ito's colours, told apart by people with any kind of colour vision.
BLUE, RED, GREEN, PINK, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
INK = "#1b1f25"
COLOURS = (BLUE, RED, GREEN, PINK, SKY, ORANGE, INK)
MARKERS = "osD^vPX<"
LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
VERDICT_LOOKS = {"helps": (BLUE, "^"), "hurts": (RED, "v"), "equivalent": (GREEN, "s"), "cannot tell": (INK, "o")}
INCHES = 4.6
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


def draw(paint: Paint, height: float, name: str = "", **options: Any) -> bytes:
    """What `paint` puts on an empty figure, as the bytes of a file."""
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(INCHES, height), layout="constrained")
        FigureCanvasAgg(figure)
        paint(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def png(paint: Paint, height: float) -> bytes:
    """A figure as PNG, on white."""
    return draw(paint, height, format="png", dpi=200, metadata={"Software": None})


def svg(name: str, alt: str, paint: Paint, height: float) -> str:
    """A figure as an element of an HTML page.

    Args:
        name: starts each of its ids, so that two figures on a page do not share one.
        alt: what it shows, in words and numbers.
        paint: draws it.
        height: in inches.
    """
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    text = draw(paint, height, name, format="svg", transparent=True, metadata=metadata).decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| (width|height)="[\d.]+pt"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text).replace(INK, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(alt)}"', 1)


def looks(arms: Iterable[str]) -> dict[str, Look]:
    """The colour, marker and line of each arm, the same in all figures."""
    return {
        arm: {
            "color": COLOURS[index % len(COLOURS)],
            "marker": MARKERS[index % len(MARKERS)],
            "linestyle": LINES[index % len(LINES)],
        }
        for index, arm in enumerate(arms)
    }


def tick(labels: Labels) -> str:
    """A label count on an axis: 5, 10%, all."""
    return f"{labels:.3g}%" if isinstance(labels, float) and (labels := 100 * labels) else str(labels)


def label_curve(figure: Figure, rows: list[dict[str, Any]], metric: str, looks: dict[str, Look]) -> None:
    """Score against labels: mean and 95 % band of each arm."""
    axes = figure.subplots()
    counts = list(dict.fromkeys(row["labels_per_class"] for row in rows))
    for arm, look in looks.items():
        known = [row for row in rows if row["arm"] == arm and row["mean"] is not None]
        places, means = [counts.index(row["labels_per_class"]) for row in known], [row["mean"] for row in known]
        if known:
            axes.plot(places, means, label=shortened(arm), **look)
            band(axes, places, means, [row["interval"] for row in known], look["color"])
    axes.set_xticks(range(len(counts)), map(tick, counts))
    axes.set_xlabel("labelled rows per class" if isinstance(counts[0], int) else "labels")
    axes.set_ylabel(metric)
    legend(figure, axes)


def band(axes: Axes, places: list[float], means: list[float], intervals: list[list[float | None]], colour: str) -> None:
    """The intervals that are known: as a band, or as a bar where there is only one place."""
    ends = [(mean if low is None else low, mean if high is None else high) for mean, (low, high) in zip(means, intervals)]
    if len(places) > 1:
        axes.fill_between(places, *zip(*ends), color=colour, alpha=0.15, linewidth=0)
    else:
        axes.vlines(places, *zip(*ends), color=colour)


def forest(figure: Figure, groups: dict[str, list[dict[str, Any]]], margin: float, metric: str) -> None:
    """Paired differences with their intervals and verdicts, by comparison, beside 0 and the margin."""
    axes = figure.subplots()
    place, ticks = 0.0, {}
    for title, rows in groups.items():
        lines = textwrap.wrap(title, 50)
        axes.text(0, place, "\n".join(lines), va="top", weight="bold", transform=axes.get_yaxis_transform())
        place += 0.8 * len(lines) + 0.5
        ends = place - 0.5, place + len(rows) - 0.5
        axes.fill_betweenx(ends, -margin, margin, color=INK, alpha=0.1, linewidth=0)
        axes.vlines(0, *ends, color=INK, linewidth=0.8)
        for row in rows:
            colour, marker = VERDICT_LOOKS.get(row["verdict"], (INK, "x"))
            if row["interval"][0] is not None:
                axes.hlines(place, *row["interval"], color=colour)
            if row["difference"] is not None:
                is_open = row["verdict"] == "cannot tell"
                fill = {"markerfacecolor": "none"} if is_open else {}
                axes.plot(row["difference"], place, color=colour, marker=marker, markersize=6, **fill)
            word = row["verdict"] or "no verdict"
            axes.text(1.02, place, word, va="center", transform=axes.get_yaxis_transform())
            ticks[place] = f"{tick(row['labels'])} label{'' if row['labels'] == 1 else 's'}"
            place += 1
    axes.set_ylim(place - 0.4, -0.2)
    axes.set_yticks(list(ticks), ticks.values())
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"difference in {metric}, right of 0 is better")


def forest_height(groups: dict[str, list[dict[str, Any]]]) -> float:
    """Inches that a forest needs."""
    return 0.7 + 0.2 * sum(len(rows) + 0.5 + 0.8 * len(textwrap.wrap(title, 50)) for title, rows in groups.items())


def against_time(
    figure: Figure,
    curves: dict[str, pd.DataFrame],
    seconds: dict[str, float],
    metric: str,
    looks: dict[str, Look],
    goal: dict[str, Any] | None,
) -> None:
    """Validation score against steps and against seconds: mean and 95 % band of each arm.

    Args:
        figure: to draw on.
        curves: mean, low and high by step.
        seconds: of a step, by arm.
        metric: the name of the score.
        looks: of the arms.
        goal: the control's best (level, against) and the median steps and seconds at which `arm` gets there.
    """
    panels = figure.subplots(2, 1, sharey=True)
    for axes, unit in zip(panels, ("steps", "seconds")):
        for arm, curve in curves.items():
            x = (curve.index.to_numpy() + 1) * (1 if unit == "steps" else seconds[arm])
            axes.plot(x, curve["mean"], label=shortened(arm), markevery=max(1, len(x) // 8), **looks[arm])
            axes.fill_between(x, curve["low"], curve["high"], color=looks[arm]["color"], alpha=0.15, linewidth=0)
        if goal:
            axes.axhline(goal["level"], color=INK, linestyle=":", linewidth=1, label=f"{goal['against']}'s best")
            if goal[unit] is not None:
                axes.plot(
                    goal[unit], goal["level"], "*", color=INK, markersize=11, zorder=9, label=f"{goal['arm']} is there"
                )
        axes.set_xlabel(unit)
        axes.set_ylabel(metric)
    legend(figure, panels[0])


def length_curve(figure: Figure, found: dict[str, Any], metric: str) -> None:
    """Generic validation loss, and below it the task score, against the length of the pretraining."""
    upper, lower = figure.subplots(2, 1, sharex=True)
    steps, scores = ([point[name] for point in found["points"]] for name in ("step", "score"))
    upper.plot(steps, [point["generic_loss"] for point in found["points"]], color=ORANGE, marker="s")
    upper.set_ylabel("generic val/loss")
    lower.plot(steps, scores, color=BLUE, marker="o", label="pretrained")
    band(lower, steps, scores, [point["interval"] for point in found["points"]], BLUE)
    if found["scratch"] is not None:
        lower.axhline(found["scratch"], color=RED, linestyle="--", label="scratch")
    if found["turning_step"] is not None:
        for axes in (upper, lower):
            axes.axvline(found["turning_step"], color=INK, linestyle=":", label="past here, more is worse")
    lower.set_xscale("log" if min(steps) > 0 else "symlog")
    lower.set_xlabel("steps of pretraining")
    lower.set_ylabel(metric)
    legend(figure, lower)


def legend(figure: Figure, axes: Axes) -> None:
    """Below the figure, in as many columns as its names leave room for."""
    handles, names = axes.get_legend_handles_labels()
    columns = max(1, min(3, int(60 // (max(map(len, names), default=0) + 7))))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.2)


def shortened(name: str) -> str:
    """A name that fits under a figure."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"
