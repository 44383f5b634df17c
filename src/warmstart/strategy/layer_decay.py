"""Layer-wise learning rate decay."""

from __future__ import annotations

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import LeftOpenUnitInterval
from warmstart.strategy.blocks import depth_of


class LayerDecay(Strategy):
    """Multiply the learning rate by `decay` from each depth to the one below; the head has the full rate.

    Sources: Howard and Ruder (2018), https://arxiv.org/abs/1801.06146; in this form, Clark et al. (2020), "ELECTRA",
    https://arxiv.org/abs/2003.10555, and Bao et al. (2022), "BEiT", https://arxiv.org/abs/2106.08254.

    Args:
        decay: above 0 and at most 1.
    """

    def __init__(self, decay: LeftOpenUnitInterval = 0.75):
        self.decay = decay

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        depths = depth_of(backbone)
        deepest = max(depths.values())
        own = [(f"backbone.{name}", self.decay ** (deepest - depth)) for name, depth in depths.items()]
        return [*own, ("objective.*", 1.0)]
