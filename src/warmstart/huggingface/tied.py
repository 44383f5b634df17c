"""Tied weights of transformers models, which a state_dict has once."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def save_once(module: nn.Module) -> None:
    """Leave the further names of tied weights out of the state_dict of a module, and add them when it is loaded.

    Args:
        module: its attribute `tied` has the further names, each with the name that is saved.
    """
    module.register_state_dict_post_hook(_without_tied)
    module.register_load_state_dict_pre_hook(_with_tied)


def _without_tied(module: Any, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    """Remove the further names of tied weights from a state_dict."""
    for name in module.tied:
        state.pop(f"{prefix}{name}", None)


def _with_tied(module: Any, state: dict[str, Tensor], prefix: str, *arguments: Any) -> None:
    """Add the further names of tied weights to a state_dict."""
    for name, source in module.tied.items():
        if f"{prefix}{source}" in state:
            state[f"{prefix}{name}"] = state[f"{prefix}{source}"]
