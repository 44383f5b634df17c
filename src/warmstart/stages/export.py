"""stage=export: save a trained model as a folder for other libraries."""

from __future__ import annotations

import functools
from pathlib import Path

import transformers
from omegaconf import DictConfig

from warmstart.config.resolve import with_run
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
from warmstart.huggingface.adapters import load_adapter, save_adapter, written_config
from warmstart.run.files import remove_temporaries_of, replacing_folder, temporary_path
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import TUNED, find, finished, runs_of
from warmstart.run.saved import open_adapter
from warmstart.training.export_check import check_export
from warmstart.training.record import runs_folder
from warmstart.training.restore import exported

FORMATS = ("hf", "peft")


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Save the model of the run `run=` if the exported folder gives the same predictions as the run.

    The format hf is a model of transformers, with adapters merged, and peft an adapter of a Hugging Face model.

    Raises:
        UserError: the format is unknown or not supported by the run, the folder exists, transformers has no such
            architecture, or its predictions differ.
    """
    if config.format not in FORMATS:
        raise UserError(f"format={config.format}: give {' or '.join(FORMATS)}")
    if config.folder is not None and not (opened and opened.record.get("export")):
        check_free(Path(config.folder))
    trained = find_trained(config)
    adapter = open_adapter(trained) if config.format == "peft" else None
    screen.say(f"exporting {trained.path}")
    trained_config = trained.config(tuple(config.trust))
    model, (backbone, objective), saved = exported(trained, trained_config)
    run = opened or RunFolder.create(with_run(config, trained), runs_folder(config))
    folder = Path(config.folder) if config.folder is not None else run.path / "model"
    transformers.logging.disable_progress_bar()
    with run.recording():
        run.update(parent={"id": trained.record["id"], "weights_sha256": saved.weights_sha256})
        remove_temporaries_of(folder)
        with replacing_folder(folder) as temporary:
            preprocessor = rebuild(
                {**saved.preprocessor, **({"too_long": "truncate"} if "too_long" in saved.preprocessor else {})}
            )
            if adapter is None:
                load = functools.partial(type(model).from_pretrained, temporary, local_files_only=True)
                library, name = "transformers", type(model).__name__
                model.save_pretrained(temporary)
                preprocessor.export(temporary)
            else:
                load = functools.partial(load_adapter, temporary, adapter[0])
                library, name = "peft", "AutoPeftModelForCausalLM"
                save_adapter(temporary, adapter[0], model, adapter[1])
                with written_config(model, temporary):
                    preprocessor.export(temporary)
            objective.export(temporary)
            run.update(export=check_export(temporary, load, (backbone, objective), preprocessor, trained_config))
    screen.say(f"{name}: {folder}")
    code = f"from {library} import {name}; {name}.from_pretrained({str(folder)!r})"
    screen.next_command(screen.command("python", "-c", code))
    return run


def check_free(folder: Path) -> None:
    """Raise an error if a folder exists or cannot be created."""
    try:
        if folder.exists():
            raise UserError(f"folder={folder} exists: give another one")
        folder.parent.mkdir(parents=True, exist_ok=True)
        trial = temporary_path(folder)  # `remove_temporaries_of` removes it if the process is killed here
        trial.mkdir()
        trial.rmdir()
    except OSError as error:
        raise UserError(f"folder={folder} cannot be created: {error.strerror}") from error


def find_trained(config: DictConfig) -> RunFolder:
    """Return the run at a path, or the experiment's latest finetuning run or soup, else its latest pretraining run."""
    if config.run != "latest":
        return finished(Path(config.run))
    output = Path(config.output_dir)
    runs = [run for stage in TUNED for run in runs_of(output, stage, config.experiment)]
    tuned = any(run.record["status"] == "done" for run in runs)
    return find("latest", output, TUNED if tuned else "pretrain", config.experiment)
