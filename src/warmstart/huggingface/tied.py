"""Tied weights of transformers models, which a state_dict has once."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def save_once(module: nn.Module) -> None:
    """Leave the further names of tied parameters out of the state_dict of a module, and add them when it is loaded."""
    module.register_state_dict_post_hook(_without_tied)
    module.register_load_state_dict_pre_hook(_with_tied)


def tied(module: nn.Module) -> dict[str, str]:
    """Return the further names of tied parameters, with the first name of each."""
    first: dict[int, str] = {}
    names = [
        (name, first.setdefault(id(value), name)) for name, value in module.named_parameters(remove_duplicate=False)
    ]
    return {name: source for name, source in names if name != source}


def _without_tied(module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Remove the further names of tied parameters from a state_dict."""
    for name in tied(module):
        state.pop(f"{prefix}{name}", None)


def _with_tied(module: nn.Module, state: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
    """Add the further names of tied parameters to a state_dict."""
    for name, source in tied(module).items():
        if f"{prefix}{source}" in state:
            state[f"{prefix}{name}"] = state[f"{prefix}{source}"]
