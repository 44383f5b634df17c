"""`extend=RUN trainer.max_steps=N`: continue a finished run for longer, as a new run."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from warmstart.config.rewrite import changed
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.reading import file_sha256
from warmstart.core.screen import quoted
from warmstart.run.files import replacing
from warmstart.run.folder import RunFolder
from warmstart.training.checkpoint import read_checkpoint

STAGES = ("pretrain", "finetune")
KEPT = ("extend", "trust", "output_dir")  # keys allowed together with the length
LENGTHS = ("trainer.max_steps", "trainer.max_epochs")
NO_LENGTH = {"trainer.max_steps": -1, "trainer.max_epochs": -1, "trainer.min_steps": None}
LOGS = ("metrics.csv", "projector_config.pbtxt", "events.out.tfevents.*")
CHECKPOINTS = ("checkpoints/last.ckpt", "checkpoints/best.ckpt")


def run(config: DictConfig) -> None:
    """Create a run with the config of a finished one and another length, which starts from its last checkpoint.

    Weights, optimizer, random numbers and the position in the data continue. The learning rate of a step is that of the
    schedule over the new length.

    Args:
        config: as composed, with `extend` and a length.

    Raises:
        UserError: the run is not finished, has no checkpoint or is as long already, or other settings are given.
    """
    source = RunFolder.open(Path(str(config.extend)))
    check(source)
    longer, length = with_length(source, config)
    new = RunFolder.create(longer, Path(config.output_dir) / source.record["stage"] / source.record["experiment"])
    with new.recording():
        (new.path / CHECKPOINTS[0]).parent.mkdir()
        for path in (path for pattern in (*LOGS, *CHECKPOINTS) for path in sorted(source.path.glob(pattern))):
            with replacing(new.path / path.relative_to(source.path)) as temporary:
                shutil.copyfile(path, temporary)
        kept = {name: source.record[name] for name in ("parent", "teacher", "cost") if name in source.record}
        digest = file_sha256(source.path / CHECKPOINTS[0])
        new.update(**kept, extends={"id": source.record["id"], "path": str(source.path), "checkpoint_sha256": digest})
        screen.say(f"extending {source.path} to {length}: learning rates are those of the schedule over this length")
        importlib.import_module(f"warmstart.stages.{source.record['stage']}").run(longer, new)


def check(source: RunFolder) -> None:
    """Raise an error if a run cannot be extended.

    Raises:
        UserError: it is of another stage, not finished, or without checkpoints.
    """
    name, stage, status = f"extend={source.path}", source.record["stage"], source.record["status"]
    if stage not in STAGES:
        raise UserError(f"{name} is a run of stage={stage}: only a pretraining or a finetuning can be extended")
    if status != "done":
        raise UserError(f"{name} is {status}: continue it with resume={quoted(source.path)}")
    missing = [path for path in CHECKPOINTS if not (source.path / path).is_file()]
    if missing:
        raise UserError(f"{name} has no {missing[0]}: start a new run with init={quoted(source.path)} instead")


def with_length(source: RunFolder, config: DictConfig) -> tuple[DictConfig, str]:
    """Return the config of a run with the length of this command line, and the length in words.

    Raises:
        UserError: no length is given, it is not longer, or other settings are given.
    """
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    keys = [word.lstrip("+").split("=")[0] for word in words]
    same = [f"{key}={source.record[key]}" for key in ("stage", "experiment")]
    others = [
        word for key, word in zip(keys, words) if key not in (*KEPT, *LENGTHS, "trainer.min_steps") and word not in same
    ]
    if others:
        raise UserError(f"extend= uses the config of the run: remove {' '.join(others)}")
    given = {key: OmegaConf.select(config, key) for key in LENGTHS if key in keys}
    if not given:
        raise UserError(f"extend={source.path} needs a length: add trainer.max_steps=N or trainer.max_epochs=N")
    checkpoint = read_checkpoint(source.path / CHECKPOINTS[0], mmap=True)
    reached = {"trainer.max_steps": checkpoint["global_step"], "trainer.max_epochs": checkpoint["epoch"]}
    for key, value in given.items():
        if value <= reached[key]:
            raise UserError(f"{key}={value}: the run has {reached[key]} already; give more")
    return changed(source.config(tuple(config.trust)), {**NO_LENGTH, **given}), " ".join(
        f"{key}={value}" for key, value in given.items()
    )
