"""Figures as PNG, or as SVG in the text color of the page."""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
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
from warmstart.report.verdicts import compared_rows, tick

# Okabe and Ito's colors, distinguishable with any type of color vision.
BLUE, RED, GREEN, PINK, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
FOREGROUND = "#1b1f25"
COLOURS = (BLUE, RED, GREEN, PINK, SKY, ORANGE, FOREGROUND)
MARKERS = "osD^vPX<"
VERDICT_STYLES = {  # color, marker and the same shape as a character, so that the words can be read without color
    "helps": (BLUE, "^", "▲"),
    "hurts": (RED, "v", "▼"),
    "equivalent": (GREEN, "s", "■"),
    "cannot tell": (FOREGROUND, "o", "●"),
}
NO_VERDICT = (FOREGROUND, "x", "✕")
LINES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))
WIDTH = 4.2
MAX_OFFSET = 0.36  # horizontal offset of the first and last of many arms from their label count
POINTS = {"linestyle": "none", "markersize": 4}
NAME_LENGTH = 40
STRETCH = 0.5  # room for further arms on each side of the range of the headline's arms, as a share of that range
STYLE = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), FOREGROUND
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
Plot = Callable[[Figure], None]
Style = dict[str, Any]
Row = dict[str, Any]
Interval = Sequence[float | None]
Lines = dict[str, list[tuple[str, float, Interval]]]


def draw(plot: Plot, name: str = "", **options: Any) -> bytes:
    """Apply `plot` to an empty figure, and return it as the bytes of a file."""
    with rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        plot(figure)
        buffer = io.BytesIO()
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def png(plot: Plot) -> bytes:
    """Return a figure as PNG with a white background."""
    return draw(plot, format="png", dpi=200, metadata={"Software": None})


def svg(name: str, plot: Plot, title: str, lines: Lines) -> str:
    """Return a figure as an element of an HTML page.

    Args:
        name: prefix of its ids, unique on the page.
        lines: its data, for the text alternative.
    """
    alt = "; ".join(f"{line}: {', '.join(starmap(point_text, points))}" for line, points in lines.items())
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    text = draw(plot, name, format="svg", transparent=True, metadata=metadata).decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| (width|height)="[\d.]+pt"', "", text).replace("xlink:href", "href")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text).replace(FOREGROUND, "currentColor")
    return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}: {html.escape(alt)}"', 1)


def point_text(label: str, value: float, interval: Interval) -> str:
    """Return a data point as text."""
    return f"{value:.3g} {label}".rstrip() + (
        "" if interval[0] is None else f" ({interval[0]:.3g} to {interval[1]:.3g})"
    )


def styles(arms: Iterable[str]) -> dict[str, Style]:
    """Return color, marker and line style by arm, the same in all figures; markers are hollow if colors repeat."""
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


def has_many_arms(arms: Sequence[str]) -> bool:
    """Return whether there are more arms than colors, so that bands would overlap."""
    return len(arms) > len(COLOURS)


def arms_of(report: dict[str, Any]) -> dict[str, list[Row]]:
    """Return the rows of the first budget's table that have a mean, by arm."""
    rows: dict[str, list[Row]] = {}
    for row in report["table"]:
        if row["mean"] is not None:
            rows.setdefault(row["arm"], []).append(row)
    return rows


def label_curve(figure: Figure, report: dict[str, Any], styles: dict[str, Style]) -> None:
    """Draw mean and 95 % band of each arm by label count; error bars side by side if there are many arms.

    The y axis has the range of `limits`, and the legend names the arms outside it.
    """
    axes = figure.subplots()
    counts = counts_of(report)
    many_arms = has_many_arms(list(styles))
    offsets = dict(
        zip(styles, np.linspace(-MAX_OFFSET, MAX_OFFSET, len(styles)) if many_arms else np.zeros(len(styles)))
    )
    edges = limits(report)
    for arm, rows in arms_of(report).items():
        rows = sorted(rows, key=lambda row: counts.index(row["labels_per_class"]))
        x = [counts.index(row["labels_per_class"]) + offsets[arm] for row in rows]
        means = [row["mean"] for row in rows]
        look = {**styles[arm], **(POINTS if many_arms else {})}
        axes.plot(x, means, label=shortened(arm) + off_axis(rows, edges), **look)
        band(axes, x, means, [row["interval"] for row in rows], styles[arm]["color"], many_arms)
    if many_arms:
        figure.set_figheight(4)
        axes.grid(axis="x", visible=False)
        for edge in range(1, len(counts)):
            axes.axvline(edge - 0.5, color=FOREGROUND, alpha=0.15, linewidth=0.8)
    if edges is not None:
        axes.set_ylim(edges)
    label_axis(axes, counts)
    axes.set_ylabel(report["metric"])
    legend(figure, axes)


def counts_of(report: dict[str, Any]) -> list[Labels]:
    """Return the label counts, with the fewest training rows first."""
    return [row["labels"] for row in report["labels"]]


def label_axis(axes: Axes, counts: Sequence[Labels]) -> None:
    """Label the x axis with the label counts at 0, 1, ..."""
    axes.set_xticks(range(len(counts)), map(tick, counts))
    axes.set_xlim(-0.5, len(counts) - 0.5)
    axes.set_xlabel("labels" if isinstance(counts[0], float) or counts[0] == "all" else "labelled rows per class")


def limits(report: dict[str, Any]) -> tuple[float, float] | None:
    """Return the range of the score axis: that of the two arms of the headline, and of others that are close to it.

    An arm far outside, such as a constant prediction, would flatten the curves. None without a range to show.
    """
    table = arms_of(report)
    compared = compared_rows(report)
    first = [compared[0][key] for key in ("arm", "against")] if compared else [*table][:2]
    core = [value for arm in first for row in table.get(arm, []) for value in (row["mean"], *row["interval"])]
    core = [value for value in core if value is not None]
    if not core or min(core) == max(core):
        return None
    room = STRETCH * (max(core) - min(core))
    means = [row["mean"] for rows in table.values() for row in rows]
    shown = [*core, *(mean for mean in means if min(core) - room <= mean <= max(core) + room)]
    pad = 0.06 * (max(shown) - min(shown))
    return min(shown) - pad, max(shown) + pad


def off_axis(rows: Sequence[Row], edges: tuple[float, float] | None) -> str:
    """Return which scores of an arm are outside the axis, for the legend."""
    if edges is None:
        return ""
    texts = []
    for side, outside in (
        ("below", [row for row in rows if row["mean"] < edges[0]]),
        ("above", [row for row in rows if row["mean"] > edges[1]]),
    ):
        means = sorted({f"{row['mean']:.2g}" for row in outside}, key=float)
        where = (
            "" if len(outside) == len(rows) else f" at {', '.join(tick(row['labels_per_class']) for row in outside)}"
        )
        if outside:
            texts.append(f"{' to '.join([means[0], means[-1]] if len(means) > 1 else means)}, {side}{where}")
    return f" ({'; '.join(texts)})" if texts else ""


def band(
    axes: Axes, x: list[float], means: list[float], intervals: list[Interval], colour: str, bars: bool = False
) -> None:
    """Draw intervals as a band, or as error bars if `bars` is set or there is only one point."""
    known = [
        (position, *(mean if bound is None else bound for bound in interval))
        for position, mean, interval in zip(x, means, intervals)
    ]
    if len(known) > 1 and not bars:
        axes.fill_between(*zip(*known), color=colour, alpha=0.15, linewidth=0)
    else:
        axes.vlines(*zip(*known), color=colour)


def difference_curve(figure: Figure, report: dict[str, Any]) -> None:
    """Draw the difference of the headline by label count: interval, verdict, zero line, and a band for the margin."""
    axes, counts, margin = figure.subplots(), counts_of(report), report["rules"]["margin"]
    rows = [row for row in headline_rows(report) if row["difference"] is not None]
    x = [counts.index(row["labels"]) for row in rows]
    axes.axhspan(-margin, margin, color=FOREGROUND, alpha=0.1, linewidth=0, label=f"margin ±{margin:g}")
    axes.axhline(0, color=FOREGROUND, linewidth=0.8)
    axes.plot(x, [row["difference"] for row in rows], color=FOREGROUND, alpha=0.4, linewidth=1, zorder=2)
    seen = set()
    for position, row in zip(x, rows):
        colour, marker, _ = VERDICT_STYLES.get(row["verdict"], NO_VERDICT)
        word = row["verdict"] or "no verdict"
        if row["interval"][0] is not None:
            axes.vlines(position, *row["interval"], color=colour, linewidth=2, zorder=3)
        look = {"color": colour, "marker": marker, "markersize": 8, "linestyle": "none", "zorder": 4}
        axes.plot(position, row["difference"], **look, **({} if word in seen else {"label": word}))
        seen.add(word)
    label_axis(axes, counts)
    axes.set_ylabel(f"difference in {report['metric']}\n(positive is better)")
    legend(figure, axes)


def headline_rows(report: dict[str, Any]) -> list[Row]:
    """Return the verdicts of the headline's comparison with a difference, with the fewest training rows first."""
    counts = counts_of(report)
    rows = [row for row in compared_rows(report) if row["difference"] is not None]
    return sorted(rows, key=lambda row: counts.index(row["labels"]))


def time_curve(figure: Figure, lines: dict[str, dict[str, Any]], target: dict[str, Any] | None, metric: str) -> None:
    """Draw validation scores by steps, and by seconds if these can be compared: mean and 95 % band per arm.

    If there are many arms, only the first two have bands.

    Args:
        lines: by arm, its curve (mean, low and high by step), per_step (cost of a step by unit) and style.
        target: the best score of `against` (level), and the median steps and seconds at which `arm` reaches it.
    """
    units = list(next(iter(lines.values()))["per_step"])
    figure.set_figheight(2.2 * len(units) + 0.4 * (len(units) == 1))
    panels = figure.subplots(len(units), 1, sharey=True, squeeze=False)[:, 0]
    for axes, unit in zip(panels, units):
        for number, (arm, line) in enumerate(lines.items()):
            curve, colour = line["curve"], line["style"]["color"]
            x = (curve.index.to_numpy() + 1) * line["per_step"][unit]
            axes.plot(x, curve["mean"], label=shortened(arm), markevery=max(1, len(x) // 8), **line["style"])
            if number < 2 or not has_many_arms(list(lines)):
                axes.fill_between(x, curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
        if target:
            axes.axhline(
                target["level"], color=FOREGROUND, linestyle=":", label=shortened(f"best of {target['against']}")
            )
            if target.get(unit) is not None:
                star = {"color": FOREGROUND, "marker": "*", "markersize": 11, "linestyle": "none", "zorder": 9}
                axes.plot(target[unit], target["level"], label=shortened(f"{target['arm']} reaches it"), **star)
        axes.set_xlabel(unit)
        axes.set_ylabel(metric)
    legend(figure, panels[0])


def length_curve(figure: Figure, found: dict[str, Any], metric: str) -> None:
    """Draw generic validation loss and task score by pretraining steps."""
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
            axes.axvline(found["turning_step"], color=FOREGROUND, linestyle=":", label="turning point")
    lower.set_xscale("log")
    lower.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    lower.xaxis.set_major_formatter("{x:,.0f}")
    lower.xaxis.set_minor_locator(NullLocator())
    lower.set_xlabel("steps of pretraining")
    lower.set_ylabel(metric)
    legend(figure, lower)


def continuation(figure: Figure, found: list[Row], metric: str, styles: dict[str, Style]) -> None:
    """Draw mean scores by labelled rows, and dashed forecasts at larger counts; 95 % bands for two arms only if many.

    Args:
        found: by arm, rows, scores, and forecasts with rows, score and interval.
    """
    axes = figure.subplots()
    for number, one in enumerate(found):
        style = {**styles[one["arm"]], "linestyle": "-"}
        axes.plot(one["rows"], one["scores"], label=shortened(one["arm"]), **style)
        last = {"rows": one["rows"][-1], "score": one["scores"][-1], "interval": [one["scores"][-1]] * 2}
        points = [last, *one["forecasts"]]
        x, y = ([point[name] for point in points] for name in ("rows", "score"))
        axes.plot(x, y, color=style["color"], linestyle="--", zorder=style["zorder"])
        if number < 2 or not has_many_arms([one["arm"] for one in found]):
            low, high = zip(*(point["interval"] for point in points))
            axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("labelled rows")
    axes.set_ylabel(metric)
    legend(figure, axes)


def legend(figure: Figure, axes: Axes) -> None:
    """Draw the legend below the figure, with a number of columns that fits its names."""
    handles, names = axes.get_legend_handles_labels()
    columns = max(1, min(3, 55 // (max(map(len, names), default=0) + 7)))
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(names) / columns))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.2)


def verdict_text(verdict: str | None) -> str:
    """Return a verdict with its shape: ▲ helps, ▼ hurts, ■ equivalent, ● cannot tell, ✕ no verdict."""
    return f"{VERDICT_STYLES.get(verdict, NO_VERDICT)[2]} {verdict or 'no verdict'}"


def badge_text(headline: dict[str, Any]) -> str:
    """Return the verdict of a headline with its shape, and the arm that it is against."""
    text, against = verdict_text(headline["verdict"]), shortened(str(headline.get("against")))
    if headline["verdict"] == "equivalent":
        return f"{text} to {against}"
    return f"{text} against {against}" if headline["verdict"] in ("helps", "hurts") else text


def shortened(name: str) -> str:
    """Return a name truncated to NAME_LENGTH characters."""
    return name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1]}…"


def interpolation_png(points: Sequence[tuple[float, float]], selected: float, metric: str) -> bytes:
    """Draw scores by alpha with the selected alpha marked, and return the bytes of a PNG file."""

    def plot(figure: Figure) -> None:
        axes = figure.subplots()
        axes.plot(*zip(*points), "o-", color=BLUE)
        axes.plot(selected, dict(points)[selected], "D", color=RED, label=f"selected: {selected:g}")
        axes.set_xlabel("share of the finetuned weights (0: initial weights)")
        axes.set_ylabel(metric)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.legend()

    return png(plot)


TITLE_LENGTH = 44


def comparisons(report: dict[str, Any]) -> dict[str, list[Row]]:
    """Group the verdicts by arms and budget."""
    groups: dict[str, list[Row]] = {}
    for row in report["verdicts"]:
        groups.setdefault(f"{row['arm']} against {row['against']}, {row['budget_text']}", []).append(row)
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
    colour, marker, _ = VERDICT_STYLES.get(row["verdict"], NO_VERDICT)
    if row["interval"][0] is not None:
        axes.hlines(y, *row["interval"], color=colour)
    if row["difference"] is not None:
        axes.plot(row["difference"], y, color=colour, marker=marker, markersize=6)
    axes.text(1.02, y, row["verdict"] or "no verdict", va="center", transform=axes.get_yaxis_transform())
