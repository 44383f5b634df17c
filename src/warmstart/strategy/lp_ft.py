"""Linear probing, then full finetuning."""

from __future__ import annotations

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import NonNegativeFloat, OpenUnitInterval, PositiveFloat


class LPFT(Strategy):
    """Train the head for a share `probe` of the run, then head and backbone.

    The learning rate schedule restarts with the second phase. Source: Kumar et al. (2022),
    "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", https://arxiv.org/abs/2202.10054.

    Args:
        probe: share of the run for linear probing, above 0 and below 1.
        backbone_scale: learning rate of the backbone in the second phase, as a multiple of optimizer.lr.
        rate: learning rate of the head in the first phase, as a multiple of optimizer.lr.
    """

    def __init__(
        self, probe: OpenUnitInterval = 0.5, backbone_scale: NonNegativeFloat = 1.0, rate: PositiveFloat = 1.0
    ):
        self.probe, self.backbone_scale, self.rate = probe, backbone_scale, rate
        self.restarts = (probe,)

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        return [("backbone.*", self._backbone_rate), ("objective.*", self._head_rate)]

    def _backbone_rate(self, progress: float) -> float:
        return self.backbone_scale if progress >= self.probe else 0.0

    def _head_rate(self, progress: float) -> float:
        return 1.0 if progress >= self.probe else self.rate
