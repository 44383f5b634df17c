"""Base classes of the components, which document their interfaces.

Shapes: B batch, T positions, D width, F input features, C channels or classes, H x W pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn
from warmstart.core.batch import Batch, Inputs, Rows, Splits, StepOutput
from warmstart.core.spec import Spec, Vocabulary

LossFunction = Callable[["Tensor", "Tensor"], "Tensor"]


def accepted_predictions(loss: LossFunction) -> frozenset[str]:
    """Return the kinds of prediction that a loss declares in `accepts`; none for a plain function."""
    return getattr(loss, "accepts", frozenset())


Scale = float | Callable[[float], float]


class Preprocessor:
    """Encodes and scales inputs; it is fitted on the generic data, saved with the weights, and used by later stages.

    A preprocessor of user tables has `names`, the required columns, and `dialect`, the format of the file. `white` is
    the maximum pixel value, `seconds` the time between two positions, `vocabulary` describes the tokens, and every
    target text starts with the token numbers in `prefix`. At most `held_out_batch` examples are evaluated at a time, a
    limit for large examples. `spectral` inputs are spectrograms, to which spectral transforms can be applied. If
    `is_padding_invariant`, an exported model gives the same predictions for a padded batch as for single rows.
    `abilities` lists the optional methods and options that a subclass supports:

    `skip`: `read` has the option on_error=skip, which omits broken files.
    `fill_columns(x)`: return a user's table with missing columns filled.
    `untruncated(x)`: return encoded rows (data.storage.Ragged) without truncation, for packing.
    `decode(numbers)`: return the text of token numbers.
    `locate(x, records)`: yield the predictions of raw rows with what the raw rows add to them, such as texts.
    `marked(tokens, labels)`: return the text of a row with its supervised parts marked.
    `grouped(rows)`: return rows with what `encode` uses of all rows of their cluster.
    `to_images(x)`: return images (B, 3 or 1, H, W) of a scaled batch, black at 0 and white at 1.
    `vectors`: `cooccurrence_vectors(x, width, seed)` and `translated(table, other)` return a vector per token.
    `patches`: `patch_filters(x, count, size, seed)` returns filters of scaled inputs (count, C, size, size).
    `overlap(generic, test)`: return the raw test rows that are also generic rows; by default, scaled rows are compared.
    `prompts`: `read_prompts(path)` returns those of a user's file (`Prompt`), `prompt(given)` the token numbers of one,
    `input_tokens(texts)` those of inputs of an encoder, and `ends` those after which a generated text ends.
    `label_words`: `label_numbers(words)` returns the token number of the word of each class, and `label_prompts(x,
    examples, words)` prompts that end before such a word, after raw examples with their words, if there are any.
    `messages`: a prompt is a conversation, a list of messages with role and content, or a text, which is the message of
    a user; `to_prompts(x)` returns raw rows as prompts.
    """

    abilities: ClassVar[frozenset[str]] = frozenset()
    spectral: ClassVar[bool] = True
    held_out_batch: ClassVar[int] = 512
    is_padding_invariant: bool = True
    names: list[str] | None = None
    dialect: Any
    white: float = 1.0
    seconds: float = 0.0
    vocabulary: Vocabulary | None = None
    prefix: tuple[int, ...] = ()

    def fit(self, x: Any) -> None:
        """Fit the preprocessor to raw training inputs."""
        raise NotImplementedError

    def fit_transcripts(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Fit the labels of targets of kind `text` to training texts, and return them."""
        raise NotImplementedError

    def adapted(self, own: Preprocessor) -> Preprocessor:
        """Return this fitted preprocessor, adapted to a data set with the unfitted preprocessor `own`."""
        return self

    def converted(self, x: Any, own: Preprocessor) -> Any:
        """Convert raw inputs of a data set with the unfitted preprocessor `own` to raw inputs of this one."""
        return x

    def encode(self, x: Any) -> Any:
        """Encode raw inputs, once, as a tensor (N, ...) or as variable-length rows."""
        raise NotImplementedError

    def align(self, x: Any, y: Any, target: str) -> tuple[Any, Any]:
        """Encode inputs and, unless None, targets that refer to positions of the inputs: `data.loader.ALIGNED`."""
        raise NotImplementedError

    def __call__(self, x: Tensor) -> Tensor:
        """Scale a batch of encoded inputs, on the device."""
        return x

    def flat(self, x: Any) -> Any:
        """Return encoded inputs as an array (N, F), for simple baselines."""
        return self(x).flatten(1).numpy()

    def comparison(self) -> Any:
        """Return the data.duplicates.comparison.Comparison that finds duplicates; None compares arrays of numbers."""
        return None

    def read(self, path: str) -> Inputs:
        """Read raw inputs from a user's file or folder; row numbers include blank lines."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """Return the state from which `data.preprocess.rebuild` recreates the preprocessor, as plain JSON."""
        raise NotImplementedError


class Source:
    """A data set. `target_kinds` lists its kinds of target: category, categories, value, span, tags, text (which the
    preprocessor spells as labels), sequence (a text, or a list of correct ones, which it tokenizes), completion, pairs,
    rated (completions).

    If `is_quick`, it loads without torch, so that small data is checked before torch is imported.
    """

    modality: ClassVar[str]
    target_kinds: ClassVar[frozenset[str]]
    is_quick: ClassVar[bool] = False

    def load(self, target: str | None) -> Splits:
        """Read and check the data; raise UserError if it is missing or malformed."""
        raise NotImplementedError

    def preprocessor(self) -> Preprocessor:
        """Return an unfitted preprocessor."""
        raise NotImplementedError


class Transform:
    """A random change to training inputs x (B, ...), drawn per example; returns a new tensor and does not modify x.

    `inputs` lists the modalities that it supports. A `raw` transform is applied before the preprocessor scales x: to
    stored pixel values, from 0 to `white`. A `spectral` transform is for spectrograms. A transform that resizes has
    `size`, the height and width of its outputs in pixels.
    """

    inputs: ClassVar[frozenset[str]]
    raw: ClassVar[bool] = False
    spectral: ClassVar[bool] = False
    size: int | None = None
    white: float = 1.0

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError


RUNTIME_SETTINGS = ("dtype", "quantize", "checkpoint")  # of a backbone


class Backbone:
    """Maps inputs to features: `forward(x, mask, hidden) -> Features`. Inherit this class before nn.Module.

    `abilities` lists what an objective may require: a set, or a function of the settings. With `hide`, the positions
    `hidden` (B, T) are replaced, and there are `targets(x)` and its inverse `assemble(targets)`: for each position
    `target_size` values (B, T, P) or, according to `target_kind`, a class number (B, T) below `target_size`.
    `maskable(x)` (B, T) are the positions that may be hidden, and `word_ids(x)` (B, T) group them by word. With `skip`,
    `forward` also has the argument `visible` (B, V), the indices of the positions to compute: `mask` covers all
    positions, the returned tokens only these. With `token_embedding`, the property of that name is the nn.Embedding of
    a vocabulary, there is `maskable`, and the preprocessor has `vectors`. With `decode`, it has a decoder:
    `decode(features, mask, ids)` maps features of an input (B, T, D), its mask and the token ids before each position
    (B, L) to logits (B, L, V), the first id is `start`, `padding` fills rows, there are at most
    `decoder_positions` ids (None: any number), and `generator()` returns a model of transformers with the current
    weights, for generation. With `first_convolution`, the property of
    that name is the nn.Conv2d of the scaled inputs. A class (or its stem) with `has_fixed_size` requires inputs of the
    size in its spec. Tasks are named as in transformers, such as causal_lm.
    A class that `takes_weights` has the argument `weights`, initial weights by name, which become its parameters
    without a copy. RUNTIME_SETTINGS do not change the function that a backbone computes, except for rounding.
    """

    modalities: ClassVar[frozenset[str]]
    abilities: ClassVar[frozenset[str] | Callable[..., frozenset[str]]] = frozenset()
    target_kind: str = "value"
    has_fixed_size: ClassVar[bool] = False
    takes_weights: ClassVar[bool] = False
    width: int

    def depths(self) -> dict[str, int]:
        """Return the depth of each parameter-name prefix: 0 at the input, increasing to the output."""
        raise NotImplementedError

    def halves(self) -> dict[str, list[nn.Module]]:
        """Return the modules of the `encoder` and of the `decoder`, with shared ones in both; empty without a decoder.

        The output layer is part of the decoder.
        """
        return {}

    def token_mask(self, mask: Tensor) -> Tensor:
        """Return the mask of valid tokens, given the mask of the inputs, which may have more positions."""
        return mask > 0

    def head(self, task: str, outputs: int) -> nn.Module | None:
        """Return a special head for a task; None for a linear layer."""
        return None

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> Any:
        """Return the equivalent transformers model; None if transformers has no such architecture."""
        return None


class Objective:
    """A head and a loss on a backbone's features. Inherit this class before nn.Module.

    A supervised objective has a `monitor`, the metric that selects the best checkpoint with max or min (in the class,
    it may be a function of the settings), and the methods `predict`, `scores` and `to_records`; `bounds` are the
    smallest and the largest value of the metric, if it has them, and `scoring` the settings of metrics that the record
    of a run names. If its target is text, its metric `errors` has the last pairs in `compared`, and `target_texts(y)`
    returns the texts of targets. `predicts` is the kind of value that the loss requires; if None, that of the
    backbone's targets, and `default_loss` has an entry for each kind; `input_kind` is the kind of the backbone's
    targets if it differs. `needs` are required abilities of the backbone,
    and `task` selects the form of the head. `step` requires `views` copies of a batch, concatenated along B. If
    `mixes`, it supports mixed batches. If `is_single_label`, `predict` returns logits (B, C), and every example has one
    of the C classes. `teacher_output` is what it matches of a frozen teacher, as targets (B, D): its pooled features,
    or the outputs of the head of an objective; or (B, 1 + T, D): its pooled features, then those of each token. If
    `keeps_head`, its head is that of a pretraining, which is loaded. If `encodes_rows`, each example must be one row of
    the data, so that texts are not packed into blocks. If a language model can predict the same outputs without
    training, `prompted` is the objective that does.
    `abilities` lists the optional methods that a subclass has:

    `reconstructions(backbone, batch)`: return scaled inputs (B, ...), the corrupted inputs, and the reconstructions.
    `examples(backbone, batch, decode)`: return lines of text about a few held-out rows.
    `texts`: `read_texts(preprocessor)` is called before the first step or evaluation.
    `tagged(outputs, y)`: return the true and the predicted labels of the words of each example.
    `load_head(head, labels)`: load a head with other or reordered labels; return whether it was loaded.
    `reference(backbone, batch)`: return float32 values (B, ...) of a batch with targets, which are computed once, with
        the initial weights, and which `step` gets as `batch.reference`. Such a training has no dropout.
    """

    target: ClassVar[str | None] = None
    predicts: ClassVar[str | None] = None
    input_kind: ClassVar[str | None] = None
    needs: ClassVar[frozenset[str]] = frozenset()
    default_loss: ClassVar[LossFunction | Mapping[str, LossFunction]]
    task: ClassVar[str | None] = None
    views: ClassVar[int] = 1
    mixes: ClassVar[bool] = False
    is_single_label: ClassVar[bool] = False
    keeps_head: ClassVar[bool] = False
    teacher_output: ClassVar[Literal["features", "tokens"] | type[Objective] | None] = None
    encodes_rows: ClassVar[bool] = False
    prompted: ClassVar[type[Objective] | None] = None
    monitor: ClassVar[tuple[str, str] | Callable[..., tuple[str, str]] | None] = None
    bounds: ClassVar[tuple[float | None, float | None]] = (None, None)
    scoring: Mapping[str, Any] = MappingProxyType({})
    abilities: ClassVar[frozenset[str]] = frozenset()

    def fit(self, y: Any) -> None:
        """Fit to all training targets, before the first step."""

    def on_step_start(self, backbone: Backbone) -> None:
        """Update the objective before the first batch of each optimizer step of a pretraining."""

    def step(self, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the loss of a batch."""
        raise NotImplementedError

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return outputs (B, C)."""
        raise NotImplementedError

    def scores(self, outputs: Tensor, y: Tensor) -> Tensor | None:
        """Return one value per example (B,), whose mean is the monitored metric.

        For a ratio of sums, return its numerator and denominator (B, 2); None if the metric is neither.
        """
        raise NotImplementedError

    def to_records(self, outputs: Tensor, batch: Batch, spec: Spec) -> list[dict[str, Any]]:
        """Return one dict of plain values per example."""
        raise NotImplementedError

    def metrics(self) -> dict[str, Any]:
        """Return torchmetrics by name, which accept (outputs, targets); none if the loss suffices."""
        return {}

    def summary(self, loss: float, spec: Spec) -> dict[str, float]:
        """Return further metrics computed from the held-out loss, by name."""
        return {}

    def output_spec(self, spec: Spec) -> Spec:
        """Return the spec with the units of the outputs, if they differ from those of the targets."""
        return spec

    def export(self, folder: Path) -> None:
        """Write additional files of the exported model."""


def generates(objective: type[Objective]) -> bool:
    """Return whether a model with the head of a class of objectives can generate: its outputs are of the next token."""
    return objective.task == "causal_lm"


def translates(objective: type[Objective]) -> bool:
    """Return whether a class of objectives generates a target text for an input."""
    return objective.task == "seq2seq_lm" and objective.target == "sequence"


def monitored(objective: type[Objective], settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the `monitor` of a class of objectives with these settings; None for an unsupervised one."""
    found = objective.monitor
    return found(**settings) if callable(found) else found


class Strategy:
    """Learning-rate scales of the parameters during a finetuning.

    If `selects_strategy`, it has a method `select` in place of `learning_rate_scales`, which chooses another strategy.
    `restarts` are fractions of the run at which the schedule restarts. `only_scales_learning_rates` is false if it
    overrides `prepare`, `start_step`, `step` or `extract_adapters`; runs are trained in a vmap group only if it is
    true. If `uses_unlabelled`, `step` gets unlabelled rows in each batch, weakly augmented, and if `uses_strong` also
    strongly. `progress` is the fraction of the run that is complete, updated before each step for such a strategy, and
    `unlabelled_rows` the number of unlabelled rows that it has trained on, repetitions included. If not
    `trains_loaded_head`, the head of an objective that `keeps_head` is frozen if it was loaded. `trains_backbone` is
    false if it trains adapters or a head only.
    """

    selects_strategy: ClassVar[bool] = False
    only_scales_learning_rates: ClassVar[bool] = True
    uses_unlabelled: ClassVar[bool] = False
    uses_strong: ClassVar[bool] = False
    trains_loaded_head: ClassVar[bool] = True
    trains_backbone: ClassVar[bool] = True
    restarts: tuple[float, ...] = ()
    progress: float = 0.0
    unlabelled_rows: int = 0

    def prepare(self, backbone: Backbone) -> None:
        """Modify the backbone with its initial weights, before `learning_rate_scales` is called."""

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Return (pattern, scale) pairs; each parameter (`backbone.*`, `objective.*`) must match exactly one pattern.

        A scale is a factor of the learning rate, 0 if frozen, or a function of the fraction of the run that is
        complete.
        """
        raise NotImplementedError

    def start_step(self, objective: Objective, backbone: Backbone) -> bool:
        """Update strategy and weights before the batches of an optimizer step, if it `uses_unlabelled` rows.

        It is called for each batch, with the `progress` of the optimizer step. Return whether the weights were reset:
        the optimizer then starts again too.
        """
        return False

    def step(self, objective: Objective, backbone: Backbone, batch: Batch) -> StepOutput:
        """Return the loss of a training batch: that of the objective."""
        return objective.step(backbone, batch)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs besides the weights, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""

    def extract_adapters(self, backbone: Backbone) -> dict[str, dict[str, Tensor]]:
        """Remove adapters from the backbone after training; return the adapter delta for `run.adapter.merge`."""
        return {}


class Baseline:
    """A model of a task without training by gradient, or the initial weights without training, as a control.

    `modalities` and `target_kinds` are those of the data that it supports; None stands for all modalities. `start` is
    what it uses of the initial weights in `init`: pooled features, outputs of their head, or None; models of outputs
    are not fitted. If `is_random`, its models depend on the seed. If `has_examples`, the inputs depend on the training
    rows and the seed.
    """

    modalities: ClassVar[frozenset[str] | None] = None
    target_kinds: ClassVar[frozenset[str]] = frozenset({"category", "categories", "value"})
    start: ClassVar[Literal["features", "outputs"] | None] = None
    is_random: ClassVar[bool] = False
    has_examples: ClassVar[bool] = False

    def unsupported(self, x: Any) -> str | None:
        """Return why raw inputs x (N, ...) of a supported modality are not supported; None if they are."""
        return None

    def fit(self, preprocessor: Preprocessor, x: Any) -> None:
        """Fit to the raw inputs of all training rows of the data set, as a preprocessor; without their targets."""

    def encoded(
        self, preprocessor: Preprocessor, rows: Rows, examples: Rows, seed: int, words: tuple[str, ...] | None
    ) -> tuple[Any, Any]:
        """Encode raw rows, given raw training rows as `examples`; for a baseline that `has_examples`, or with words.

        Args:
            words: the words of the classes, if a language model predicts them; else None.
        """
        raise NotImplementedError

    def inputs(self, preprocessor: Preprocessor, raw: Any, encoded: Any) -> Any:
        """Return the inputs of the models (N, F).

        Args:
            preprocessor: that of the data.
            raw: raw rows.
            encoded: the same rows, encoded; with `start`, their features or outputs (N, D).
        """
        return preprocessor.flat(encoded)

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Any]:
        """Yield models, of which the one with the best validation metric is used.

        A model has `fit(x, y)` and `outputs(x)`, a tensor (N, outputs) as from the head of an objective.

        Args:
            target: kind of target.
            outputs: number of classes, labels or values.
            rows: number of training rows.
            seed: seed of random models.
        """
        raise NotImplementedError
