"""Configs made of other configs. Nothing changes one in place: these return a new one."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart.core.init import Init


def changed(config: DictConfig, values: Mapping[str, Any]) -> DictConfig:
    """The config with other values under keys that it has, such as `optimizer.lr`."""
    copy = config.copy()
    for key, value in values.items():
        OmegaConf.update(copy, key, value, merge=False)
    return copy


def merged(*parts: Any) -> DictConfig:
    """The config that has the settings of all parts, those of later ones in place of earlier; no key can be added."""
    config = OmegaConf.merge(*parts)
    OmegaConf.set_struct(config, True)
    return config


def without(config: DictConfig, keys: Container[str]) -> DictConfig:
    """The config without those of its settings that have these names; keys can be added to it."""
    return OmegaConf.masked_copy(config, [key for key in config if key not in keys])


def freeze(config: DictConfig) -> DictConfig:
    """The config to which no key can be added; what refers to another setting follows it up to config.yaml."""
    frozen = config.copy()
    OmegaConf.set_struct(frozen, True)
    return frozen


def from_parent(config: DictConfig, parent: Mapping[str, Any] | None) -> DictConfig:
    """The config whose `init` names the very weights that a run of it with this parent record has started from."""
    if parent is None:
        return config
    init = replace(Init.parse(parent["path"]), shuffled=Init.parse(config.init).shuffled)
    return changed(config, {"init": str(init)})
