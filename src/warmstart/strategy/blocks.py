"""A backbone's parameters by depth and by block, from its depth map."""

from __future__ import annotations

from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone


def depth_of(backbone: Any) -> dict[str, int]:
    """Depth per parameter name, by the longest prefix in the depth map.

    Raises:
        UserError: the depth map leaves a parameter out.
    """
    prefixes = backbone.depths()
    depths = {}
    for name, _ in backbone.named_parameters():
        found = [prefix for prefix in prefixes if f"{name}.".startswith(f"{prefix}.")]
        if not found:
            raise UserError(f"strategy: backbone {type(backbone).__name__} does not say how deep its {name} stands")
        depths[name] = prefixes[max(found, key=len)]
    return depths


def by_block(backbone: Backbone) -> list[list[str]]:
    """Parameter names of each block, input first.

    A block is what the depth map numbers, such as `blocks.3`. What stands before the first goes with it, and what
    stands after the last with that.
    """
    numbered = {depth for prefix, depth in backbone.depths().items() if prefix.rpartition(".")[2].isdigit()}
    starts = sorted(numbered)
    blocks: list[list[str]] = [[] for _ in starts]
    for name, depth in depth_of(backbone).items():
        if blocks:
            blocks[max(0, sum(start <= depth for start in starts) - 1)].append(name)
    return blocks
