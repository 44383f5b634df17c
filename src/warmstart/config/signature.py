"""Settings held against the signature of what they are for: it is the schema, so a part states its settings once."""

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
# Arguments that are known only at run time, by the group that a config node stands in: no setting may name them.
FACTS = {
    "backbone": ("spec",),
    "stem": ("spec", "width"),
    "objective": ("backbone", "spec", "loss"),
    "loss": ("outputs", "targets"),
    "optimizer": ("params",),
    "scheduler": ("step", "total"),
    "tokenizer": ("columns", "dialect", "tokenizer", "roles", "types", "files"),
    "frames": ("mean", "std", "column", "dialect"),
    "logger.": ("save_dir", "purge_step"),
}


def check_settings(
    function: Callable[..., Any], settings: Mapping[str, Any], place: str, is_complete: bool = True
) -> None:
    """Refuse settings that a function or class does not have, or of another type than it says.

    Args:
        function: what will be called; nested partials among the settings are checked too.
        settings: its keyword arguments, those known only at run time left out.
        place: where the settings stand in the config.
        is_complete: whether all other arguments are known to be those of run time; a user's own code may have others.

    Raises:
        UserError: names the setting, its value and what it should be.
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
            raise UserError(f"{place}.{name} is missing: {function.__name__} needs it, so leave out ~{place}.{name}")
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
    """Refuse small data that cannot be read, before torch is imported for what it is read for.

    Raises:
        UserError: as the source's `load`, or a setting is of another type than it takes.
    """
    source = target_of(node, place) if node and "_target_" in node else None
    if not (isinstance(source, type) and issubclass(source, Source) and source.is_quick):
        return
    path = Path(str(node.root))
    is_large = path.is_file() and path.stat().st_size > QUICK
    if is_large or path.is_dir() or not (path.suffix or path.exists()):  # the last is a hub name
        return
    taken = inspect.signature(source).parameters.keys() & node.keys()
    settings = {**OmegaConf.to_container(node, resolve=True), "tokenizer": dict}
    with screen.quiet():
        given = {name: settings[name] for name in taken}
        check_settings(source, given, place)
        source(**given).load(None)
