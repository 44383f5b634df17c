"""What passes from data to model: rows, splits, batches, features, and the output of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Rows:
    """Raw examples as a source read them; `x` is an array (N, ...) or a table, `y` an array (N, ...) or None."""

    x: Any
    y: Any = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def classes(self) -> Any:
        """Class numbers (N,), where these are the targets, or None."""
        return self.y if self.y is not None and self.y.ndim == 1 and self.y.dtype.kind == "i" else None

    @property
    def is_frame(self) -> bool:
        """Whether the inputs are a frame of pandas, which is not imported for it."""
        return hasattr(self.x, "iloc")

    def take(self, index: Any) -> Rows:
        """The rows of these numbers."""
        x = self.x.iloc[index] if self.is_frame else self.x[index]
        return Rows(x, None if self.y is None else self.y[index])


@dataclass
class Inputs:
    """What a user gives to predict for: raw inputs, the row number of each, and its file where each has one.

    `parts`, where files are cut, are further fields of each prediction that say which part of its file it is of.
    """

    x: Any
    rows: Sequence[int]
    files: Sequence[str] | None = None
    parts: Sequence[Mapping[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class Splits:
    """The three disjoint parts of a data set; `unlabelled` rows may join the generic training data."""

    train: Rows
    validation: Rows
    test: Rows
    labels: tuple[str, ...] = ()
    unlabelled: Rows | None = None
    shifts: Mapping[str, Rows] = field(default_factory=dict)  # further test rows, corrupted or others


@dataclass
class Batch:
    """One step's examples: inputs (B, ...), targets (B, ...) or None, and a mask (B, T), None where all is valid.

    The mask tells valid positions from padding; whole numbers in it tell a row's documents apart, which do not see each
    other, 0 being padding. In a mask of bytes (uint8) they are 1 + the token type, and all see each other. A loader
    yields inputs as they are stored; a module scales them before an objective sees them. Where training mixed examples,
    `share` (B,) of each is its own, and the rest that of targets `partner`.
    """

    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None
    partner: Tensor | None = None
    share: Tensor | None = None

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        """The same batch on a device; Lightning moves it by this instead of copying the dataclass field by field."""
        return Batch(*(x if x is None else x.to(device, non_blocking=non_blocking) for x in vars(self).values()))


@dataclass
class Features:
    """What a backbone makes of a batch: position-wise tokens (B, T, D) and one vector per example (B, D)."""

    tokens: Tensor
    pooled: Tensor


@dataclass
class StepOutput:
    """A step's mean loss (scalar), of how many values, raw outputs (B, C), and `measures`: further means, by name."""

    loss: Tensor
    count: int
    outputs: Tensor | None = None
    measures: dict[str, Tensor] = field(default_factory=dict)
