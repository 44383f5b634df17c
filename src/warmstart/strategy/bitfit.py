"""Train biases only."""

from __future__ import annotations

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import Positive


class BitFit(Strategy):
    """The backbone's biases, those of norm layers included, and the head train.

    Source: Ben Zaken et al. (2022), "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
    Language-models", https://arxiv.org/abs/2106.10199.

    Args:
        rate: of what trains, times that of the optimizer.
    """

    def __init__(self, rate: Positive = 10.0):
        self.rate = rate

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """What is named bias.

        Raises:
            UserError: the backbone has none.
        """
        scales = {name: self.rate * name.endswith("bias") for name, _ in backbone.named_parameters()}
        if not any(scales.values()):
            raise UserError(f"strategy=bitfit: backbone {type(backbone).__name__} has no biases: choose another")
        return [*((f"backbone.{name}", scale) for name, scale in scales.items()), ("objective.*", self.rate)]
