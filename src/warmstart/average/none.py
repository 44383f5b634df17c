"""No average: a run has the weights of its last step, and of its best."""

from __future__ import annotations


def none() -> None:
    """Nothing to keep beside the weights."""
