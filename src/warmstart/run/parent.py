"""Merges an adapter delta with the weights of its parent model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.reading import load_json
from warmstart.core.saved_model import SavedModel
from warmstart.run.adapter import applied
from warmstart.run.saved import CARD, open_model

MAX_ANCESTORS = 50  # of an adapter of an adapter; opening is recursive


def merged_weights(folder: Path, card: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of the model in a folder: those of its parent with the adapter delta `tensors`.

    Raises:
        UserError: the parent is missing, changed, or incompatible.
    """
    try:
        digest, reinitialize = (card["parent"][key] for key in ("weights_sha256", "reinitialize"))
        path = parent_path(folder, card)
        pooling = card["backbone"].get("pooling")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / CARD} is damaged: {error}") from error
    check_ancestors(folder, path)
    try:
        parent = open_parent(path, pooling)
    except UserError as error:
        raise UserError(
            f"{folder} is an adapter of {path}, which cannot be opened: {error}; "
            "restore the parent there, or move both folders together"
        ) from error
    if parent.weights_sha256 != digest:
        raise UserError(
            f"{folder} is an adapter of {path}, whose weights have changed (SHA-256): restore the original weights"
        )
    try:
        return applied(tensors, parent.weights, reinitialize)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder} is damaged: it is incompatible with {path}: {error}") from error


def parent_path(folder: Path, card: dict[str, Any]) -> str:
    """Return the path of an adapter's parent: the recorded path, or the relative one if both folders were moved."""
    path, relative = card["parent"]["path"], card["parent"].get("relative")
    if Init.parse(path).kind == "hub" or Path(path).is_dir() or not isinstance(relative, str):
        return path
    moved = folder / relative
    return str(moved.resolve()) if moved.is_dir() else path


def check_ancestors(folder: Path, path: Any) -> None:
    """Check the chain of parents for cycles and length, up to a model without a parent or with an unreadable card.

    Args:
        folder: of an adapter.
        path: of its parent, from its card.

    Raises:
        UserError: a model is its own ancestor, or has too many ancestors.
    """
    seen = [folder.resolve()]
    while isinstance(path, str) and Init.parse(path).kind != "hub":
        found = Path(path).resolve()
        if found == seen[0]:
            role = "as its own parent" if len(seen) == 1 else f"as an ancestor of its parent {seen[1]}"
            raise UserError(f"{folder / CARD} names the model {role}")
        if found in seen or len(seen) > MAX_ANCESTORS:
            problem = "is its own ancestor" if found in seen else f"has more than {MAX_ANCESTORS} ancestors"
            raise UserError(f"{folder / CARD}: {found if found in seen else folder} {problem}: not opened")
        seen.append(found)
        try:
            path = parent_path(found, load_json(found / CARD))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return


def open_parent(path: str, pooling: str | None) -> SavedModel:
    """Open a saved backbone or a Hugging Face model.

    Raises:
        UserError: the model is missing or damaged.
    """
    if Init.parse(path).kind == "hub":
        from warmstart.huggingface.load import open_hub  # imports transformers

        return open_hub(path, pooling)
    return open_model(Path(path))
