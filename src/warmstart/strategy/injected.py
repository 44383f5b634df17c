"""Adapters that peft puts into the linear layers of a backbone, and their way out again."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, Scale

READERS = ("MultiheadAttention", "WavLMAttention")  # compute with the weights of their layers, and do not call them


def linear_layers(backbone: Any, patterns: Sequence[str] | None, strategy: str) -> list[str]:
    """Names of the layers that one of the patterns matches; of all where there are none.

    Layers inside one of READERS, which would pass an adapter by, are no choice.

    Raises:
        UserError: the backbone has no such layers, or a pattern matches none.
    """
    from transformers.pytorch_utils import Conv1D  # a linear layer whose weight is (I, O)

    readers = [module for module in backbone.modules() if type(module).__name__ in READERS]
    passed = {id(part) for module in readers for part in module.modules()}
    names = [
        name
        for name, part in backbone.named_modules()
        if isinstance(part, (nn.Linear, Conv1D)) and id(part) not in passed
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
                f"they are named like {names[-1]}"
            )
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        raise UserError(f"strategy.layers is empty: name layers like {names[-1]}, or give null for all of them")
    return chosen


def inject(backbone: Any, config: Any, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Wrap these layers as a configuration of peft says; each wrapper, by the name of its layer."""
    import peft

    config.target_modules = "|".join(re.escape(name) for name in layers)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set")  # which peft then sets itself
        peft.inject_adapter_in_model(config, backbone)
    del backbone.peft_config
    return {name: backbone.get_submodule(name) for name in layers}


def withdraw(backbone: Any, wrappers: dict[str, nn.Module]) -> None:
    """Put the layers back in the place of their wrappers."""
    for name, wrapper in wrappers.items():
        owner, _, own = name.rpartition(".")
        setattr(backbone.get_submodule(owner), own, wrapper.base_layer)


def adapter_claims(backbone: Backbone, wrappers: dict[str, nn.Module], rate: float) -> list[tuple[str, Scale]]:
    """Adapters and the head at `rate`, the layers inside and all else frozen."""
    frozen = {id(value) for wrapper in wrappers.values() for value in wrapper.base_layer.parameters()}
    adapters = {id(value) for wrapper in wrappers.values() for value in wrapper.parameters()} - frozen
    own = [(f"backbone.{name}", rate * (id(value) in adapters)) for name, value in backbone.named_parameters()]
    return [*own, ("objective.*", rate)]
