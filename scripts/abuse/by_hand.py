"""Command lines that no change of one key gives: sweeps, paths, duplicates, groups that do not go together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from scripts.abuse.lines import Line


def by_hand(folder: Path) -> Iterator[Line]:
    """The lines; those that must be accepted are marked."""
    yield from ()
