"""The picture of a score on the way from one set of weights to another."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from warmstart.report.figure import BLUE, RED, png


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
