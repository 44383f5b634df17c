"""Train the head on frozen features."""

from __future__ import annotations


class LinearProbe:
    """The backbone stays as it is, statistics of its norm layers included."""

    def claims(self, depths: dict[str, int]) -> list[tuple[str, float]]:
        """The backbone is frozen, the head trains."""
        return [("backbone.*", 0.0), ("objective.*", 1.0)]
