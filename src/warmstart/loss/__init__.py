"""Losses: pure functions of (outputs, targets) that return one value per example or position."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)


def takes(*kinds: str) -> Callable[[F], F]:
    """Declare the kinds of target a loss is for: value, category (class numbers or shares of classes) or categories."""

    def mark(function: F) -> F:
        function.takes = frozenset(kinds)
        return function

    return mark
