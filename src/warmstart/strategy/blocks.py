"""Group the parameters of a backbone by depth and by block, from its `depths`."""

from __future__ import annotations

from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone


def depth_of(backbone: Any) -> dict[str, int]:
    """Return the depth of each parameter, by the longest matching prefix in `depths`.

    Raises:
        UserError: no prefix matches a parameter.
    """
    prefixes = backbone.depths()
    depths = {}
    for name, _ in backbone.named_parameters():
        matching = [prefix for prefix in prefixes if f"{name}.".startswith(f"{prefix}.")]
        if not matching:
            raise UserError(f"strategy: backbone {type(backbone).__name__} has no depth for {name}: add it to depths()")
        depths[name] = prefixes[max(matching, key=len)]
    return depths


def by_block(backbone: Backbone) -> list[list[str]]:
    """Return the parameter names of each block, from input to output.

    A block is an entry of `depths` that ends in a number, such as `blocks.3`. Parameters before the first block
    belong to the first block, and those after the last block to the last.
    """
    numbered = {depth for prefix, depth in backbone.depths().items() if prefix.rpartition(".")[2].isdigit()}
    starts = sorted(numbered)
    blocks: list[list[str]] = [[] for _ in starts]
    for name, depth in depth_of(backbone).items():
        if blocks:
            blocks[max(0, sum(start <= depth for start in starts) - 1)].append(name)
    return blocks
