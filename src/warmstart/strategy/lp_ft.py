"""Linear probing, then full finetuning."""

from __future__ import annotations

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import Amount, OpenUnitInterval, Positive


class LPFT(Strategy):
    """The head alone until a share `probe` of the run is over, then everything.

    The schedule begins anew with the second phase, as these are two trainings. Source: Kumar et al. (2022),
    "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", https://arxiv.org/abs/2202.10054.

    Args:
        probe: share of the run, above 0 and below 1.
        backbone_scale: the backbone's share of the learning rate, once it trains.
        rate: of the head while it trains alone, times that of the optimizer.
    """

    def __init__(self, probe: OpenUnitInterval = 0.5, backbone_scale: Amount = 1.0, rate: Positive = 1.0):
        self.probe, self.backbone_scale, self.rate = probe, backbone_scale, rate
        self.restarts = (probe,)

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """The backbone waits, the head trains."""
        return [("backbone.*", self._waiting), ("objective.*", self._leading)]

    def _waiting(self, progress: float) -> float:
        return self.backbone_scale if progress >= self.probe else 0.0

    def _leading(self, progress: float) -> float:
        return 1.0 if progress >= self.probe else self.rate
