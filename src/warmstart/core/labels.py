"""Entries of transfer.labels: rows per class (5), up to so many per class ("<=200"), a share of the rows, or all."""

from __future__ import annotations

import re

Labels = int | float | str
AT_MOST = re.compile(r"<=([1-9]\d{0,8})")


def most_per_class(labels: Labels | None) -> int | None:
    """Return N of an entry `<=N`; None for all other entries."""
    found = AT_MOST.fullmatch(labels) if isinstance(labels, str) else None
    return int(found[1]) if found else None


def labels_name(labels: Labels) -> str:
    """Return an entry as part of a folder name, such as 5, 0.1, all, or max200 for `<=200`."""
    most = most_per_class(labels)
    return str(labels) if most is None else f"max{most}"
