"""The form of a preprocessed example and its target."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Vocabulary:
    """Token numbers; `special` tokens are not data, `joined` ones continue words; `only_pads`: no text has padding."""

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
    """The form of a preprocessed example and its target.

    `labels` are the names of the outputs; `center` and `spread` are the mean and standard deviation of real-valued
    targets. Tokenized inputs have a `vocabulary` and `bytes_per_token` of the raw text; audio has `seconds` per
    position.
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
        """The number of outputs."""
        return len(self.labels)
