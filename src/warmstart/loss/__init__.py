"""Losses: functions of (outputs, targets) that return one value per example or position."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)


def accepts(*kinds: str) -> Callable[[F], F]:
    """Declare the kinds of target of a loss: value, category (or probabilities), categories, sequence or pair."""

    def mark(function: F) -> F:
        function.accepts = frozenset(kinds)
        return function

    return mark
