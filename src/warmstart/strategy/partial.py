"""Train the first or the last blocks."""

from __future__ import annotations

from typing import Literal

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import PositiveInt
from warmstart.strategy.blocks import by_block


class Partial(Strategy):
    """Train the head and the first or last `blocks` blocks of the backbone.

    The last blocks suit a new task on similar inputs, a shift of the inputs the first: Lee et al. (2023), "Surgical
    Fine-Tuning Improves Adaptation to Distribution Shifts", https://arxiv.org/abs/2210.11466.

    Args:
        blocks: number of blocks, 1 or more.
        side: first or last.
    """

    def __init__(self, blocks: PositiveInt = 1, side: Literal["first", "last"] = "last"):
        self.blocks, self.side = blocks, side

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Return scales of 1 for those blocks and the head, and 0 for all others.

        Raises:
            UserError: the backbone has fewer blocks.
        """
        blocks = by_block(backbone)
        if self.blocks > len(blocks):
            kind = type(backbone).__name__
            raise UserError(
                f"strategy.blocks={self.blocks}: backbone {kind} has {len(blocks)}; give at most {len(blocks)}"
            )
        chosen = blocks[: self.blocks] if self.side == "first" else blocks[-self.blocks :]
        trained = {name for block in chosen for name in block}
        own = [(f"backbone.{name}", float(name in trained)) for block in blocks for name in block]
        return [*own, ("objective.*", 1.0)]
