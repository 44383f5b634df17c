"""Checks of the code and the folders that a saved record or config refers to."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.reading import check_name

# Modules that a saved config may refer to, by config group.
TRUSTED = {
    **{group: (f"warmstart.{group}.",) for group in ("data", "objective", "loss", "strategy", "average", "baseline")},
    "backbone": (
        "warmstart.backbone.",
        *(
            f"warmstart.huggingface.{modality}.HuggingFace"
            for modality in ("text", "image", "speech", "seq2seq", "whisper")
        ),
    ),
    "scheduler": ("warmstart.training.schedule.",),
    "optimizer": ("torch.optim.", "warmstart.training.muon."),
    "trainer": ("pytorch_lightning.Trainer",),
    # other Lightning loggers may send data to an address in their settings
    "logger": ("warmstart.training.logger.", "pytorch_lightning.loggers.CSVLogger"),
    "visualization": ("warmstart.training.visualization.",),
}

FOR_HUB = re.compile(r"\$\{for_hub:[-+.\deE]+, ?[-+.\deE]+\}")  # of two numbers; remains in a saved transfer


def check_targets(config: dict[str, Any], place: Path, trust: tuple[str, ...] = ()) -> None:
    """Raise an error if a config read from `place` refers to code outside the package of its group.

    Raises:
        UserError: with the code, and how to trust it.
    """
    for group, target in _targets(config):
        if "${" in target:
            raise UserError(f"{place} contains {target}, but a saved config has no interpolations: it was edited")
        if not _trusted(group, target, trust):
            raise UserError(
                f"{place} refers to {target}, which is not part of warmstart; "
                f"if that code is yours, add trust=[{target.split('.')[0]}]"
            )


def _targets(node: Any, group: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield group, str(node["_target_"])
        for key, value in node.items():
            if isinstance(key, str) and "${" in key:
                yield group, key
            yield from _targets(value, key if key in TRUSTED else group)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value, group)
    elif isinstance(node, str) and "${" in node and not FOR_HUB.fullmatch(node):
        yield group, node


def _trusted(group: str, target: str, trust: tuple[str, ...]) -> bool:
    """Return whether a target is defined, not only imported, in the package of its group."""
    if target.startswith(tuple(f"{name}." for name in trust)):
        return True
    if group not in TRUSTED or not target.startswith(TRUSTED[group]):
        return False
    module, _, name = target.rpartition(".")
    try:
        home = getattr(importlib.import_module(module), name).__module__
    except (ImportError, AttributeError):
        return False
    return home.startswith(tuple(place.rpartition(".")[0] for place in TRUSTED[group]))


def check_names(record: dict[str, Any]) -> None:
    """Raise ValueError if the names in the path of a run's folder would leave its parent folder."""
    for key in ("id", "stage", "experiment"):
        if record.get(key) is not None:
            check_name(key, record[key], folders=key == "experiment")
