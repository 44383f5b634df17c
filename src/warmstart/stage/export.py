"""stage=export: a trained model as a folder that other libraries load."""

from __future__ import annotations

import shutil
from pathlib import Path

from omegaconf import DictConfig

from warmstart import screen
from warmstart.contracts import UserError
from warmstart.data.preprocess import rebuild
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import find, finished, runs_of
from warmstart.stage.restore import exported
from warmstart.stage.train import runs_folder

FORMATS = ("hf",)


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Write the model of the run that `run=` names, whole or not at all.

    Raises:
        UserError: the format is not known, the folder is taken, or the model is of no architecture that can be written.
    """
    if config.format not in FORMATS:
        raise UserError(f"format={config.format}: give {' or '.join(FORMATS)}")
    if config.folder is not None and Path(config.folder).exists():
        raise UserError(f"folder={config.folder} is there already: name another one")
    trained = chosen(config)
    screen.say(f"exporting {trained.path}")
    model, saved = exported(trained, trained.config(tuple(config.trust)))
    run = opened or RunFolder.create(config, runs_folder(config))
    run.update(parent={"id": trained.record["id"], "weights_sha256": saved.weights_sha256})
    folder = Path(config.folder) if config.folder is not None else run.path / "model"
    with run.recording():
        temporary = folder.with_name(f".{folder.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        model.save_pretrained(temporary)
        rebuild(saved.preprocessor).export(temporary)
        temporary.rename(folder)
    name = type(model).__name__
    screen.say(f"{name}: {folder}")
    screen.next_command(f'python -c "from transformers import {name}; {name}.from_pretrained({str(folder)!r})"')
    return run


def chosen(config: DictConfig) -> RunFolder:
    """The newest finetuning run of this experiment, or else its newest pretraining run; or the one at a path."""
    if config.run != "latest":
        return finished(Path(config.run))
    output = Path(config.output_dir)
    tuned = any(run.record["status"] == "done" for run in runs_of(output, "finetune", config.experiment))
    return find("latest", output, "finetune" if tuned else "pretrain", config.experiment)
