"""Verifies an export: transformers must compute the predictions of the trained model from the folder alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from warmstart.core import screen
from warmstart.core.batch import Batch, Rows
from warmstart.core.errors import UserError
from warmstart.core.protocols import translates
from warmstart.data.datamodule import evenly
from warmstart.data.loader import take
from warmstart.training import components
from warmstart.training.evaluation import evaluating

TOLERANCE = 1e-4  # of outputs up to 1; larger outputs are scaled by their maximum
ROWS = 8
ALIGNED_TARGET = "tags"  # a target for which rows are encoded differently
DECODED = 4  # ids that a decoder gets, of the first tokens of the vocabulary


def check_export(
    folder: Path, load: Callable[[], nn.Module], trained: tuple[Any, Any], preprocessor: Any, config: DictConfig
) -> Any:
    """Compare the exported folder with the trained model on rows of the run's data and on built-in rows.

    Preprocessing and weights of the folder are used, with one padded batch and with single rows. The batch is skipped,
    with a warning, for models whose predictions depend on padding by design.

    Args:
        folder: folder with the exported files.
        load: returns the model of the folder.
        trained: backbone and objective.
        preprocessor: that of the run.
        config: that of the run, which has its data.

    Returns:
        The entry of the record: number of rows, data, and largest difference.

    Raises:
        UserError: an output differs by more than the tolerance, a generated sequence differs, or the folder cannot be
            loaded.
    """
    try:
        exported = load()
    except Exception as error:  # the type depends on the architecture
        raise UserError(f"not exported: the folder cannot be loaded: {_line(error)}") from error
    inputs_of = preprocessor.exported_inputs(folder)
    target = trained[1].target
    rows = validation_rows(config, target)
    name = "built-in" if rows is None else "+".join(components.sources_of(config.data))
    tables = [preprocessor.probes(target), *([] if rows is None else [rows])]
    largest = 0.0
    is_padding_invariant = preprocessor.is_padding_invariant
    if not is_padding_invariant:
        screen.say(
            "warning: this model has no attention mask: transformers' predictions for recordings of different lengths "
            "in one batch differ from single ones: predict one by one",
            style="yellow",
        )
    for table in tables:
        batches = [slice(None)] if is_padding_invariant else []
        for chosen in [*batches, *(slice(row, row + 1) for row in range(len(table)))]:
            raw = Rows(table).take(chosen).x
            found = difference(exported, inputs_of, trained, preprocessor, raw)
            if not found <= TOLERANCE:
                how = "in one padded batch" if chosen == slice(None) else "one by one"
                raise UserError(
                    f"not exported: {type(exported).__name__} of the folder has other predictions {how} "
                    f"(largest difference {found:.2g}, allowed {TOLERANCE:g})"
                )
            largest = max(largest, found)
    if translates(type(trained[1])):
        check_generation(exported, inputs_of, trained, preprocessor, Rows(tables[-1]).take(slice(0, 1)).x)
    count = sum(map(len, tables))
    how = "in a batch and one by one" if is_padding_invariant else "one by one"
    screen.say(f"checked on {count} rows, {how}: the largest difference is {largest:.1g}")
    return {"rows": count, "data": name, "batch": is_padding_invariant, "difference": largest}


def validation_rows(config: DictConfig, target: str | None) -> Any:
    """Return some raw validation rows of a run's data; None, with a warning, if the data cannot be loaded."""
    try:
        found = components.build_source(config).load(target).validation
    except (UserError, OSError) as error:
        screen.say(
            f"warning: the run's data cannot be loaded, so only built-in rows are compared: {error}", style="yellow"
        )
        return None
    return found.take(evenly(len(found), ROWS)).x


def difference(exported: nn.Module, inputs_of: Any, trained: tuple[Any, Any], preprocessor: Any, raw: Any) -> float:
    """Return the largest difference of outputs at valid positions, divided by the largest output if that is above 1.

    It is infinite if the shapes differ or a value is NaN.

    Raises:
        UserError: transformers cannot compute these rows.
    """
    backbone, objective = trained
    is_aligned = objective.target == ALIGNED_TARGET
    x = preprocessor.align(raw, None, ALIGNED_TARGET)[0] if is_aligned else preprocessor.encode(raw)
    batch = take(x, None, slice(0, len(x)))
    batch = Batch(preprocessor(batch.x), None, batch.mask)
    has_decoder = "decode" in objective.needs
    ids = torch.arange(DECODED).expand(len(batch.x), -1)
    try:
        with evaluating(exported):
            given = {**inputs_of(raw), **({"decoder_input_ids": ids} if has_decoder else {})}
            found = _outputs(exported(**given))
    except Exception as error:  # the type depends on the architecture
        raise UserError(f"not exported: transformers cannot compute these rows: {_line(error)}") from error
    with evaluating(backbone, objective):
        if has_decoder:
            ours = backbone.decode(backbone(batch.x, batch.mask).tokens, batch.mask, ids)
        elif found.ndim == 2:
            ours = objective.predict(backbone, batch)
        else:
            ours = backbone(batch.x, batch.mask).tokens
            ours = ours if objective.task is None else objective.head(ours)
    if ours.shape != found.shape:
        return math.inf
    if found.ndim > 2 and batch.mask is not None and not has_decoder:
        valid = backbone.token_mask(batch.mask)
        ours, found = ours[valid], found[valid]
    scale = max(1.0, ours.abs().max().item())
    largest = (ours - found).abs().max().item() / scale
    return math.inf if math.isnan(largest) else largest


def check_generation(exported: Any, inputs_of: Any, trained: tuple[Any, Any], preprocessor: Any, raw: Any) -> None:
    """Compare what the trained model and the folder generate for a raw row, with the settings of the folder.

    Raises:
        UserError: it differs, or transformers cannot generate.
    """
    backbone, objective = trained
    try:
        with evaluating(exported):
            ids = exported.generate(**inputs_of(raw), do_sample=False)
    except Exception as error:  # the type depends on the architecture
        raise UserError(f"not exported: transformers cannot generate for a row: {_line(error)}") from error
    found = preprocessor.decode(ids[0].tolist()).strip()
    batch = take(preprocessor.encode(raw), None, slice(0, 1))
    with evaluating(backbone, objective):
        features = backbone(preprocessor(batch.x), batch.mask).tokens
        (ours,) = objective.target_texts(objective.generate(backbone, features, batch.mask))
    if ours != found:
        raise UserError(
            f"not exported: {type(exported).__name__} of the folder generates {found[:40]!r} for a row, but the "
            f"trained model {ours[:40]!r}"
        )


def _outputs(found: Any) -> Tensor:
    """Return logits (B, C) or (B, T, C), stacked start and end logits (B, T, 2), or features (B, T, D)."""
    if "logits" in found:
        return found.logits
    if "start_logits" in found:
        return torch.stack([found.start_logits, found.end_logits], -1)
    features = found.last_hidden_state
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
