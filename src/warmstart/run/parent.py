"""The model that an adapter was saved beside: found where it was, and only as it was."""

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

MOST_ANCESTORS = 50  # adapters upon adapters; each is opened inside the opening of the next


def whole_weights(folder: Path, card: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the model in a folder, of which `tensors` are what is not its parent's.

    Raises:
        UserError: the parent is gone or changed, or the two do not go together.
    """
    try:
        digest, fresh = (card["parent"][key] for key in ("weights_sha256", "fresh"))
        place = found_parent(folder, card)
        pooling = card["backbone"].get("pooling")
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / CARD} is damaged: {error}") from error
    check_descent(folder, place)
    try:
        parent = open_parent(place, pooling)
    except UserError as error:
        raise UserError(
            f"{folder} holds what was learned beside {place}, which cannot be opened: {error}; "
            "put it back there, or both where they are as far apart as before"
        ) from error
    if parent.weights_sha256 != digest:
        raise UserError(
            f"{folder} holds what was learned beside {place}, whose weights have changed since (another SHA-256): "
            "put those back"
        )
    try:
        return applied(tensors, parent.weights, fresh)
    except (KeyError, RuntimeError, ValueError) as error:
        raise UserError(f"{folder} is damaged: it does not fit {place}: {error}") from error


def found_parent(folder: Path, card: dict[str, Any]) -> str:
    """Return where an adapter's parent is: at its path, or, where all was moved or copied, as far from it as it was."""
    place, relative = card["parent"]["path"], card["parent"].get("relative")
    if Init.parse(place).kind == "hub" or Path(place).is_dir() or not isinstance(relative, str):
        return place
    moved = folder / relative
    return str(moved.resolve()) if moved.is_dir() else place


def check_descent(folder: Path, place: Any) -> None:
    """Follow the cards of parents up to a model that is none's adapter, or that whoever opens it refuses.

    Args:
        folder: of an adapter.
        place: its parent, as its card names it.

    Raises:
        UserError: a model is its own parent, by way of others or not, or has too many ancestors.
    """
    seen = [folder.resolve()]
    while isinstance(place, str) and Init.parse(place).kind != "hub":
        found = Path(place).resolve()
        if found == seen[0]:
            what = "as its own parent" if len(seen) == 1 else f"as an ancestor of its parent {seen[1]}"
            raise UserError(f"{folder / CARD} names the model {what}")
        if found in seen or len(seen) > MOST_ANCESTORS:
            what = "is among its own ancestors" if found in seen else f"has more than {MOST_ANCESTORS} ancestors"
            raise UserError(f"{folder / CARD}: {found if found in seen else folder} {what}: not opened")
        seen.append(found)
        try:
            place = found_parent(found, load_json(found / CARD))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return


def open_parent(place: str, pooling: str | None) -> SavedModel:
    """What `place` names: the folder of a saved backbone, or a Hugging Face model.

    Raises:
        UserError: it is missing or damaged.
    """
    if Init.parse(place).kind == "hub":
        from warmstart.huggingface.load import open_hub  # imports transformers

        return open_hub(place, pooling)
    return open_model(Path(place))
