"""How deep each part of a model of transformers stands, whatever its architecture calls them."""

from __future__ import annotations

from torch import nn


def depths_by_layer(backbone: nn.Module, layers: str | None = None) -> dict[str, int]:
    """Embeddings and what else stands before the layers at 0, one depth per layer, then the rest.

    Args:
        backbone: holds the model.
        layers: the name of the list of layers; None for the longest list.
    """
    lists = {name: module for name, module in backbone.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    layers = layers or max(outer, key=lambda name: len(lists[name]), default="")
    depths: dict[str, int] = {}
    depth = 0
    for name, _ in backbone.named_parameters():
        if layers and name.startswith(f"{layers}."):
            index = int(name.removeprefix(f"{layers}.").split(".")[0])
            depths[f"{layers}.{index}"] = index + 1
            depth = len(lists[layers]) + 1
        else:
            place = _outside(name, layers)
            inner = backbone.get_submodule(place).modules() if place != name else ()
            depths[place] = 0 if any(isinstance(module, nn.Embedding) for module in inner) else depth
    return depths


def _outside(name: str, layers: str) -> str:
    """The outermost module that holds the parameter and not the layers; its own name where there is none."""
    parts = name.split(".")
    prefixes = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((prefix for prefix in prefixes if not f"{layers}.".startswith(f"{prefix}.")), name)
