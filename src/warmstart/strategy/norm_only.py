"""Train norm layers only."""

from __future__ import annotations

from typing import ClassVar

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import PositiveFloat


class NormOnly(Strategy):
    """Train the head and the scales and biases of norm layers, whose running statistics are updated too.

    Source: Frankle et al. (2021), "Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in
    CNNs", https://arxiv.org/abs/2003.00152.

    Args:
        rate: learning rate, as a multiple of optimizer.lr.
    """

    trains_loaded_head: ClassVar = False

    def __init__(self, rate: PositiveFloat = 10.0):
        self.rate = rate

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Return scales that are nonzero for the head and modules with `Norm` in the name of their class.

        Raises:
            UserError: the backbone has no norm layer with parameters.
        """
        norms = [module for module in backbone.modules() if "Norm" in type(module).__name__]
        trained = {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}
        if not trained:
            kind = type(backbone).__name__
            raise UserError(
                f"strategy=norm_only: backbone {kind} has no norm layers with parameters: choose another strategy"
            )
        own = [(f"backbone.{name}", self.rate * (id(value) in trained)) for name, value in backbone.named_parameters()]
        return [*own, ("objective.*", self.rate)]
