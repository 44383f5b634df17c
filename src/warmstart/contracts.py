"""The nouns every part speaks: what goes in, what comes out, and what a part promises.

Shapes: B batch, T positions, D width, F input features, C channels or classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from torch import Tensor

LossFunction = Callable[["Tensor", "Tensor"], "Tensor"]
Scale = float | Callable[[float], float]


class UserError(Exception):
    """Something the user can mend; the message says what, where and how in a line or two. The process ends with 2."""


class WriteError(Exception):
    """A file could not be written, since the disk is full, read-only or broken. The process ends with 1.

    Args:
        path: of the file.
        reason: what the disk answered.
    """

    def __init__(self, path: Path, reason: str):
        super().__init__(path, reason)
        self.path, self.reason = path, reason
        self.run: Path | None = None  # the folder of the run that failed by it

    def __str__(self) -> str:
        return f"cannot write {self.path}: {self.reason}"


class Interrupted(KeyboardInterrupt):
    """A signal interrupted the run in a folder, whose status is now `interrupted`. The process ends with 130.

    Args:
        run: the folder; None where the run is done already.
    """

    def __init__(self, run: Path | None):
        super().__init__(run)
        self.run = run


class CannotBatch(Exception):
    """These jobs cannot be trained together; the message says why. One after the other they can."""


class GroupFailed(Exception):
    """Jobs that were trained together failed as a group; each may yet do well alone."""


class Unmet(Exception):
    """The result is not the one that the command line requires; all is done and written. The process ends with 4."""


class Pruned(Exception):
    """A search stops this run early: others do better with what it has been given so far."""


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

    def take(self, index: Any) -> Rows:
        """The rows of these numbers."""
        x = self.x.iloc[index] if hasattr(self.x, "iloc") else self.x[index]
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
    shifts: Mapping[str, Rows] = field(default_factory=dict)  # further test rows, spoilt or others; they choose nothing


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


class Preprocessor(Protocol):
    """Fitted on the generic data, saved with the weights, reused by finetuning and prediction.

    One of a user's tables has `names`, the columns that these must have, and may add those `filled` for a prediction.
    """

    def fit(self, x: Any) -> None:
        """Learn the settings from raw training inputs."""

    def encode(self, x: Any) -> Any:
        """Turn raw inputs into one tensor (N, ...), or rows of different lengths, once, when the data is set up."""

    def __call__(self, x: Tensor) -> Tensor:
        """Scale a batch of encoded inputs, on the device; if large, `held_out_batch` of them fit in memory."""

    def read(self, path: str) -> Inputs:
        """Raw inputs from a user's file or folder, blank lines counted in their row numbers."""

    def state(self) -> dict[str, Any]:
        """Everything needed to rebuild it, as plain JSON."""


class Source(Protocol):
    """One data set. `offers` names the kinds of target it has: category, categories, value, span, tags, text."""

    modality: ClassVar[str]
    offers: ClassVar[frozenset[str]]

    def load(self, target: str | None) -> Splits:
        """Read and check the data; raise UserError where it is missing or broken."""

    def preprocessor(self) -> Preprocessor:
        """A preprocessor that is not fitted yet."""


class Augment(Protocol):
    """Raw training batches to scaled, randomly changed ones; `scale` alone is for validation."""

    scale: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        """Scaled and changed, of the same shape."""

    def mixed(self, batch: Batch) -> Batch:
        """A changed batch, each example mixed with another where that is asked."""


class Backbone(Protocol):
    """Inputs to features. `abilities` names what an objective may ask of it: a set, or a function of its settings.

    One that can `hide` positions also has `targets(x)`, with its inverse `assemble(targets)`: for each position
    `target_size` values (B, T, P) or, by its `target_kind`, a class number (B, T) below `target_size`. `maskable(x)`
    (B, T) says which positions may be hidden, and `words(x)` (B, T) which belong together. One that can also `skip`
    positions takes `visible` (B, V), the numbers of those to compute: `mask` is of all positions, tokens are of these.
    One that brings a head of its own form for a task has `head(task, outputs)`, and one that another library can load
    has `exported(task, head, spec)`; tasks are named as in transformers, such as causal_lm. A class (or its stem) that
    is `one_size` takes no inputs of another size than its spec's.
    """

    modalities: ClassVar[frozenset[str]]
    abilities: ClassVar[frozenset[str] | Callable[..., frozenset[str]]]
    width: int

    def __call__(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Features of x, `hidden` (B, T) being replaced. Where tokens are fewer, `token_mask(mask)` is theirs."""

    def depths(self) -> dict[str, int]:
        """Parameter-name prefix to depth: 0 at the input, rising to the output."""


class Objective(Protocol):
    """A head and a loss on a backbone's features; a supervised one also has `monitor`, `predict`, `scores`, `answer`.

    `monitor` is the metric that chooses the best checkpoint and max or min; `predict(backbone, batch)` gives outputs
    (B, C), `scores(outputs, y)` one value per example (B,) whose mean is that metric, or None where no mean is, and
    `answer(outputs, batch, spec)` turns outputs into one plain record per example. `task` names the form of its head.
    `predicts` is the kind of value that the loss takes; where None, that of the backbone's targets, and `default_loss`
    has one for each; `made_of` is what these must be, where it is another. `summary(loss, spec)`, where a
    self-supervised one has it, is what else the held-out loss says, by name. One with `mixes` takes mixed batches.
    `follow(backbone)`, if it has one, is called before the first batch of each optimizer step of a pretraining.
    """

    target: ClassVar[str | None]
    predicts: ClassVar[str | None]
    needs: ClassVar[frozenset[str]]
    default_loss: ClassVar[LossFunction | Mapping[str, LossFunction]]
    task: ClassVar[str | None]
    views: ClassVar[int]

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """The loss of a batch, of `views` copies along B; `fit(y)`, if it has one, was given all training targets."""

    def metrics(self) -> dict[str, Any]:
        """Named torchmetrics that take (outputs, targets); empty for self-supervised objectives."""


class Strategy(Protocol):
    """Which parameters train, when, and how fast. One may have:

    `restarts`, shares of the run at which the schedule begins anew; `prepare(backbone)`, given it at its start point;
    `settle(backbone)`, which undoes changes at the end and returns what was learned, as `run.adapter.merge` takes it;
    `step(objective, backbone, batch)` in place of the objective's own; `race` in place of `claims`, to choose another.
    """

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Patterns of names (`backbone.*`, `objective.*`), each claimed once, to scale: 0, frozen, or by share done."""
