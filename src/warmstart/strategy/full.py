"""Full finetuning."""

from __future__ import annotations

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import NonNegativeFloat


class Full(Strategy):
    """Train backbone and head; `backbone_scale` multiplies the learning rate of the backbone."""

    def __init__(self, backbone_scale: NonNegativeFloat = 1.0):
        self.backbone_scale = backbone_scale

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        return [("backbone.*", self.backbone_scale), ("objective.*", 1.0)]
