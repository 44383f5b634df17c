"""Checks of settings against the signature of the component, which is their schema."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart.config.validate import nearest, target_of
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.protocols import Source
from warmstart.core.ranges import describe, is_valid, shown

QUICK = 2**22  # bytes of a file that may be read twice
# Arguments that are known only at run time, by config group; no setting may have these names.
FACTS = {
    "backbone": ("spec", "weights"),
    "stem": ("spec", "width"),
    "objective": ("backbone", "spec", "loss"),
    "loss": ("outputs", "targets"),
    "optimizer": ("params",),
    "scheduler": ("step", "total"),
    "tokenizer": ("columns", "dialect", "tokenizer", "roles", "types", "files"),
    "frames": ("mean", "std", "column", "dialect", "cluster"),
    "logger.": ("save_dir", "purge_step"),
}


def check_settings(
    function: Callable[..., Any], settings: Mapping[str, Any], place: str, is_complete: bool = True
) -> None:
    """Raise an error if a function has no such setting or the value has another type.

    Args:
        function: a function or class; partials among the settings are checked as well.
        settings: its keyword arguments, without those known only at run time.
        place: key of the settings in the config.
        is_complete: whether required arguments must be among the settings or FACTS; a user's own code may have others.

    Raises:
        UserError: with the setting, its value and the expected type.
    """
    hints = inspect.signature(function, eval_str=True).parameters
    group, dot, name = place.rpartition(".")
    facts = FACTS.get(name) or FACTS.get(group + dot, ())
    is_open = any(hint.kind is inspect.Parameter.VAR_KEYWORD for hint in hints.values())
    for name in settings:
        if name in facts or (name not in hints and not is_open):
            known = [option for option in hints if option not in facts]
            raise UserError(
                f"{place}.{name}: {function.__name__} has no such setting. {nearest(name, known, 'It has')}"
            )
    bare = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    needed = [name for name, hint in hints.items() if hint.kind in bare and hint.default is hint.empty]
    for name in needed if is_complete else ():
        if name not in settings and name not in facts:
            raise UserError(f"{place}.{name} is missing: {function.__name__} requires it, so remove ~{place}.{name}")
    is_ours = function.__module__.split(".")[0] not in ("torch", "pytorch_lightning")
    for name, value in settings.items():
        if hasattr(value, "func") and hasattr(value, "keywords"):
            check_settings(value.func, value.keywords, f"{place}.{name}")
            continue
        for key, inner in value.items() if isinstance(value, Mapping) else ():
            if hasattr(inner, "func") and hasattr(inner, "keywords"):
                check_settings(inner.func, inner.keywords, f"{place}.{name}.{key}")
        if is_ours and name in hints and not is_valid(value, hints[name].annotation):
            raise UserError(f"{place}.{name}={shown(value)}: must be {describe(hints[name].annotation)}")


def check_data(node: DictConfig | None, place: str) -> None:
    """Raise an error if small data cannot be read, before torch is imported.

    Raises:
        UserError: as the source's `load`, or a setting has an invalid type.
    """
    source = target_of(node, place) if node and "_target_" in node else None
    if not (isinstance(source, type) and issubclass(source, Source) and source.is_quick):
        return
    path = Path(str(node.root))
    is_large = path.is_file() and path.stat().st_size > QUICK
    if is_large or path.is_dir() or not (path.suffix or path.exists()):  # without a suffix it is a data set of the Hub
        return
    taken = inspect.signature(source).parameters.keys() & node.keys()
    settings = {**OmegaConf.to_container(node, resolve=True), "tokenizer": dict}
    with screen.quiet():
        given = {name: settings[name] for name in taken}
        check_settings(source, given, place)
        source(**given).load(None)
