"""Train biases only."""

from __future__ import annotations

from typing import ClassVar

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import PositiveFloat


class BitFit(Strategy):
    """Train the head and the biases of the backbone, including those of norm layers.

    Source: Ben Zaken et al. (2022), "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
    Language-models", https://arxiv.org/abs/2106.10199.

    Args:
        rate: learning rate, as a multiple of optimizer.lr.
    """

    trains_loaded_head: ClassVar = False

    def __init__(self, rate: PositiveFloat = 10.0):
        self.rate = rate

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Return scales that are nonzero for the head and all parameters named bias.

        Raises:
            UserError: the backbone has none.
        """
        scales = {name: self.rate * name.endswith("bias") for name, _ in backbone.named_parameters()}
        if not any(scales.values()):
            raise UserError(
                f"strategy=bitfit: backbone {type(backbone).__name__} has no biases: choose another strategy"
            )
        return [*((f"backbone.{name}", scale) for name, scale in scales.items()), ("objective.*", self.rate)]
