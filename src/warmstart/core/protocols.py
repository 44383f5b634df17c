"""What each kind of component promises.

Shapes: B batch, T positions, D width, F input features, C channels or classes, H x W pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import Tensor, nn
from warmstart.core.batch import Batch, Inputs, Splits, StepOutput
from warmstart.core.spec import Spec, Vocabulary

LossFunction = Callable[["Tensor", "Tensor"], "Tensor"]


def taken(loss: LossFunction) -> frozenset[str]:
    """The kinds of prediction that a loss declares it `takes`; a function cannot inherit that it takes none."""
    return getattr(loss, "takes", frozenset())


Scale = float | Callable[[float], float]


class Preprocessor:
    """Fitted on the generic data, saved with the weights, reused by finetuning and prediction.

    One of a user's tables has `names`, the columns that these must have; `dialect` is how they are written. `white` is
    the brightest possible pixel, `seconds` are those from one position to the next, and `vocabulary` is what a model
    must know of tokens. Of large examples, only `held_out_batch` fit in memory at a time. Only where inputs are
    `spectral` can bands and positions of sound be changed, and only where it `pads_alike` does an exported model answer
    alike in a batch and one by one. `abilities` names what else only some can do:

    `skip`: `read` leaves broken files out where its `on_error` is skip.
    `fill_columns(x)`: a user's table with the columns that it lacks.
    `untruncated(x)`: encoded rows (data.storage.Ragged) without truncation, to be packed.
    `decode(numbers)`: the text of some tokens.
    `to_images(x)`: images (B, 3 or 1, H, W) of a scaled batch, black at 0 and white at 1.
    `overlap(generic, test)`: the raw test rows that the generic ones hold; others are compared as they are scaled.
    """

    abilities: ClassVar[frozenset[str]] = frozenset()
    spectral: ClassVar[bool] = True
    held_out_batch: ClassVar[int] = 512
    pads_alike: bool = True
    names: list[str] | None = None
    dialect: Any
    white: float = 1.0
    seconds: float = 0.0
    vocabulary: Vocabulary | None = None

    def fit(self, x: Any) -> None:
        """Learn the settings from raw training inputs."""
        raise NotImplementedError

    def adapted(self, own: Preprocessor) -> Preprocessor:
        """This one, fitted, for a data set with its `own` preprocessor."""
        return self

    def converted(self, x: Any, own: Preprocessor) -> Any:
        """Raw inputs of a data set with its `own` preprocessor, as this one takes them."""
        return x

    def encode(self, x: Any) -> Any:
        """Turn raw inputs into one tensor (N, ...), or rows of different lengths, once, when the data is set up."""
        raise NotImplementedError

    def align(self, x: Any, y: Any, target: str) -> tuple[Any, Any]:
        """Encode inputs and, unless None, targets whose places in them are known: span, tags, text."""
        raise NotImplementedError

    def __call__(self, x: Tensor) -> Tensor:
        """Scale a batch of encoded inputs, on the device."""
        return x

    def flat(self, x: Any) -> Any:
        """Encoded inputs as an array (N, F), for simple baselines."""
        return self(x).flatten(1).numpy()

    def comparison(self) -> Any:
        """How rows are found to be copies, as a data.duplicates.overlap.Comparison; None compares numbers."""
        return None

    def read(self, path: str) -> Inputs:
        """Raw inputs from a user's file or folder, blank lines counted in their row numbers."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Everything needed to rebuild it, as plain JSON."""
        raise NotImplementedError


class Source:
    """One data set. `offers` names the kinds of target it has: category, categories, value, span, tags, text.

    One that `is_quick` loads without torch, so that small data is checked before anything else is imported.
    """

    modality: ClassVar[str]
    offers: ClassVar[frozenset[str]]
    is_quick: ClassVar[bool] = False

    def load(self, target: str | None) -> Splits:
        """Read and check the data; raise UserError where it is missing or broken."""
        raise NotImplementedError

    def preprocessor(self) -> Preprocessor:
        """A preprocessor that is not fitted yet."""
        raise NotImplementedError


class Transform:
    """A random change to training inputs x (B, ...), drawn per example: a new tensor, x stays as it is.

    `inputs` names the modalities that it is for. One that is `raw` acts before the preprocessor scales x: on pixels as
    they are stored, from 0 to `white`. One that is `spectral` changes spectrograms. `size` is the number of pixels a
    side of its results, where it resizes.
    """

    inputs: ClassVar[frozenset[str]]
    raw: ClassVar[bool] = False
    spectral: ClassVar[bool] = False
    size: int | None = None
    white: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Backbone:
    """Inputs to features: `forward(x, mask, hidden) -> Features`; one that is also an nn.Module names this class first.

    `abilities` names what an objective may ask of it: a set, or a function of its settings. One that can `hide`
    positions replaces those `hidden` (B, T). It also has `targets(x)`, with its inverse `assemble(targets)`: for each
    position `target_size` values (B, T, P) or, by its `target_kind`, a class number (B, T) below `target_size`.
    `maskable(x)` (B, T) says which positions may be hidden, and `word_ids(x)` (B, T) which form a word. One that can
    also `skip` positions takes `visible` (B, V), the numbers of those to compute: `mask` is of all positions, tokens
    are of these. A class (or its stem) that is `one_size` takes no inputs of another size than its spec's. Tasks are
    named as in transformers, such as causal_lm.
    """

    modalities: ClassVar[frozenset[str]]
    abilities: ClassVar[frozenset[str] | Callable[..., frozenset[str]]] = frozenset()
    target_kind: str = "value"
    one_size: ClassVar[bool] = False
    width: int

    def depths(self) -> dict[str, int]:
        """Parameter-name prefix to depth: 0 at the input, rising to the output."""
        raise NotImplementedError

    def token_mask(self, mask: Tensor) -> Tensor:
        """Which tokens are valid, by the mask of the inputs, of which there may be more."""
        return mask > 0

    def head(self, task: str, outputs: int) -> nn.Module | None:
        """A head of its own form for a task; None where that is one linear layer."""
        return None

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> Any:
        """The same model as one of transformers; None where that has no such architecture."""
        return None


class Objective:
    """A head and a loss on a backbone's features; one that is also an nn.Module names this class first.

    A supervised one has a `monitor`, the metric that chooses the best checkpoint and max or min, and the methods
    `predict`, `scores` and `to_records`; where its target is text, its metric `errors` has what was `compared` last,
    and `spell(y)` gives the texts. `predicts` is the kind of value that the loss takes; where None, that of the
    backbone's targets, and `default_loss` has one for each; `made_of` is what these must be, where it is another.
    `needs` are abilities of the backbone, and `task` names the form of the head. `step` takes `views` copies of a
    batch along B, and one that `mixes` takes mixed batches. `abilities` names which of the methods it has that only
    some objectives have:

    `pictures(backbone, batch)`: scaled inputs (B, ...), what the network saw of them, and what it rebuilt.
    `examples(backbone, batch, decode)`: lines of text about a few held-out rows.
    `load_head(head, labels)`: load a head with other or reordered labels; return whether it was loaded.
    """

    target: ClassVar[str | None] = None
    predicts: ClassVar[str | None] = None
    made_of: ClassVar[str | None] = None
    needs: ClassVar[frozenset[str]] = frozenset()
    default_loss: ClassVar[LossFunction | Mapping[str, LossFunction]]
    task: ClassVar[str | None] = None
    views: ClassVar[int] = 1
    mixes: ClassVar[bool] = False
    monitor: ClassVar[tuple[str, str] | None] = None
    abilities: ClassVar[frozenset[str]] = frozenset()

    def fit(self, y: Any) -> None:
        """Learn from all training targets, before the first step."""

    def follow(self, backbone: Backbone) -> None:
        """Called before the first batch of each optimizer step of a pretraining."""

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """The loss of a batch."""
        raise NotImplementedError

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Outputs (B, C)."""
        raise NotImplementedError

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor | None:
        """One value per example (B,) whose mean is the monitored metric; None where no mean is."""
        raise NotImplementedError

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict of plain values per example."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Any]:
        """Named torchmetrics that take (outputs, targets); none where the loss says it all."""
        return {}

    def summary(self, loss: float, spec: Spec) -> dict[str, float]:
        """What else the held-out loss says, by name."""
        return {}

    def in_units(self, spec: Spec) -> Spec:
        """The spec with the units of the outputs, where these are others than the targets'."""
        return spec

    def export(self, folder: Path) -> None:
        """Write further files for transformers beside the model."""


class Strategy:
    """Which parameters train, when, and how fast.

    One that `selects_strategy` has a method `select` in place of `claims`, which chooses another strategy. `restarts`
    are shares of the run at which the schedule restarts. `only_claims` is false if it overrides `prepare`, `step` or
    `extract_adapters`; runs are trained in one vmap group only if it is true.
    """

    selects_strategy: ClassVar[bool] = False
    only_claims: ClassVar[bool] = True
    restarts: tuple[float, ...] = ()

    def prepare(self, backbone: Backbone) -> None:
        """Act on the backbone at its start point, before anything is claimed."""

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Patterns of names (`backbone.*`, `objective.*`), each claimed once, to scale: 0, frozen, or by share done."""
        raise NotImplementedError

    def step(self, objective: Objective, backbone: Backbone, batch: Batch) -> StepOutput:
        """The loss of a training batch: the objective's."""
        return objective.step(backbone, batch)

    def extract_adapters(self, backbone: Backbone) -> dict[str, dict[str, Tensor]]:
        """Remove adapters from the backbone after training; return the adapter delta for `run.adapter.merge`."""
        return {}
