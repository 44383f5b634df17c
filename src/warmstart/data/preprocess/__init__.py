"""Preprocessors: one module per kind of raw input, each with a class `Preprocessor`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor


def rebuild(state: dict[str, Any]) -> Preprocessor:
    """The preprocessor whose `state()` this is; its kind must be a module of this package.

    Raises:
        UserError: the kind is not one of ours, or the state is damaged.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    settings = dict(state) if isinstance(state, dict) else {}
    kind = settings.pop("kind", None)
    if kind not in known:
        raise UserError(f"a preprocessor of kind {kind} is not known; known kinds: {', '.join(known)}")
    module = importlib.import_module(f"{__name__}.{kind}")
    try:
        preprocessor = module.Preprocessor(**settings)
        preprocessor.vocabulary  # noqa: B018, which parses a tokenizer
        return preprocessor
    except Exception as error:  # tokenizers knows no other
        raise UserError(f"the saved preprocessor is damaged: {error}") from error
