"""What one preprocessed example and its target look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by number, or None: `special` are no data, `joined` continue words; `only_pads`: padding is no text."""

    size: int
    padding: int
    unknown: int | None = None
    begin: int | None = None
    end: int | None = None
    mask: int | None = None
    special: tuple[int, ...] = ()
    joined: tuple[int, ...] = ()
    only_pads: bool = False


@dataclass(frozen=True)
class Spec:
    """What one preprocessed example and its target look like.

    `labels` names the outputs; `center` and `spread` are the mean and standard deviation of real-valued targets.
    Those made of tokens have a `vocabulary` and `bytes_per_token` of raw form; those that last, `seconds` per position.
    """

    modality: str
    shape: tuple[int, ...]
    labels: tuple[str, ...] = ()
    center: tuple[float, ...] = ()
    spread: tuple[float, ...] = ()
    vocabulary: Vocabulary | None = None
    bytes_per_token: float = 0.0
    seconds: float = 0.0

    @property
    def outputs(self) -> int:
        """How many outputs the target asks for."""
        return len(self.labels)
