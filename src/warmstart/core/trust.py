"""What a record or config that was read from a file may name: which code, and which folders."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.reading import check_name

# What a saved config may name, by the group it stands in.
TRUSTED = {
    **{group: (f"warmstart.{group}.",) for group in ("data", "objective", "loss", "strategy", "average")},
    "backbone": (
        "warmstart.backbone.",
        *(f"warmstart.huggingface.{modality}.HuggingFace" for modality in ("text", "image", "speech")),
    ),
    "scheduler": ("warmstart.training.schedule.",),
    "optimizer": ("torch.optim.", "warmstart.training.muon."),
    "trainer": ("pytorch_lightning.Trainer",),
    # another of Lightning's may send what it logs to where its settings say
    "logger": ("warmstart.training.logger.", "pytorch_lightning.loggers.CSVLogger"),
    "visualization": ("warmstart.training.visualization.",),
}


def check_targets(config: dict[str, Any], place: Path, trust: tuple[str, ...] = ()) -> None:
    """Refuse a config that was read from `place` and names code that is not a part of its group.

    Raises:
        UserError: names the code, and how to trust it.
    """
    for group, target in _targets(config):
        if "${" in target:
            raise UserError(f"{place} holds {target}, but a saved config has no interpolations: it was changed")
        if not _trusted(group, target, trust):
            raise UserError(
                f"{place} names {target}, which is not a part of warmstart; "
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
    elif isinstance(node, str) and "${" in node:
        yield group, node


def _trusted(group: str, target: str, trust: tuple[str, ...]) -> bool:
    """Whether a target is defined in its group's package: not merely reachable through it, as an import would be."""
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
    """Raise ValueError where the names that a run's folder is made of lead out of it."""
    for key in ("id", "stage", "experiment"):
        if record.get(key) is not None:
            check_name(key, record[key], folders=key == "experiment")
