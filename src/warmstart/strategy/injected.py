"""Inject adapters of peft into the linear layers of a backbone, and remove them."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale

BYPASSING = ("MultiheadAttention", "WavLMAttention")  # use the weights of their layers without calling them


def linear_layers(backbone: Any, patterns: Sequence[str] | None, strategy: str) -> list[str]:
    """Return the names of the linear layers that match a pattern; all of them if `patterns` is None.

    Layers inside modules of BYPASSING are excluded, because their adapters would have no effect, and layers whose
    weight is shared, such as an output layer with the weight of the token embedding.

    Raises:
        UserError: the backbone has no such layers, or a pattern matches none.
    """
    from transformers.pytorch_utils import Conv1D  # a linear layer whose weight is (I, O)

    bypassing = [module for module in backbone.modules() if type(module).__name__ in BYPASSING]
    excluded = {id(layer) for module in bypassing for layer in module.modules()}
    shared = Counter(id(value) for _, value in backbone.named_parameters(remove_duplicate=False))
    names = [
        name
        for name, layer in backbone.named_modules()
        if isinstance(layer, (nn.Linear, Conv1D)) and id(layer) not in excluded and shared[id(layer.weight)] == 1
    ]
    kind = type(backbone).__name__
    if not names:
        raise UserError(
            f"strategy={strategy}: backbone {kind} has no linear layers for adapters, as an MLP and transformers have: "
            "use strategy=norm_only or partial"
        )
    if patterns is None:
        return names
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"strategy.layers: {pattern} matches no linear layer of backbone {kind}; "
                f"an example of a layer name is {names[-1]}"
            )
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        raise UserError(f"strategy.layers is empty: give names of layers, such as {names[-1]}, or null for all")
    return chosen


def inject(backbone: Any, config: Any, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Wrap layers in adapters of a peft configuration; return the wrappers by layer name."""
    import peft

    config.target_modules = "|".join(re.escape(name) for name in layers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")  # peft then sets the correct value
        with shown_in_float32(backbone, layers):
            peft.inject_adapter_in_model(config, backbone)
    del backbone.peft_config
    return {name: backbone.get_submodule(name) for name in layers}


@contextlib.contextmanager
def shown_in_float32(backbone: Any, layers: Sequence[str]) -> Iterator[None]:
    """Replace bfloat16 and quantized weights of layers by float32 zeros, which take no memory, inside the context.

    peft gives adapters the dtype of these weights, but they are trained in float32.
    """
    found = [backbone.get_submodule(name) for name in layers]
    plain = (torch.float32, nn.Parameter)
    hidden = [(layer, layer.weight) for layer in found if (layer.weight.dtype, type(layer.weight)) != plain]
    for layer, weight in hidden:
        layer.weight = nn.Parameter(torch.zeros((), device=weight.device).expand(weight.shape), requires_grad=False)
    try:
        yield
    finally:
        for layer, weight in hidden:
            layer.weight = weight


def remove_adapters(backbone: Any, wrappers: dict[str, nn.Module]) -> None:
    """Replace the wrappers by the original layers."""
    for name, wrapper in wrappers.items():
        owner, _, own = name.rpartition(".")
        setattr(backbone.get_submodule(owner), own, wrapper.base_layer)


def adapter_learning_rate_scales(
    backbone: Backbone, wrappers: dict[str, nn.Module], rate: float
) -> list[tuple[str, Scale]]:
    """Return scales that are `rate` for adapters and the head, and 0 for all other parameters."""
    frozen = {id(value) for wrapper in wrappers.values() for value in wrapper.base_layer.parameters()}
    adapters = {id(value) for wrapper in wrappers.values() for value in wrapper.parameters()} - frozen
    own = [(f"backbone.{name}", rate * (id(value) in adapters)) for name, value in backbone.named_parameters()]
    return [*own, ("objective.*", rate)]
