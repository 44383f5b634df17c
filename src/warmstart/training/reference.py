"""Values of the initial weights on all rows, computed once and cached, for objectives that compare with them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from warmstart.config.rewrite import from_parent
from warmstart.core import screen
from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.data.datamodule import TaskDataModule, inputs_digest
from warmstart.data.loader import take
from warmstart.data.storage import cache
from warmstart.huggingface.quantize import plain
from warmstart.run.folder import RunFolder
from warmstart.training.assemble import assemble
from warmstart.training.evaluation import evaluate
from warmstart.training.frozen import by_length
from warmstart.training.modules import FinetuneModule
from warmstart.training.start import check_parent

VALUES = "values.npy"


def set_initial_references(run: RunFolder, config: DictConfig, data: TaskDataModule, trainer: pl.Trainer) -> None:
    """Set the references of the held-out rows for the evaluation of a finished run, if its objective has some.

    Args:
        run: finetuned run.
        config: its config.
        data: its prepared data.
        trainer: determines device and precision.

    Raises:
        UserError: the initial weights of the run are missing or have changed.
    """
    if not has_reference(config):
        return
    config = from_parent(config, run.record["parent"])
    _, module, lineage = assemble(config, like=data)
    check_parent(run, lineage["parent"])
    set_references(config, module, data, trainer, [name for name in data.given if name != "train"])


def set_references(
    config: DictConfig,
    module: FinetuneModule,
    data: TaskDataModule,
    trainer: pl.Trainer,
    parts: Iterable[str] | None = None,
) -> None:
    """Set `Batch.reference` of all rows to `Objective.reference` of the module with its current weights, if it has it.

    The values are computed in evaluation mode, on the device and in the precision of the training, and stored in
    float32. They are cached by a hash of rows, weights, preprocessor and precision.

    Args:
        config: that of the training.
        module: with the initial weights.
        data: prepared data.
        trainer: determines device and precision.
        parts: of the data; None for all.

    Raises:
        UserError: a value is not finite.
    """
    if "reference" not in module.objective.abilities:
        return
    device = trainer.strategy.root_device
    trainer.precision_plugin.convert_module(module).to(device)
    setting = json.dumps(OmegaConf.to_container(config.backbone, resolve=True), sort_keys=True)
    facts = [type(module.objective).__qualname__, setting, device.type, trainer.precision]
    digest = model_digest(module)
    state = json.dumps(data.preprocessor.state(), sort_keys=True)
    found = {}
    for part in data.given if parts is None else parts:
        key = cache.key(digest, state, *map(str, facts), inputs_digest(data.given[part]))
        found[part] = cache.entry(
            "reference", key, lambda folder, part=part: write(module, trainer, data, part, folder), read
        )
    data.set_references(found)


def has_reference(config: DictConfig) -> bool:
    """Return whether the objective compares with the initial weights."""
    return "reference" in get_object(config.objective._target_).abilities


def model_digest(module: nn.Module) -> str:
    """Return the SHA-256 of all tensors of a module and their names."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(plain(value).detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def write(module: FinetuneModule, trainer: pl.Trainer, data: TaskDataModule, part: str, folder: Path) -> None:
    """Write the values of all rows of a part (N, ...), in float32.

    Raises:
        UserError: a value is not finite.
    """
    started = time.monotonic()
    x, y = data.parts[part]
    order = list(by_length(x, module.device, data.held_out_batch))

    def step(batch: Batch, index: int) -> Tensor:
        batch.x = module.augment.scale(batch.x)
        return module.objective.reference(module.backbone, batch).float().cpu()

    found = torch.cat(evaluate(module, trainer, (take(x, y, rows) for rows in order), step))
    if not found.isfinite().all():
        raise UserError("the reference: the initial weights have outputs that are not finite on this data")
    values = torch.empty_like(found)
    values[torch.cat(order)] = found
    np.save(folder / VALUES, values.numpy())
    screen.say(f"computed the reference of {len(x):,} {part} rows in {time.monotonic() - started:.1f} seconds")


def read(folder: Path) -> Tensor:
    """Return the values (N, ...) as a memory map."""
    return torch.from_numpy(np.load(folder / VALUES, mmap_mode="c"))  # torch warns of arrays that cannot be written
