"""stage=predict: write predictions for new data, one JSON line per row, to standard output and the run's folder."""

from __future__ import annotations

import dataclasses
import json
import sys
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from warmstart.config.resolve import with_run
from warmstart.core import screen
from warmstart.core.batch import Inputs
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor
from warmstart.data.loader import GatherLoader, encode, held_out_rows
from warmstart.data.preprocess import rebuild
from warmstart.data.schema import missing_columns
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import TUNED, find
from warmstart.training import components
from warmstart.training.adaptation import NormAdaptation
from warmstart.training.evaluation import evaluate
from warmstart.training.record import runs_folder
from warmstart.training.restore import restore
from warmstart.training.trainer import machine_trainer


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Predict for `input=` with the run `run=`."""
    finetuned = find(config.run, Path(config.output_dir), TUNED, config.experiment, missing_columns(config))
    screen.say(f"predicting with {finetuned.path}")
    settings = finetuned.config(tuple(config.trust))
    module, saved = restore(finetuned, settings)
    preprocessor = rebuild(saved.preprocessor)
    module.spec, adaptation = saved.spec, None
    if config.get("adapt") is not None:
        adaptation = NormAdaptation(module, f"backbone={components.short_name(settings.backbone)}")
    given = read_inputs(preprocessor, str(config.input), config.data)
    x, y = encode(preprocessor, given.x, get_object(settings.objective._target_).target)
    clusters = None if adaptation is None or given.cluster is None else given.cluster()
    if adaptation is not None and clusters is None and (column := settings.data.get("cluster")) is not None:
        what = f"input= gives no clusters (data.cluster={column}), so all its rows are of one cluster"
        screen.say(f"warning: adapt=norms: {what}", style="yellow")
    run = opened or RunFolder.create(with_run(config, finetuned), runs_folder(config))
    with run.recording():
        run.update(parent={"id": finetuned.record["id"], "weights_sha256": saved.weights_sha256})
        size = held_out_rows(preprocessor.held_out_batch, x, y)
        trainer = machine_trainer(settings.trainer, run.path)
        module.to(trainer.strategy.root_device)
        if adaptation is None:
            lines = list(chain.from_iterable(evaluate(module, trainer, GatherLoader(x, y, size), module.predict_step)))
        else:
            found = adaptation.run(trainer, "input", x, y, clusters, size, module.predict_step)
            pairs = (pair for rows, lines in found for pair in zip(rows, lines, strict=True))
            lines = [line for _, line in sorted(pairs, key=itemgetter(0))]
            run.update(adapt=adaptation.record())
            screen.say(adaptation.describe())
        if "locate" in preprocessor.abilities:
            lines = list(preprocessor.locate(given.x, lines))
        files, pieces = given.files or [None] * len(given), given.parts or [{}] * len(given)
        positions = [
            {"row": row, **({} if file is None else {"file": file}), **piece}
            for row, file, piece in zip(given.rows, files, pieces, strict=True)
        ]
        predictions = "".join(to_line({**position, **line}) for position, line in zip(positions, lines, strict=True))
        write_atomically(run.path / "predictions.jsonl", predictions)
        sys.stdout.write(predictions)
    screen.say(f"{len(lines):,} predictions: {run.path / 'predictions.jsonl'}")
    return run


def read_inputs(preprocessor: Preprocessor, path: str, settings: DictConfig) -> Inputs:
    """Read the inputs of a prediction.

    Args:
        preprocessor: that of the model.
        path: of a file or folder.
        settings: those of `data` in conf/stage/predict.yaml.

    Raises:
        UserError: an input cannot be read, or the inputs do not support `on_error` or `missing_columns`.
    """
    on_error, missing_columns = settings.on_error, settings.missing_columns
    given = {"separator": settings.separator, "missing": settings.missing_values}
    given = {name: value for name, value in given.items() if value is not None}
    preprocessor.dialect = dataclasses.replace(preprocessor.dialect, **given)
    if on_error == "skip" and "skip" not in preprocessor.abilities:
        raise UserError("data.on_error=skip is for inputs that are files, such as images or recordings: remove it")
    if missing_columns == "fill" and "fill_columns" not in preprocessor.abilities:
        raise UserError("data.missing_columns=fill is for columns of numbers and categories: remove it")
    given = preprocessor.read(path, on_error=on_error) if on_error == "skip" else preprocessor.read(path)
    if missing_columns == "fill":
        given.x = preprocessor.fill_columns(given.x)
    return given


def to_line(prediction: dict[str, Any]) -> str:
    """Return a record as a line of JSON.

    Raises:
        UserError: a number is not finite.
    """
    try:
        return json.dumps(prediction, allow_nan=False) + "\n"
    except ValueError as error:
        raise UserError(
            f"row {prediction['row']} of input= has no finite prediction: check for values far from the training data"
        ) from error
