"""Composes the jobs of a command line: one config per combination of its values."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.resolve import with_initial_backbone, with_latest
from warmstart.config.rewrite import freeze, without
from warmstart.config.schema import ROOT
from warmstart.config.validate import check, explain
from warmstart.core.errors import UserError
from warmstart.run.identity import config_sha256, resolved
from warmstart.run.manifest import Job

NAME_LENGTH = 80
# Numeric settings, in which the jobs of a vmap group may differ.
NUMERIC_SETTINGS = ("seed", "init", "optimizer.lr", "optimizer.weight_decay", "loss.label_smoothing")


class Composer:
    """Composes configs from overrides with Hydra; the first of the conf folders has `train.yaml`.

    A config is composed once per selection of group options; overrides that only set values are applied to it.
    """

    def __init__(self, folders: Sequence[Path]):
        search_path = create_config_search_path(str(folders[0]))
        for folder in folders[1:]:
            search_path.prepend("user", f"file://{folder}", SearchPathQuery(provider="schema", path=None))
        self.loader = ConfigLoaderImpl(search_path)
        self.parser = OverridesParser.create(self.loader)
        self.parsed: dict[str, Override] = {}
        self.bases: dict[tuple[str, ...], DictConfig] = {}
        self.copies: dict[tuple[tuple[str, ...], tuple[str, ...] | None], DictConfig] = {}

    def parse(self, overrides: Sequence[str]) -> list[Override]:
        for text in overrides:
            if text not in self.parsed:
                self.parsed[text] = self.parser.parse_overrides([text])[0]
        return [self.parsed[text] for text in overrides]

    def selects_group(self, override: Override) -> bool:
        """Return whether an override selects a group option, which needs a new composition."""
        return self.loader.repository.group_exists(override.key_or_group) or override.is_hydra_override()

    def config(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Compose and resolve the config of one job, without the settings of Hydra and the sweep.

        Raises:
            UserError: an override has an unknown key or an invalid value.
        """
        parsed = self.parse(overrides)
        values = [override for override in parsed if not self.selects_group(override)]
        choices = tuple(text for text in overrides if self.selects_group(self.parsed[text]))
        # Values that are only set can reuse a copy of the config; values that are added, deleted or merged cannot.
        sets = all(o.type == OverrideType.CHANGE and not isinstance(o.value(), dict) for o in values)
        keys = tuple(override.key_or_group for override in values) if sets else None
        config = self.copies.get((choices, keys))
        if config is None or not sets:
            config = copy.deepcopy(self.base(choices))
            self.copies[choices, keys] = config
        self.loader._apply_overrides_to_config(values, config)
        checked = check(config)
        adopted = with_initial_backbone(config)
        checked = checked if adopted is config else check(adopted)
        return with_latest(resolved(adopted) if "arm" in adopted else checked)

    def base(self, choices: tuple[str, ...]) -> DictConfig:
        """Compose the config of these group options only."""
        if choices not in self.bases:
            base = self.loader.load_configuration("train", list(choices), RunMode.RUN)
            self.bases[choices] = freeze(without(base, {"hydra", *ROOT.keys}))
        return self.bases[choices]


def grid(composer: Composer, overrides: Sequence[str]) -> list[Job]:
    """Return one job per combination of the values in `overrides`, in the order of Hydra's basic sweeper.

    Raises:
        UserError: a combination cannot be composed, or an override is an interval, which only a search supports.
    """
    lists: dict[str, list[str]] = {}
    for override in composer.parse(overrides):
        key = override.get_key_element()
        if not override.is_sweep_override():
            lists[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            lists[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise UserError(
                f"{override.input_line}: a grid needs a list, not an interval; give a list, or add sweep=optuna"
            )
    varied = [key for key, options in lists.items() if len(options) > 1]
    jobs, seen = [], set()
    combinations = list(itertools.product(*lists.values()))
    width = len(str(max(0, len(combinations) - 1)))
    for combination in combinations:
        by_key = dict(zip(lists, combination, strict=True))
        values = {key.lstrip("+"): json_value(composer.parse([by_key[key]])[0].value()) for key in varied}
        job = Job(job_name(len(jobs), width, values), values, compose(composer, combination, varied))
        if job.sha256 not in seen:
            seen.add(job.sha256)
            jobs.append(job)
    if not jobs:
        empty = next(key for key, options in lists.items() if not options)
        raise UserError(f"{empty} has no values, so there is no job")
    return jobs


def compose(composer: Composer, overrides: Sequence[str], varied: Sequence[str] = ()) -> dict[str, Any]:
    """Compose the config of one job; an error names the job by its `varied` overrides."""
    try:
        return composer.config(overrides)
    except (UserError, HydraException, OmegaConfBaseException, ValueError) as error:
        job = " ".join(override for override in overrides if override.partition("=")[0] in varied)
        raise UserError(f"{explain(error)}{f' (job {job})' if job else ''}") from error


def json_value(value: Any) -> Any:
    """Return a value that JSON can represent; others become text."""
    return value if isinstance(value, (bool, int, float)) or value is None else str(value)


def job_name(number: int, width: int, values: dict[str, Any]) -> str:
    """Return the name of a run folder: the job's number and values, truncated to NAME_LENGTH characters."""
    pieces = [f"{number:0{width}d}"]
    for key, value in values.items():
        text = f"{value:.4g}" if isinstance(value, float) else str(value)
        numeric = isinstance(value, (int, float))
        pieces.append(f"{key.rpartition('.')[2]}_{text}" if numeric else text)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(pieces))[:NAME_LENGTH].rstrip("-_.")


def group_key(config: dict[str, Any], numbers: Sequence[str] = NUMERIC_SETTINGS) -> str:
    """Return a hash of the config without `numbers`; jobs with equal keys have the same components, shapes and data."""
    masked = dict(config)
    for path in numbers:
        *parents, last = path.split(".")
        node = masked
        for key in parents:
            node[key] = dict(node.get(key) or {})
            node = node[key]
        node[last] = None
    return config_sha256(masked)


def packages(node: Any) -> set[str]:
    """Return the packages of all `_target_`s: the user named them on the command line, so jobs trust them."""
    if isinstance(node, dict):
        found = {str(node["_target_"]).partition(".")[0]} if "_target_" in node else set()
        return found.union(*map(packages, node.values()))
    return set().union(*map(packages, node)) if isinstance(node, list) else set()
