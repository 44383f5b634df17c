"""Freeze what precedes the first block."""

from __future__ import annotations

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.strategy.blocks import depth_of


class FrozenStem(Strategy):
    """Train everything except depth 0: stem, token and position embeddings.

    It keeps embeddings that few labels would overwrite, such as those of `init=static:`.
    """

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        own = [(f"backbone.{name}", float(depth > 0)) for name, depth in depth_of(backbone).items()]
        return [*own, ("objective.*", 1.0)]
