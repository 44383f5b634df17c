"""The words of a command line as Hydra is to compose them."""

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
NO_NAME = re.compile(r"\+*[a-z_/]*=(null|true|false|nan|inf|[-+.\d]\S*|)")


def check_names(words: Sequence[str]) -> None:
    """Refuse a word that gives a config group a value instead of the name of an option.

    Raises:
        UserError: names the word.
    """
    for word in words:
        if NO_NAME.fullmatch(word) and (CONF / word.lstrip("+").partition("=")[0]).is_dir():
            raise UserError(f"{word}: give a name, or leave the word out for what the experiment chooses")


def expand(words: Sequence[str]) -> list[str]:
    """The words of a command line, with `data=[a,b]` as Hydra is to compose it: each data set a task of its own.

    `data=[x:table,y:table]` gives the tasks other names. Unless they say otherwise, the objective has a head for each.

    Raises:
        UserError: there are fewer than two data sets or several lists, or a name is no name or given twice.
    """
    lists = [word for word in words if word.startswith("data=[")]
    if not lists:
        return list(words)
    entries = _entries(lists[-1])
    if len(lists) > 1 or entries is None:
        raise UserError(f"{lists[-1]}: give one list of data sets, such as data=[a,b]")
    chosen: dict[str, str] = {}
    for entry in entries:
        name, _, option = entry.rpartition(":")
        name = name or option
        if not re.fullmatch(r"[A-Za-z]\w*", name) or (CONF / name).is_dir():
            raise UserError(f"{lists[0]}: {name} is no name for a task: give another, such as data=[x:{option},...]")
        if name in chosen:
            raise UserError(f"{lists[0]}: two tasks are called {name}: name them, such as data=[x:{option},y:{option}]")
        chosen[name] = option
    if len(chosen) < 2:
        raise UserError(f"{lists[0]}: name two or more data sets, such as data=[a,b]")
    spelled = ["data=several", *(f"+data@data.sources.{name}={option}" for name, option in chosen.items())]
    if not any(word.startswith(("objective=", "stage=pretrain")) for word in words):
        spelled += ["objective=multitask", *(f"+objective.weights.{name}=1.0" for name in chosen)]
    first = next(place for place, word in enumerate(words) if "=" in word and not word.startswith("-"))
    return [*words[:first], *spelled, *(word for word in words[first:] if word != lists[0])]


def _entries(word: str) -> list[str] | None:
    """The entries of the list that a word gives; None where Hydra reads no list, or one of other things than names."""
    try:
        value: Any = OverridesParser.create().parse_override(word).value()
    except OverrideParseException:
        return None
    if not isinstance(value, list) or any(isinstance(entry, list | dict) for entry in value):
        return None
    return [str(entry) for entry in value]
