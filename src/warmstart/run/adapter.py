"""Adapter deltas: the difference between a finetuned model and its parent, as small tensors per layer.

The delta of a layer is `up` (O, R) and `down` (R, I), whose product is added to its weight (O, I), with `magnitude`
(O, 1) also the norms of the rows of the sum; or `scale` (O, 1), by which weight and bias are multiplied. A file names
them LAYER:up and so on; it also holds complete tensors, under their own names, that differ from those of the parent.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import Tensor

ADAPTER = "adapter.safetensors"
Delta = dict[str, Tensor]


def merge(weights: dict[str, Tensor], deltas: dict[str, Delta]) -> dict[str, Tensor]:
    """Return all weights on the CPU with the deltas added, in float64, so that results are equal on all machines."""
    merged = {name: value.cpu() for name, value in weights.items()}
    for layer, delta in deltas.items():
        exact = {name: value.cpu().double() for name, value in delta.items()}
        dtype = next(iter(delta.values())).dtype
        names = [name for name in (f"{layer}.weight", f"{layer}.bias") if name in merged]
        weight, *bias = (merged[name].to(dtype).double() for name in names)
        if "scale" in exact:
            values = [weight * exact["scale"], *(one * exact["scale"].flatten() for one in bias)]
        else:
            values = [_updated(weight, **exact), *bias]
        merged |= {name: value.to(dtype) for name, value in zip(names, values)}
    return merged


def _updated(weight: Tensor, up: Tensor, down: Tensor, magnitude: Tensor | None = None) -> Tensor:
    """Return a weight with a low-rank update; a magnitude (O, 1) or (1, O) has the norms of its rows or columns."""
    weight = weight + up @ down
    if magnitude is None:
        return weight
    return weight * (magnitude / weight.norm(dim=int(magnitude.shape[1] == 1), keepdim=True))


def packed(deltas: dict[str, Delta]) -> dict[str, Tensor]:
    """Flatten the deltas to named tensors for a file."""
    return {
        f"{layer}:{kind}": value.cpu().contiguous() for layer, delta in deltas.items() for kind, value in delta.items()
    }


def applied(tensors: dict[str, Tensor], parent: dict[str, Tensor], reinitialize: list[str]) -> dict[str, Tensor]:
    """Apply the tensors of an adapter file to the weights of its parent.

    Args:
        tensors: deltas with the names of `packed`, and complete tensors.
        parent: weights by name.
        reinitialize: name patterns of parent weights that the model reinitialized.

    Raises:
        KeyError, RuntimeError, ValueError: the adapter and the parent are incompatible.
    """
    inherited = {name: value for name, value in parent.items() if not any(fnmatchcase(name, p) for p in reinitialize)}
    deltas, complete = unpacked(tensors)
    return merge({**inherited, **complete}, deltas)


def unpacked(tensors: dict[str, Tensor]) -> tuple[dict[str, Delta], dict[str, Tensor]]:
    """Return the deltas by layer, and the complete tensors, of an adapter file."""
    deltas: dict[str, Delta] = {}
    complete: dict[str, Tensor] = {}
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(":")
        if layer:
            deltas.setdefault(layer, {})[kind] = value
        else:
            complete[name] = value
    return deltas, complete
