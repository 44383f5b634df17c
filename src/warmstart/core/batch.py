"""Data classes that data, models and objectives exchange: rows, splits, batches, features, step outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


@dataclass
class Rows:
    """Raw examples of a source.

    `x` is an array (N, ...) or a table, `y` an array (N, ...) or None. `cluster` (N,) names the cluster of each row,
    such as its speaker; rows of one cluster are not independent. None: all rows are independent.
    """

    x: Any
    y: Any = None
    cluster: Any = None

    def __len__(self) -> int:
        return len(self.x)

    @property
    def classes(self) -> Any:
        """Class numbers (N,) if the targets are classes; else None."""
        return self.y if self.y is not None and self.y.ndim == 1 and self.y.dtype.kind == "i" else None

    @property
    def is_frame(self) -> bool:
        """Whether the inputs are a pandas DataFrame; tested without importing pandas."""
        return hasattr(self.x, "iloc")

    def take(self, index: Any) -> Rows:
        """Return the rows at these indices."""
        x = self.x.iloc[index] if self.is_frame else self.x[index]
        y, cluster = (None if values is None else values[index] for values in (self.y, self.cluster))
        return Rows(x, y, cluster)


@dataclass
class Inputs:
    """Inputs of a prediction: raw inputs, the row number of each, and its file if there are files.

    If files are split into several inputs, `parts` has further fields of each prediction that identify its part.
    `cluster` reads the cluster of each input (N,), if there is the column of the training data.
    """

    x: Any
    rows: Sequence[int]
    files: Sequence[str] | None = None
    parts: Sequence[Mapping[str, Any]] | None = None
    cluster: Callable[[], Any] | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Prompt:
    """What a language model continues: a text, or the messages of a conversation.

    `row` is the row number in its file, and `reference` the known completion, if there are any.
    """

    given: str | list[dict[str, Any]]
    row: int | None = None
    reference: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the prompt as plain JSON, without the reference."""
        where = {} if self.row is None else {"row": self.row}
        return {**where, "prompt" if isinstance(self.given, str) else "messages": self.given}


@dataclass
class Splits:
    """The three disjoint splits of a data set; `unlabelled` rows may be added to the generic training data."""

    train: Rows
    validation: Rows
    test: Rows
    labels: tuple[str, ...] = ()
    unlabelled: Rows | None = None
    shifts: Mapping[str, Rows] = field(default_factory=dict)  # further test splits, such as corrupted ones

    @property
    def keeps_clusters(self) -> bool:
        """Whether the rows have clusters, and no cluster is in both train and test."""
        train, test = self.train.cluster, self.test.cluster
        return train is not None and test is not None and set(train).isdisjoint(test)


class Part(NamedTuple):
    """Rows `start` to `stop` of a global batch of `total` rows.

    If there are fewer rows than processes, some parts are `padding`: a row of another part, with a weight of 0.
    """

    start: int
    stop: int
    total: int
    padding: bool = False

    @property
    def share(self) -> float:
        """Share of the rows that this part contributes."""
        return 0.0 if self.padding else (self.stop - self.start) / self.total

    def of(self, x: Tensor) -> Tensor:
        """Return the rows of this part of a tensor (K * total, ...), for K views of the global batch."""
        return x.unflatten(0, (-1, self.total))[:, self.start : self.stop].flatten(0, 1)


@dataclass
class Batch:
    """The examples of a step: inputs (B, ...), targets (B, ...) or None, and a mask (B, T) or None if all are valid.

    The mask is 0 at padding; different positive integers in a row separate documents, and attention is limited to the
    same document. In a uint8 mask the values are 1 + the token type, and all valid positions attend to each other. A
    loader yields stored inputs; a module scales them before it calls the objective. If training mixes examples,
    `share` (B,) is the weight of an example's own target, and the rest that of its target in `partner`. `unlabelled`
    has rows without targets, which a strategy may use; of those, `strong` is a second, strongly augmented view of x.
    `reference` (B, ...) is what an objective computes of the initial weights (`Objective.reference`). `rating` (B,) is
    whether the completion of a row is desirable, if rows are rated. `part` are the rows of the global batch that it
    has, if several processes train.
    """

    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None
    partner: Tensor | None = None
    share: Tensor | None = None
    unlabelled: Batch | None = None
    strong: Tensor | None = None
    reference: Tensor | None = None
    rating: Tensor | None = None
    part: Part | None = None

    def to(self, device: Any, non_blocking: bool = False) -> Batch:
        """Return the batch on a device; Lightning calls this instead of copying the dataclass field by field."""
        own = {name: x for name, x in vars(self).items() if x is not None and name != "part"}
        return Batch(**{name: x.to(device, non_blocking=non_blocking) for name, x in own.items()}, part=self.part)

    def rows(self, part: Part) -> Batch:
        """Return the rows of a part of this batch, which is a global one; not those of its `unlabelled` rows.

        Targets are a tensor, or have a method `rows`.
        """
        names = ("x", "mask", "partner", "share", "strong", "reference", "rating")
        own = {name: x if x is None else part.of(x) for name in names for x in [getattr(self, name)]}
        if self.y is not None:
            own["y"] = part.of(self.y) if hasattr(self.y, "unflatten") else self.y.rows(part)
        return Batch(**own, part=part)


@dataclass
class Features:
    """Outputs of a backbone: one vector per position (B, T, D) and one per example (B, D)."""

    tokens: Tensor
    pooled: Tensor


@dataclass
class StepOutput:
    """The mean loss (scalar) of `count` values, raw outputs (B, C), and `measures`: further means by name."""

    loss: Tensor
    count: int
    outputs: Tensor | None = None
    measures: dict[str, Tensor] = field(default_factory=dict)
