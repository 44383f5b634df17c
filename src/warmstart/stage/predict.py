"""stage=predict: answers for new data, one JSON line per row, on standard output and in the run's folder."""

from __future__ import annotations

import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from warmstart import screen
from warmstart.contracts import UserError
from warmstart.data.encoding import encode
from warmstart.data.loader import GatherLoader
from warmstart.data.memory import EVALUATION_BATCH
from warmstart.data.preprocess import rebuild
from warmstart.run.folder import RunFolder, write_atomically
from warmstart.run.lineage import TUNED, find
from warmstart.stage.restore import restore
from warmstart.stage.train import runs_folder
from warmstart.trainer.build import build_trainer


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Predict for `input=` with the run that `run=` names."""
    finetuned = find(config.run, Path(config.output_dir), TUNED, config.experiment)
    screen.say(f"predicting with {finetuned.path}")
    theirs = finetuned.config(tuple(config.trust))
    module, saved = restore(finetuned, theirs)
    preprocessor = rebuild(saved.preprocessor)
    raw, files = preprocessor.read(str(config.input))
    x, y = encode(preprocessor, raw, module.objective.target)
    run = opened or RunFolder.create(config, runs_folder(config))
    run.update(parent={"id": finetuned.record["id"], "weights_sha256": saved.weights_sha256})
    with run.recording():
        loader = GatherLoader(x, y, getattr(preprocessor, "held_out_batch", EVALUATION_BATCH))
        module.spec = saved.spec
        lines = list(chain.from_iterable(build_trainer(theirs.trainer, run.path, None, []).predict(module, loader)))
        places = [{"row": row, **({"file": files[row - 1]} if files else {})} for row in range(1, len(lines) + 1)]
        answers = "".join(to_line({**place, **line}) for place, line in zip(places, lines))
        write_atomically(run.path / "predictions.jsonl", answers)
        sys.stdout.write(answers)
    screen.say(f"{len(lines):,} predictions: {run.path / 'predictions.jsonl'}")
    return run


def to_line(answer: dict[str, Any]) -> str:
    """A record as a line of JSON.

    Raises:
        UserError: a number in it is not finite.
    """
    try:
        return json.dumps(answer, allow_nan=False) + "\n"
    except ValueError as error:
        raise UserError(
            f"row {answer['row']} of input= has no finite prediction: is one of its values far from those of training?"
        ) from error
