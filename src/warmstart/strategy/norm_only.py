"""Train norm layers only."""

from __future__ import annotations

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import Positive


class NormOnly(Strategy):
    """Scales and biases of the backbone's norm layers, whose statistics move too, and the head train.

    Source: Frankle et al. (2021), "Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in
    CNNs", https://arxiv.org/abs/2003.00152.

    Args:
        rate: of what trains, times that of the optimizer.
    """

    def __init__(self, rate: Positive = 10.0):
        self.rate = rate

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """What belongs to a module that calls itself a norm.

        Raises:
            UserError: the backbone has no norm layer with parameters.
        """
        norms = [part for part in backbone.modules() if "Norm" in type(part).__name__]
        trained = {id(parameter) for part in norms for parameter in part.parameters(recurse=False)}
        if not trained:
            kind = type(backbone).__name__
            raise UserError(f"strategy=norm_only: backbone {kind} has no norm layers with parameters: choose another")
        own = [(f"backbone.{name}", self.rate * (id(value) in trained)) for name, value in backbone.named_parameters()]
        return [*own, ("objective.*", self.rate)]
