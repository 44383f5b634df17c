"""From a command line to jobs: every combination of its values, composed once and frozen."""

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
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.resolve import adopt
from warmstart.config.validate import check, explain
from warmstart.core.errors import UserError
from warmstart.data.schema import missing_columns
from warmstart.run.identity import config_sha256
from warmstart.run.lineage import TUNED, latest
from warmstart.run.manifest import Job

# Where a stage's config may say `latest`, and of which stage the run is that it means.
LATEST = {"finetune": ("init", "pretrain"), "evaluate": ("run", TUNED), "predict": ("run", TUNED)}
NAME_LENGTH = 80
# Settings that change numbers, not what is computed.
NUMBERS = ("seed", "init", "optimizer.lr", "optimizer.weight_decay", "loss.label_smoothing")


class Composer:
    """Words to configs, as Hydra composes them from conf folders, of which the first has `train.yaml`.

    A config is composed once per choice of groups; words that only set values are applied to that.
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

    def parse(self, words: Sequence[str]) -> list[Override]:
        """Hydra's reading of each word."""
        for word in words:
            if word not in self.parsed:
                self.parsed[word] = self.parser.parse_overrides([word])[0]
        return [self.parsed[word] for word in words]

    def chooses(self, override: Override) -> bool:
        """Whether a word chooses an option of a group, and so changes what is composed."""
        return self.loader.repository.group_exists(override.key_or_group) or override.is_hydra_override()

    def config(self, words: Sequence[str]) -> dict[str, Any]:
        """The resolved config of one job, without what steers the sweep.

        Raises:
            UserError: a word names what is not there, or a value that no run can use.
        """
        overrides = self.parse(words)
        values = [override for override in overrides if not self.chooses(override)]
        choices = tuple(word for word in words if self.chooses(self.parsed[word]))
        # A value that is set again needs no fresh copy; one that is added, deleted or merged does.
        sets = all(o.type == OverrideType.CHANGE and not isinstance(o.value(), dict) for o in values)
        keys = tuple(override.key_or_group for override in values) if sets else None
        config = self.copies.get((choices, keys))
        if config is None or not sets:
            config = copy.deepcopy(self.base(choices))
            self.copies[choices, keys] = config
        self.loader._apply_overrides_to_config(values, config)
        checked = check(config)
        adopted = adopt(config)
        return freeze_latest(checked if adopted is config else check(adopted))

    def base(self, choices: tuple[str, ...]) -> DictConfig:
        """What the groups alone compose to."""
        if choices not in self.bases:
            base = self.loader.load_configuration("train", list(choices), RunMode.RUN)
            with open_dict(base):
                del base["hydra"], base["sweep"], base["resume"]
            self.bases[choices] = base
        return self.bases[choices]


def freeze_latest(config: dict[str, Any]) -> dict[str, Any]:
    """Write down which run `latest` is now, so that a run that ends later changes no job."""
    key, stage = LATEST.get(config["stage"], ("", ""))
    if config.get(key) == "latest":
        config[key] = str(latest(Path(config["output_dir"]), stage, config["experiment"], missing_columns(config)).path)
    return config


def grid(composer: Composer, words: Sequence[str]) -> list[Job]:
    """Every combination of the values in `words`, in the order that Hydra's own sweeper has.

    Raises:
        UserError: a combination cannot be composed, or a word describes an interval, which only a search can use.
    """
    lists: dict[str, list[str]] = {}
    for override in composer.parse(words):
        key = override.get_key_element()
        if not override.is_sweep_override():
            lists[key] = [f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            lists[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise UserError(f"{override.input_line}: an interval is no list of values; give one, or add sweep=optuna")
    varied = [key for key, options in lists.items() if len(options) > 1]
    jobs, seen = [], set()
    combinations = list(itertools.product(*lists.values()))
    width = len(str(max(0, len(combinations) - 1)))
    for combination in combinations:
        by_key = dict(zip(lists, combination, strict=True))
        values = {key.lstrip("+"): plain(composer.parse([by_key[key]])[0].value()) for key in varied}
        job = Job(name_of(len(jobs), width, values), values, compose(composer, combination, varied))
        if job.sha256 not in seen:
            seen.add(job.sha256)
            jobs.append(job)
    if not jobs:
        empty = next(key for key, options in lists.items() if not options)
        raise UserError(f"{empty}: gives no value, so there is no job")
    return jobs


def compose(composer: Composer, words: Sequence[str], varied: Sequence[str] = ()) -> dict[str, Any]:
    """One job's config; an error names the job by what is its own."""
    try:
        return composer.config(words)
    except (UserError, HydraException, OmegaConfBaseException, ValueError) as error:
        own = " ".join(word for word in words if word.partition("=")[0] in varied)
        raise UserError(f"{explain(error)}{f' (job {own})' if own else ''}") from error


def plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value if isinstance(value, (bool, int, float)) or value is None else str(value)


def name_of(number: int, width: int, values: dict[str, Any]) -> str:
    """A folder's name: the job's number, and its values as far as they fit."""
    words = [f"{number:0{width}d}"]
    for key, value in values.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        numeric = isinstance(value, (int, float))
        words.append(f"{key.rpartition('.')[2]}_{shown}" if numeric else shown)
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(words))[:NAME_LENGTH].rstrip("-_.")


def kind(config: dict[str, Any], numbers: Sequence[str] = NUMBERS) -> str:
    """The same for jobs that differ in numbers only, and so have the same parts, shapes and data."""
    own = dict(config)
    for path in numbers:
        *parents, last = path.split(".")
        node = own
        for part in parents:
            node[part] = dict(node.get(part) or {})
            node = node[part]
        node[last] = None
    return config_sha256(own)


def packages(node: Any) -> set[str]:
    """What the code that configs name belongs to: it stood on the command line, so a job need not doubt it."""
    if isinstance(node, dict):
        own = {str(node["_target_"]).partition(".")[0]} if "_target_" in node else set()
        return own.union(*map(packages, node.values()))
    return set().union(*map(packages, node)) if isinstance(node, list) else set()
