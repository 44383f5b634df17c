"""A model as what was learned beside its parent: small tensors of each layer, and whole ones that are not the parent's.

A layer's change is `up` (O, R) and `down` (R, I), whose product is added to its weight (O, I), or `scale` (O, 1), by
which weight and bias are multiplied. In a file they are named LAYER:up and so on; whole tensors keep their names.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

ADAPTER = "adapter.safetensors"
Change = dict[str, Tensor]


def merge(weights: dict[str, Tensor], changes: dict[str, Change]) -> dict[str, Tensor]:
    """All weights, on the CPU, with the changes of layers worked in: in float64, so that every machine rounds alike."""
    merged = {name: value.cpu() for name, value in weights.items()}
    for layer, change in changes.items():
        exact = {name: value.cpu().double() for name, value in change.items()}
        kind = next(iter(change.values())).dtype
        names = [name for name in (f"{layer}.weight", f"{layer}.bias") if name in merged]
        weight, *bias = (merged[name].to(kind).double() for name in names)
        if "scale" in exact:
            values = [weight * exact["scale"], *(one * exact["scale"].flatten() for one in bias)]
        else:
            values = [weight + exact["up"] @ exact["down"], *bias]
        merged |= {name: value.to(kind) for name, value in zip(names, values)}
    return merged


def packed(changes: dict[str, Change]) -> dict[str, Tensor]:
    """The changes as tensors of a file."""
    return {
        f"{layer}:{part}": value.cpu().contiguous()
        for layer, change in changes.items()
        for part, value in change.items()
    }


def applied(tensors: dict[str, Tensor], parent: dict[str, Tensor], fresh: list[str]) -> dict[str, Tensor]:
    """The weights of a model, from the tensors of its file and the weights of its parent.

    Args:
        tensors: as `packed` names them, and whole ones.
        parent: by name.
        fresh: patterns of names of the parent's weights that the model did not take.

    Raises:
        KeyError, RuntimeError, ValueError: the two do not go together.
    """
    taken = {name: value for name, value in parent.items() if not any(fnmatchcase(name, p) for p in fresh)}
    changes: dict[str, Change] = {}
    whole: dict[str, Any] = {}
    for name, value in tensors.items():
        layer, _, part = name.rpartition(":")
        if layer:
            changes.setdefault(layer, {})[part] = value
        else:
            whole[name] = value
    return merge({**taken, **whole}, changes)
