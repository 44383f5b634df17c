"""Functions that return a modified copy of a config; none modifies its argument."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart.core.init import Init


def changed(config: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    """Return the config with other values of existing keys, such as `optimizer.lr`."""
    copy = config.copy()
    for key, value in values.items():
        OmegaConf.update(copy, key, value, merge=False)
    return copy


def merged(*configs: Any) -> DictConfig:
    """Return the merged config, in which later configs override earlier ones; it is in struct mode."""
    config = OmegaConf.merge(*configs)
    OmegaConf.set_struct(config, True)
    return config


def without(config: DictConfig, keys: Container[str]) -> DictConfig:
    """Return the config without these keys; it is not in struct mode."""
    return OmegaConf.masked_copy(config, [key for key in config if key not in keys])


def freeze(config: DictConfig) -> DictConfig:
    """Return the config in struct mode; interpolations remain until config.yaml is written."""
    frozen = config.copy()
    OmegaConf.set_struct(frozen, True)
    return frozen


def from_parent(
    config: DictConfig, parent: Mapping[str, Any] | None, teacher: Mapping[str, Any] | None = None
) -> DictConfig:
    """Return the config with `init` set to the weights that a run with this parent record was initialized with.

    `teacher` is set in the same way to the path in the record of the teacher.
    """
    if teacher is not None:
        config = changed(config, {"teacher": teacher["path"]})
    if parent is None:
        return config
    init = replace(Init.parse(parent["path"]), shuffled=Init.parse(config.init).shuffled)
    return changed(config, {"init": str(init)})
