"""Linear probing."""

from __future__ import annotations

from typing import ClassVar

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import PositiveFloat


class LinearProbe(Strategy):
    """Train the head on a frozen backbone, in which statistics of norm layers are frozen too.

    Args:
        rate: learning rate of the head, as a multiple of optimizer.lr.
    """

    trains_backbone: ClassVar = False

    def __init__(self, rate: PositiveFloat = 10.0):
        self.rate = rate

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        return [("backbone.*", 0.0), ("objective.*", self.rate)]
