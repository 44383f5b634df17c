"""stage=screen: measures of the frozen features of one start of a transfer, on its labelled rows."""

from __future__ import annotations

import time

from hydra.utils import get_object
from omegaconf import DictConfig

from warmstart.core.errors import UserError
from warmstart.data.datamodule import evenly
from warmstart.run.folder import RunFolder
from warmstart.training.assemble import assemble
from warmstart.training.memory import peak_memory_mb, reset_peak_memory
from warmstart.training.record import note_data, runs_folder
from warmstart.training.trainer import machine_trainer
from warmstart.training.visualization.features import features_of
from warmstart.transfer.start_selection import KNN, LOGME
from warmstart.transfer.transferability import logme, nearest_neighbor_score

ROWS = 2000  # at most, evenly spaced


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Compute and record the measures.

    Args:
        config: a finetuning config.
        opened: the run folder to resume; by default, a new one.

    Raises:
        UserError: features are not finite.
    """
    reset_peak_memory()
    started = time.monotonic()
    target = get_object(config.objective._target_).target
    data, module, lineage = assemble(config)
    run = opened or RunFolder.create(config, runs_folder(config))
    with run.recording():
        run.update(**lineage)
        note_data(run, config, data)
        trainer = machine_trainer(config.trainer, run.path)
        module.to(trainer.strategy.root_device)
        rows = data.sample("train", ROWS)
        if len(rows.y) < 2:
            raise UserError("a screen needs two labelled rows or more: add larger counts to transfer.labels")
        cluster = data.given["train"].cluster
        clusters = None if cluster is None else cluster[evenly(len(cluster), ROWS)]
        features, y = features_of(module, trainer, rows, data.batch_size).double().numpy(), rows.y.numpy()
        try:
            metrics = {KNN: nearest_neighbor_score(features, y, target, clusters), LOGME: logme(features, y, target)}
        except ValueError as error:
            raise UserError("the features of the start are not finite, so it cannot be screened") from error
        cost = {"seconds": time.monotonic() - started, "steps": 0, "examples": len(y)}
        run.update(metrics=metrics, cost={**cost, "peak_memory_mb": peak_memory_mb()})
    return run
