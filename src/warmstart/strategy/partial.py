"""Train the first or the last blocks."""

from __future__ import annotations

from typing import Literal

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import Count
from warmstart.strategy.blocks import by_block


class Partial(Strategy):
    """`blocks` blocks of the backbone and the head train, the rest is frozen.

    The last ones serve another task on like inputs, the first ones a shift of the inputs: Lee et al. (2023), "Surgical
    Fine-Tuning Improves Adaptation to Distribution Shifts", https://arxiv.org/abs/2210.11466.

    Args:
        blocks: how many, 1 or more.
        side: first or last.
    """

    def __init__(self, blocks: Count = 1, side: Literal["first", "last"] = "last"):
        self.blocks, self.side = blocks, side

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Those blocks and the head.

        Raises:
            UserError: the backbone has fewer blocks.
        """
        blocks = by_block(backbone)
        if self.blocks > len(blocks):
            kind = type(backbone).__name__
            raise UserError(f"strategy.blocks={self.blocks}: backbone {kind} has {len(blocks)}; give no more than that")
        chosen = blocks[: self.blocks] if self.side == "first" else blocks[-self.blocks :]
        trained = {name for block in chosen for name in block}
        own = [(f"backbone.{name}", float(name in trained)) for block in blocks for name in block]
        return [*own, ("objective.*", 1.0)]
