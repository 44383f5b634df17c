"""Finetune everything."""

from __future__ import annotations

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import Amount


class Full(Strategy):
    """Backbone and head train at the full learning rate, or the backbone at a share of it."""

    def __init__(self, backbone_scale: Amount = 1.0):
        self.backbone_scale = backbone_scale

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Two rules: backbone and head."""
        return [("backbone.*", self.backbone_scale), ("objective.*", 1.0)]
