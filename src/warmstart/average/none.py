"""No averaging of the weights."""

from __future__ import annotations


def none() -> None:
    """Return None: the weights are not averaged."""
