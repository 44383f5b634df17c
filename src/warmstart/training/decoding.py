"""Batches and sampling settings of generated texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

BATCH = 32  # rows that are generated at a time
SAMPLING = ("length", "temperature", "top_k", "top_p")  # settings


def by_length(starts: Sequence[list[int]], generate: Callable[[list[list[int]]], list[str]]) -> list[str]:
    """Return a text for each list of token ids; `generate` gets batches of similar length, shortest first."""
    order = sorted(range(len(starts)), key=lambda row: len(starts[row]))
    found: dict[int, str] = {}
    for first in range(0, len(order), BATCH):
        rows = order[first : first + BATCH]
        found |= zip(rows, generate([starts[row] for row in rows]))
    return [found[row] for row in range(len(starts))]


def sampling_arguments(temperature: float, top_k: int | None, top_p: float | None) -> dict[str, Any]:
    """Return the sampling arguments of a transformers.GenerationConfig."""
    if temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": float(temperature),
        "top_k": top_k or 0,
        "top_p": 1.0 if top_p is None else float(top_p),
    }
