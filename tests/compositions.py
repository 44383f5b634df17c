"""Configs composed once per selection of group options: most commands of the tests make Hydra merge the same files."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from warmstart.main import CONF

SOURCES = {f"file://{CONF}", "pkg://hydra.conf", "structured://"}  # files that no test changes


@contextmanager
def reused() -> Iterator[None]:
    """Merge the files of each selection of group options once. Overrides that set values are applied as always."""
    lists: dict[tuple[Any, ...], DefaultsList] = {}
    configs: dict[int, DictConfig] = {}  # by the identity of the list of files, which `lists` keeps alive
    create: Callable[..., DefaultsList] = config_loader_impl.create_defaults_list
    merge = ConfigLoaderImpl._compose_config_from_defaults_list

    def create_once(
        repo: IConfigRepository, config_name: str, overrides_list: list[Override], **options: bool
    ) -> DefaultsList:
        is_value = [isinstance(o.value(), dict) or not repo.group_exists(o.key_or_group) for o in overrides_list]
        if any(o.is_sweep_override() for o in overrides_list) or not sources(repo) <= SOURCES:
            return create(repo, config_name, overrides_list, **options)
        choices = tuple(o.input_line for o, value in zip(overrides_list, is_value, strict=True) if not value)
        key = (config_name, choices, *options.items())
        if key not in lists:
            lists[key] = create(repo, config_name, overrides_list, **options)
        values = [o for o, value in zip(overrides_list, is_value, strict=True) if value]
        return DefaultsList(lists[key].defaults, lists[key].defaults_tree, values, lists[key].overrides)

    def merge_once(loader: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository) -> DictConfig:
        if not any(defaults is known.defaults for known in lists.values()):
            return merge(loader, defaults, repo)
        if id(defaults) not in configs:
            configs[id(defaults)] = merge(loader, defaults, repo)
        return copy.deepcopy(configs[id(defaults)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_loader_impl, "create_defaults_list", create_once)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merge_once)
        yield


def sources(repo: IConfigRepository) -> set[str]:
    """The folders and packages that a config is composed from."""
    return {source.full_path() for source in repo.get_sources()}
