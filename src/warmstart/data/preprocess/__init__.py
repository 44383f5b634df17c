"""Preprocessors: one module per kind of raw input, each with a class `Preprocessor`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor


def rebuild_for_prompts(state: dict[str, Any]) -> Preprocessor:
    """Create a preprocessor of prompts: of conversations, if its tokenizer has a chat template.

    Raises:
        UserError: as `rebuild`.
    """
    from warmstart.data.preprocess import chat, chat_template

    found = rebuild(state)
    if state["kind"] != "text" or chat_template.own_template(state.get("files") or {}) is None:
        return found
    return chat.Preprocessor.of(found, None, "assistant")


def rebuild(state: dict[str, Any]) -> Preprocessor:
    """Create a preprocessor from its `state()`; its kind is the name of a module of this package.

    Raises:
        UserError: the kind is unknown, or the state is damaged.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    settings = dict(state) if isinstance(state, dict) else {}
    kind = settings.pop("kind", None)
    if kind not in known:
        raise UserError(f"unknown kind of preprocessor {kind}; known kinds: {', '.join(known)}")
    module = importlib.import_module(f"{__name__}.{kind}")
    try:
        preprocessor = module.Preprocessor(**settings)
        preprocessor.vocabulary  # noqa: B018, parses the tokenizer
        return preprocessor
    except Exception as error:  # tokenizers raises no more specific class
        raise UserError(f"the saved preprocessor is damaged: {error}") from error
