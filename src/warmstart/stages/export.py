"""stage=export: a trained model as a folder that other libraries load."""

from __future__ import annotations

import tempfile
from pathlib import Path

import transformers
from omegaconf import DictConfig

from warmstart.config.resolve import named
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
from warmstart.run.files import remove_temporaries_of, replacing_folder
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import TUNED, find, finished, runs_of
from warmstart.training.export_check import check_export
from warmstart.training.record import runs_folder
from warmstart.training.restore import exported

FORMATS = ("hf",)


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Write the model of the run that `run=` names, where the folder gives the same answers as the run; else nothing.

    Raises:
        UserError: the format is not known, the folder is taken, the model is of no architecture that can be written,
            or transformers computes something else from it.
    """
    if config.format not in FORMATS:
        raise UserError(f"format={config.format}: give {' or '.join(FORMATS)}")
    if config.folder is not None and not (opened and opened.record.get("export")):
        check_free(Path(config.folder))
    trained = chosen(config)
    screen.say(f"exporting {trained.path}")
    theirs = trained.config(tuple(config.trust))
    model, (backbone, objective), saved = exported(trained, theirs)
    run = opened or RunFolder.create(named(config, trained), runs_folder(config))
    folder = Path(config.folder) if config.folder is not None else run.path / "model"
    transformers.logging.disable_progress_bar()
    with run.recording():
        run.update(parent={"id": trained.record["id"], "weights_sha256": saved.weights_sha256})
        remove_temporaries_of(folder)
        with replacing_folder(folder) as whole:
            model.save_pretrained(whole)
            preprocessor = rebuild(
                {**saved.preprocessor, **({"too_long": "truncate"} if "too_long" in saved.preprocessor else {})}
            )
            preprocessor.export(whole)
            objective.export(whole)
            run.update(export=check_export(whole, model, (backbone, objective), preprocessor, theirs))
    name = type(model).__name__
    screen.say(f"{name}: {folder}")
    code = f"from transformers import {name}; {name}.from_pretrained({str(folder)!r})"
    screen.next_command(screen.command("python", "-c", code))
    return run


def check_free(folder: Path) -> None:
    """Refuse a folder that is there already, or cannot be made."""
    try:
        if folder.exists():
            raise UserError(f"folder={folder} is there already: name another one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=folder.parent, prefix=".").cleanup()
    except OSError as error:
        raise UserError(f"folder={folder} cannot be made: {error.strerror}") from error


def chosen(config: DictConfig) -> RunFolder:
    """The newest finetuning run or soup of this experiment, or else its newest pretraining run; or that at a path."""
    if config.run != "latest":
        return finished(Path(config.run))
    output = Path(config.output_dir)
    runs = [run for stage in TUNED for run in runs_of(output, stage, config.experiment)]
    tuned = any(run.record["status"] == "done" for run in runs)
    return find("latest", output, TUNED if tuned else "pretrain", config.experiment)
