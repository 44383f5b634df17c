"""The sections of the page of a transfer."""

from __future__ import annotations

from typing import Any

Section = dict[str, Any]
Table = dict[str, Any]


def section(
    name: str,
    title: str,
    answer: str,
    drawn: str | None = None,
    table: Table | None = None,
    note: str = "",
    image: str | None = None,
) -> Section:
    """Return a section of the page: its answer in a sentence, its figure as SVG, its table, and how it was computed.

    Args:
        note: how it was computed; by default, the note of this name in transfer.md.j2.
        image: file with the figure, for report.md.
    """
    return {
        "name": name,
        "title": title,
        "answer": answer,
        "figure": drawn,
        "table": table,
        "note": note,
        "image": image,
    }
