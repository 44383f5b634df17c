"""A frozen teacher: its outputs on generic data, computed once and cached, as the targets of a distillation."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_object
from omegaconf import DictConfig

from warmstart.config.resolve import teacher_backbone
from warmstart.config.rewrite import changed
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.init import HUB, Init
from warmstart.core.protocols import Preprocessor
from warmstart.core.saved_model import SavedModel
from warmstart.data.datamodule import GenericDataModule, inputs_digest
from warmstart.data.preprocess import rebuild
from warmstart.data.storage import cache
from warmstart.data.storage.ragged import Frames, Ragged
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import TUNED, ancestors, parent_run
from warmstart.training.frozen import Frozen, load_teacher, without_head
from warmstart.training.start import find_start

CHUNK = 2**16  # rows of which moments are computed at a time
PARTS = ("train", "validation")
OUTPUTS, RECORD = "outputs", "record.json"


def set_targets(config: DictConfig, data: GenericDataModule) -> dict[str, Any] | None:
    """Set the teacher's outputs as the targets of the data; return the entry `teacher` of the record.

    None if the objective has no teacher. The outputs are computed by the teacher's own preprocessor, in evaluation mode
    and float32, and stored in float16. They are cached by a hash of rows, weights and preprocessor, with the seconds
    that they took.

    Args:
        config: a pretraining config.
        data: its prepared data.

    Raises:
        UserError: the teacher is missing, damaged, of another modality, or has no head for classes.
    """
    kind = get_object(config.objective._target_).teacher_output
    if kind is None:
        return None
    start, parent = suitable_teacher(config, kind)
    with naming(config):
        digest = model_digest(start, kind)
        entries = {part: outputs_of(config, start, kind, digest, data, part) for part in PARTS}
    targets, records = ({part: entry[index] for part, entry in entries.items()} for index in range(2))
    train = records["train"]
    labels = () if isinstance(kind, str) else start.spec.labels
    data.set_targets(targets, tuple(train["center"]), tuple(train["spread"]), labels)
    known = {**parent, "stage": start.card["stage"], "has_labels": has_labels(start, parent), "model_sha256": digest}
    return {**known, "seconds": sum(record["seconds"] for record in records.values())}


def check_teacher(config: DictConfig) -> None:
    """Check the teacher of a config, if its objective has one.

    Raises:
        UserError: the teacher is missing, damaged, of another modality, or has no head for classes.
    """
    kind = get_object(config.objective._target_).teacher_output
    if kind is not None:
        suitable_teacher(config, kind)


def suitable_teacher(config: DictConfig, kind: Any) -> tuple[SavedModel, dict[str, Any]]:
    """Return the teacher as `find_teacher` does; `kind` is `teacher_output` of the objective.

    Raises:
        UserError: see `check_teacher`; the message begins with the setting.
    """
    with naming(config):
        start, parent = find_teacher(config)
        if kind == "tokens" and start.spec.vocabulary is None:
            raise UserError(f"{start.name} has no tokens: objective=distill_tokens needs a teacher for texts")
        if not isinstance(kind, str) and (reason := without_classes(start, kind)) is not None:
            raise UserError(f"objective needs the logits of a teacher for classes, but {reason}")
    return start, parent


@contextlib.contextmanager
def naming(config: DictConfig) -> Iterator[None]:
    """Begin the message of a UserError with the teacher."""
    try:
        yield
    except UserError as error:
        reason = str(error).removeprefix(f"init={config.teacher}: ")
        raise UserError(f"teacher={config.teacher}: {reason}") from error


def find_teacher(config: DictConfig) -> tuple[SavedModel, dict[str, Any]]:
    """Return the saved model of the teacher, and its id, path and weights_sha256.

    Raises:
        UserError: as `find_start`, or the value is no teacher.
    """
    init = Init.parse(config.teacher)
    if init != init.source or not (init.kind == "hub" or init.is_folder):
        raise UserError(f"no such folder; give {HUB}NAME_OR_DIR or a run folder")
    node = teacher_backbone(init, tuple(config.trust))
    settings = {"init": str(init), **({} if node is None else {"backbone": node})}
    start, parent = find_start(changed(config, settings))
    return start, parent


def without_classes(start: SavedModel, kind: type) -> str | None:
    """Return why a model has no head with logits of classes; None if it has one."""
    own = (start.card.get("objective") or {}).get("_target_")
    problem = (start.card["backbone"].get("architecture") or {}).get("problem_type")
    is_other = own not in (None, f"{kind.__module__}.{kind.__qualname__}")
    if is_other or problem not in (None, "single_label_classification") or len(start.spec.labels) < 2:
        return f"{start.name} has no head for classes"
    return without_head(start, kind, start.spec.labels)


def has_labels(start: SavedModel, parent: dict[str, Any]) -> bool:
    """Return whether a teacher, one of its ancestors or a teacher of these was trained on labels.

    A model from the hub was, if it has the head of a task.
    """
    run = parent_run(parent)
    records = [] if run is None else [one.record for one in ancestors(run)]
    return (
        start.card["stage"] in TUNED
        or start.card.get("task") is not None
        or any(one["stage"] in TUNED or (one.get("teacher") or {}).get("has_labels") for one in records)
    )


def model_digest(start: SavedModel, kind: Any) -> str:
    """Return the SHA-256 of all that the outputs depend on besides the rows and the preprocessor."""
    digest = hashlib.sha256(json.dumps(start.card["backbone"], sort_keys=True).encode())
    tensors = {**start.weights, **({} if isinstance(kind, str) else {f"head {n}": v for n, v in start.head.items()})}
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def outputs_of(
    config: DictConfig, start: SavedModel, kind: Any, digest: str, data: GenericDataModule, part: str
) -> tuple[Any, dict[str, Any]]:
    """Return the teacher's outputs on raw rows (N, D), float16 in a memory map, and the record of their computation.

    With tokens, they are rows (1 + T, D) of variable length: the pooled features, then those of each token.

    Raises:
        UserError: the rows do not fit the teacher, or its outputs are not finite.
    """
    preprocessor, rows = rebuild(start.preprocessor).adapted(data.source.preprocessor()), data.given[part]
    if "grouped" in preprocessor.abilities:
        rows = preprocessor.grouped(rows)
    encoded = preprocessor.encode(rows.x) if kind == "tokens" else None
    if encoded is not None:
        check_tokens(data, part, encoded)
    named = ("tokens",) if kind == "tokens" else ()
    name = cache.key(digest, json.dumps(preprocessor.state(), sort_keys=True), inputs_digest(rows), *named)

    def make(folder: Path) -> None:
        started = time.monotonic()
        screen.say(f"computing the outputs of {start.name} on {len(rows):,} rows")
        x = preprocessor.encode(rows.x) if encoded is None else encoded
        frozen = load_teacher(config, start, kind, preprocessor, tuple(x.shape[1:]))
        center, spread = (write_tokens if kind == "tokens" else write)(frozen, x, folder / f"{OUTPUTS}.npy")
        seconds = time.monotonic() - started
        screen.say(f"computed the outputs in {seconds:.1f} seconds")
        record = {"seconds": seconds, "center": center, "spread": spread}
        (folder / RECORD).write_text(json.dumps(record) + "\n")

    def read(folder: Path) -> tuple[Any, dict[str, Any]]:
        array = np.load(folder / f"{OUTPUTS}.npy", mmap_mode="c")  # torch warns of arrays that cannot be written
        record = json.loads((folder / RECORD).read_text())
        if encoded is not None:
            lengths = 1 + encoded.lengths
            return Frames(array, np.cumsum([0, *lengths]), int(lengths.max(initial=1))), record
        return torch.from_numpy(array), record

    return cache.entry("teacher", name, make, read)


def write(frozen: Frozen, x: Any, path: Path) -> tuple[list[float], list[float]]:
    """Write the outputs for encoded rows (N, ...) as a float16 array (N, D); return mean and standard deviation (D,).

    The standard deviation of a constant output is 1.

    Raises:
        UserError: an output is not finite in float16.
    """
    array = None
    for index, values in frozen.batches(x):
        values = to_float16(values)
        if array is None:
            array = np.lib.format.open_memmap(path, "w+", np.float16, (len(x), values.shape[1]))
        array[index] = values
    array.flush()
    return moments(array, np.arange(len(x)))


def write_tokens(frozen: Frozen, x: Ragged, path: Path) -> tuple[list[float], list[float]]:
    """Write pooled features and those of tokens as `write` does, as rows (1 + T, D), concatenated.

    Return mean and standard deviation of the pooled features, then of the tokens (2D,).

    Raises:
        UserError: an output is not finite in float16.
    """
    lengths = 1 + x.lengths
    starts = np.cumsum([0, *lengths])
    array = None
    for rows, values in frozen.token_batches(x):
        values = to_float16(values)
        if array is None:
            array = np.lib.format.open_memmap(path, "w+", np.float16, (int(starts[-1]), values.shape[-1]))
        columns = np.arange(values.shape[1])
        valid = columns < lengths[rows][:, None]
        array[(starts[:-1][rows][:, None] + columns)[valid]] = values[valid]
    array.flush()
    tokens = np.delete(np.arange(len(array)), starts[:-1])
    found = [moments(array, index) for index in (starts[:-1], tokens)]
    return tuple(pooled + each for pooled, each in zip(*found))


def to_float16(values: torch.Tensor) -> np.ndarray:
    """Return values as float16; raise UserError if one is not finite."""
    values = values.to(torch.float16).numpy()
    if not np.isfinite(values).all():
        raise UserError("its outputs are not finite numbers below 65,504, the largest of float16")
    return values


def moments(array: np.ndarray, index: np.ndarray) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation (D,) of the rows `index` of an array (N, D); 1 for a constant column."""
    chunks = np.split(index, range(CHUNK, len(index), CHUNK))
    center = sum(array[chunk].sum(0, dtype=np.float64) for chunk in chunks) / len(index)
    squares = sum(np.square(array[chunk] - center).sum(0) for chunk in chunks) / len(index)
    return center.tolist(), np.sqrt(np.where(squares > 0, squares, 1)).tolist()


def token_preprocessor(config: DictConfig) -> Preprocessor | None:
    """Return the teacher's preprocessor for its student, if tokens are matched; else None."""
    kind = get_object(config.objective._target_).teacher_output
    return rebuild(suitable_teacher(config, kind)[0].preprocessor) if kind == "tokens" else None


def check_tokens(data: GenericDataModule, part: str, own: Any) -> None:
    """Raise an error unless the rows of a part have the tokens `own` of the teacher."""
    x = data.parts[part][0]
    if not (isinstance(own, Ragged) and isinstance(x, Ragged)):
        raise UserError("objective=distill_tokens needs rows of tokens")
    if x.context != own.context or not all(
        np.array_equal(getattr(x, name), getattr(own, name)) for name in ("starts", "values")
    ):
        raise UserError(
            "its tokens are not those of init: set init=scratch, or an init with the tokenizer of the teacher"
        )


def note_teacher(run: RunFolder, teacher: dict[str, Any] | None) -> None:
    """Record the teacher, and count its forward passes in the cost, once, even if its outputs were cached.

    Raises:
        UserError: the run is resumed, and the teacher has changed.
    """
    before = run.record.get("teacher")
    if before is not None and teacher is not None and before["model_sha256"] != teacher["model_sha256"]:
        raise UserError(f"teacher: {before['path']} has changed since {run.path} was started: its SHA-256 differs")
    if before is not None or teacher is None:
        return
    seconds = teacher["seconds"]
    run.update(teacher=teacher, cost={"seconds": seconds, "teacher_seconds": seconds})
