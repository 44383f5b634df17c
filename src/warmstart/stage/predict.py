"""stage=predict: answers for new data, one JSON line per row, on standard output and in the run's folder."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import torch
from omegaconf import DictConfig

from warmstart import screen
from warmstart.contracts import Inputs, Preprocessor, UserError
from warmstart.data.encoding import encode
from warmstart.data.loader import GatherLoader
from warmstart.data.memory import EVALUATION_BATCH
from warmstart.data.preprocess import rebuild
from warmstart.run.folder import RunFolder, write_atomically
from warmstart.run.lineage import TUNED, find
from warmstart.stage.restore import restore
from warmstart.stage.train import runs_folder


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Predict for `input=` with the run that `run=` names."""
    finetuned = find(config.run, Path(config.output_dir), TUNED, config.experiment)
    screen.say(f"predicting with {finetuned.path}")
    module, saved = restore(finetuned, finetuned.config(tuple(config.trust)))
    preprocessor = rebuild(saved.preprocessor)
    given = read_inputs(preprocessor, str(config.input), config.on_error)
    x, y = encode(preprocessor, given.x, module.objective.target)
    run = opened or RunFolder.create(config, runs_folder(config))
    run.update(parent={"id": finetuned.record["id"], "weights_sha256": saved.weights_sha256})
    with run.recording():
        lines = []
        size = getattr(preprocessor, "held_out_batch", EVALUATION_BATCH)
        with torch.inference_mode():
            for batch in GatherLoader(x, y, size):
                batch.x = preprocessor(batch.x)
                outputs = module.objective.predict(module.backbone, batch)
                lines += module.objective.answer(outputs, batch, saved.spec)
        files, parts = given.files or [None] * len(given), given.parts or [{}] * len(given)
        places = [
            {"row": row, **({} if file is None else {"file": file}), **part}
            for row, file, part in zip(given.rows, files, parts)
        ]
        answers = "".join(json.dumps({**place, **line}, allow_nan=False) + "\n" for place, line in zip(places, lines))
        write_atomically(run.path / "predictions.jsonl", answers)
        sys.stdout.write(answers)
    screen.say(f"{len(lines):,} predictions: {run.path / 'predictions.jsonl'}")
    return run


def read_inputs(preprocessor: Preprocessor, path: str, on_error: str) -> Inputs:
    """What to predict for; with `on_error=skip`, files that cannot be read are left out and listed.

    Raises:
        UserError: an input cannot be read, or inputs of this kind cannot be skipped.
    """
    if on_error not in ("raise", "skip"):
        raise UserError(f"on_error={on_error}: give raise or skip")
    if on_error == "raise":
        return preprocessor.read(path)
    if "on_error" not in inspect.signature(preprocessor.read).parameters:
        raise UserError("on_error=skip is for inputs that are files, such as images or recordings: set on_error=raise")
    return preprocessor.read(path, on_error=on_error)
