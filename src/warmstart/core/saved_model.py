"""A saved backbone in memory: tensors by name, and the spec of its data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.core.spec import Spec, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class SavedModel:
    """A backbone read from a folder and checked: tensors by name, and the spec of its data."""

    folder: Path
    card: dict[str, Any]
    spec: Spec
    weights_sha256: str
    weights: dict[str, Tensor]
    head: dict[str, Tensor]
    preprocessor: dict[str, Any]

    @property
    def name(self) -> str:
        """The folder of the run; for a backbone outside a run, its own folder."""
        return str(self.folder.parent if self.folder.name == "model" else self.folder)


def spec_record(spec: Spec) -> dict[str, Any]:
    """Return a spec as plain JSON, without `vocabulary.joined`, which only training needs."""
    record = dataclasses.asdict(spec)
    if spec.vocabulary is not None:
        record["vocabulary"]["joined"] = ()
    return record


def spec_of(record: dict[str, Any]) -> Spec:
    """Return the spec of a record that was read from JSON: the inverse of `spec_record`."""

    def frozen(values: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    vocabulary = record.get("vocabulary")
    return Spec(**frozen({**record, "vocabulary": vocabulary and Vocabulary(**frozen(vocabulary))}))
