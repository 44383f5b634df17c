"""Settings held against the signature of what they are for: it is the schema, so a part states its settings once."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from warmstart.contracts import UserError


def check_settings(function: Callable[..., Any], settings: Mapping[str, Any], place: str) -> None:
    """Refuse settings that a function or class does not have, or of another type than it says.

    Args:
        function: what will be called; nested partials among the settings are checked too.
        settings: its keyword arguments, those known only at run time left out.
        place: where the settings stand in the config.

    Raises:
        UserError: names the setting, its value and what it should be.
    """
    plain = inspect.signature(function)
    try:
        plain.bind_partial(**settings)
    except TypeError as error:
        raise UserError(f"{place}: {function.__name__} {error}") from error
    if function.__module__.split(".")[0] in ("torch", "pytorch_lightning"):
        return
    hints = inspect.signature(function, eval_str=True).parameters
    for name, value in settings.items():
        if hasattr(value, "func") and hasattr(value, "keywords"):
            check_settings(value.func, value.keywords, f"{place}.{name}")
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                if hasattr(inner, "func") and hasattr(inner, "keywords"):
                    check_settings(inner.func, inner.keywords, f"{place}.{name}.{key}")
        elif name in hints and not _fits(value, hints[name].annotation):
            shown = "null" if value is None else value
            raise UserError(f"{place}.{name}={shown}: must be {plain.parameters[name].annotation}")


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a hinted type; hints beyond numbers, text, lists and unions are not judged."""
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value)
    return isinstance(value, hint) if hint in (str, bool, types.NoneType) else True
