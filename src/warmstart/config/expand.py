"""Checks and expansion of command-line overrides before Hydra composes the config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from warmstart.core.errors import UserError

PACKAGE = Path(__file__).parents[1]
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"
VALUE = re.compile(r"\+*[a-z_/]*=(null|true|false|nan|inf|[-+.\d]\S*|)")


def check_names(overrides: Sequence[str]) -> None:
    """Raise an error if an override assigns a value to a config group instead of the name of an option.

    Raises:
        UserError: with the override.
    """
    for override in overrides:
        if VALUE.fullmatch(override) and (CONF / override.lstrip("+").partition("=")[0]).is_dir():
            raise UserError(f"{override}: give a name, or remove it to use the option of the experiment")


LENGTH = re.compile(r"(\+*)((?:arm\.\w+\.)?trainer)\.max_(?:epochs|steps|time|tokens)=")


def with_given_length(overrides: Sequence[str]) -> list[str]:
    """Return the overrides without the experiment's minimum number of steps if a length of the training is given."""
    keys = {override.lstrip("+~").partition("=")[0] for override in overrides}
    found = []
    for override in overrides:
        found.append(override)
        if match := LENGTH.match(override):
            plus, trainer = match.groups()
            if f"{trainer}.min_steps" not in keys:
                keys.add(f"{trainer}.min_steps")
                found.append(f"{'++' if plus or trainer != 'trainer' else ''}{trainer}.min_steps=null")
    return found


WEIGHTS = re.compile(r"backbone\.(dtype|quantize)=")
HUB_START = re.compile(r"\+*init=['\"]?(shuffled:|random:)*hf:")


def with_hub_backbone(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with backbone=huggingface if they set the dtype of the weights of an `init=hf:`."""
    is_chosen = any(override.startswith("backbone=") for override in overrides)
    if is_chosen or not all(any(map(kind.match, overrides)) for kind in (WEIGHTS, HUB_START)):
        return list(overrides)
    return [*overrides, "backbone=huggingface"]


def expand(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with `data=[a,b]` expanded, and without a minimum length if a length is given.

    With a dtype of the weights of an `init=hf:`, the backbone is that of Hugging Face models. Overrides of
    `resume=PATH` and `sweep.resume=` are unchanged: they are compared with those of the run.

    Raises:
        UserError: the list of data sets is invalid.
    """
    resumed = [override for override in overrides if override.lstrip("+").startswith(("resume=", "sweep.resume="))]
    if resumed and resumed != ["resume=auto"]:
        return list(overrides)
    return with_given_length(with_tasks(with_hub_backbone(overrides)))


def with_tasks(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with `data=[a,b]` expanded: each data set becomes a task.

    `data=[x:table,y:table]` sets the names of the tasks. Unless an objective is given, it has one head per task.

    Raises:
        UserError: there are fewer than two data sets or several lists, or a name is invalid or repeated.
    """
    lists = [override for override in overrides if override.startswith("data=[")]
    if not lists:
        return list(overrides)
    entries = _entries(lists[-1])
    if len(lists) > 1 or entries is None:
        raise UserError(f"{lists[-1]}: give one list of data sets, such as data=[a,b]")
    options: dict[str, str] = {}
    for entry in entries:
        name, _, option = entry.rpartition(":")
        name = name or option
        if not re.fullmatch(r"[A-Za-z]\w*", name) or (CONF / name).is_dir():
            raise UserError(
                f"{lists[0]}: {name} is not a valid name of a task: give another, such as data=[x:{option},...]"
            )
        if name in options:
            raise UserError(
                f"{lists[0]}: two tasks have the name {name}: name them, such as data=[x:{option},y:{option}]"
            )
        options[name] = option
    if len(options) < 2:
        raise UserError(f"{lists[0]}: give two or more data sets, such as data=[a,b]")
    expanded = ["data=several", *(f"+data@data.sources.{name}={option}" for name, option in options.items())]
    if not any(override.startswith(("objective=", "stage=pretrain")) for override in overrides):
        expanded += ["objective=multitask", *(f"+objective.weights.{name}=1.0" for name in options)]
    first = next(index for index, value in enumerate(overrides) if "=" in value and not value.startswith("-"))
    return [*overrides[:first], *expanded, *(override for override in overrides[first:] if override != lists[0])]


def _entries(override: str) -> list[str] | None:
    """Return the entries of a list of names; None if Hydra parses no such list."""
    try:
        value: Any = OverridesParser.create().parse_override(override).value()
    except OverrideParseException:
        return None
    if not isinstance(value, list) or any(isinstance(entry, list | dict) for entry in value):
        return None
    return [str(entry) for entry in value]
