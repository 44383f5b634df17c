"""Freeze the encoder or the decoder of an encoder-decoder."""

from __future__ import annotations

from typing import Literal

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale, Strategy


class FrozenHalf(Strategy):
    """Train everything except one half of an encoder-decoder, including the embeddings that both halves share.

    A frozen encoder keeps its features. A frozen decoder keeps its output layer too, so that only the encoder changes.

    Args:
        half: the half to freeze, encoder or decoder.
    """

    def __init__(self, half: Literal["encoder", "decoder"] = "encoder"):
        self.half = half

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Return scales of 0 for the parameters that the half uses, and 1 for all others.

        Raises:
            UserError: the backbone has no encoder and decoder.
        """
        halves = backbone.halves()
        if self.half not in halves:
            raise UserError(
                f"strategy=frozen_half: backbone {type(backbone).__name__} has no encoder and decoder: use "
                "strategy=frozen_stem or strategy=partial"
            )
        frozen = {id(value) for module in halves[self.half] for value in module.parameters()}
        own = [(f"backbone.{name}", float(id(value) not in frozen)) for name, value in backbone.named_parameters()]
        return [*own, ("objective.*", 1.0)]
