"""The Lightning Trainer with one logger, our callbacks, low overhead and no console output."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loops.evaluation_loop import RestartStage
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.distributed.processes import world
from warmstart.training.budget import Budget
from warmstart.training.checkpoint import AtomicCheckpointIO
from warmstart.training.data_parallel import DataParallel
from warmstart.training.logger import RunLogger
from warmstart.training.memory import keep_freed_memory
from warmstart.training.sharding import ShardedDataParallel
from warmstart.training.signals import SaveBetweenBatches


def silence() -> None:
    """Redirect warnings and hints of the libraries from the screen to the run's log."""
    logging.captureWarnings(True)
    warnings.simplefilter("default")
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric", "lightning_fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


class NoProfiler(PassThroughProfiler):
    """Avoids the overhead of Lightning's default profiler, which opens a context for each of 40 hooks per step."""

    null = contextlib.nullcontext()

    def profile(self, action_name: str) -> contextlib.AbstractContextManager:
        """Return a shared null context."""
        return self.null


def native_precision(accelerator: str, processor: Path = Path("/proc/cpuinfo")) -> str | None:
    """Return bf16-mixed if Lightning will choose a device with bfloat16 arithmetic, else None.

    Args:
        accelerator: value of `trainer.accelerator`.
        processor: CPU information of Linux; on other systems, CPUs are assumed to lack bfloat16.
    """
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        has_bfloat16 = False
    else:
        flags = set(processor.read_text().split()) if processor.is_file() else set()
        has_bfloat16 = bool(flags & {"avx512_bf16", "amx_bf16"})
    return "bf16-mixed" if has_bfloat16 else None


MACHINE = ("_target_", "accelerator", "devices", "deterministic")  # settings that are not of the training


def machine_trainer(config: DictConfig, folder: Path) -> pl.Trainer:
    """Build a Trainer on the device of a training, without its limits and its precision."""
    return build_trainer(OmegaConf.masked_copy(config, list(MACHINE)), folder, None, [])


def build_trainer(
    config: DictConfig, folder: Path, logger: RunLogger | None, callbacks: list[pl.Callback]
) -> pl.Trainer:
    """Build a Trainer from the `trainer` group, with output in the run's folder.

    `max_time`, `max_tokens` and precision=auto are handled here instead of by Lightning, `threads` and `min_steps`
    elsewhere; `sharding` has an effect with several processes.

    Raises:
        UserError: Lightning rejects a setting, or the machine has no such accelerator.
    """
    silence()
    keep_freed_memory()
    own = OmegaConf.to_container(config, resolve=True)
    for name in ("threads", "min_steps"):
        own.pop(name, None)
    limits = {name: own.pop(name, None) for name in ("max_time", "max_tokens")}
    if any(limit is not None for limit in limits.values()):
        callbacks = [*callbacks, Budget(**limits)]
    own |= processes(own.pop("sharding", None))
    if own.get("precision") == "auto":
        own["precision"] = native_precision(own.get("accelerator", "auto"))
    profiler = {} if own.get("profiler") else {"profiler": NoProfiler()}
    make = instantiate(own, _partial_=True, _convert_="all")
    settings = dict(
        **profiler,
        default_root_dir=folder,
        logger=logger or False,
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO(), LightningEnvironment() if world() == 1 else TorchElasticEnvironment()],
        enable_checkpointing=any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )
    try:
        trainer = make(**settings)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise UserError(f"trainer: {str(error).strip().splitlines()[0]}") from error
    keep_targets(trainer.precision_plugin)
    loop = FitLoop(trainer, trainer.fit_loop.min_epochs, trainer.fit_loop.max_epochs)
    loop.epoch_loop = trainer.fit_loop.epoch_loop
    trainer.fit_loop = loop
    return trainer


def processes(sharding: str | None = None) -> dict[str, Any]:
    """Return the settings of Lightning for the processes of this training; it never starts any itself."""
    if world() == 1:
        return {"devices": 1}
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    settings = {"devices": local, "num_nodes": world() // local}
    if sharding is None:
        return {**settings, "strategy": DataParallel()}
    return {**settings, "strategy": ShardedDataParallel(), "inference_mode": False}  # its tensors would be trained


def keep_targets(precision: Any) -> None:
    """Keep float64 targets, float16 ones of a teacher and references, also with precisions such as bf16-true.

    An objective standardizes them before they are rounded, and metrics are computed from them.
    """
    convert = precision.convert_input

    def converted(batch: Batch) -> Batch:
        result = convert(batch)
        if isinstance(batch.y, Tensor) and batch.y.dtype in (torch.float64, torch.float16):
            result.y = batch.y
        result.reference = batch.reference
        return result

    precision.convert_input = converted


def fit(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule, resume: Path | None = None
) -> None:
    """Train; a signal saves a checkpoint after the current batch and, unless it is SIGUSR1, stops the training.

    Raises:
        KeyboardInterrupt: the training was stopped; by SIGTERM, it is Terminated.
    """
    signals = SaveBetweenBatches(trainer)
    trainer.callbacks.append(signals)
    try:
        with signals.listening():
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    finally:
        trainer.callbacks.remove(signals)
    signals.stop.check()


def measured(trainer: pl.Trainer) -> dict[str, float]:
    """Return the last logged metrics by name."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


class FitLoop(_FitLoop):
    """Completes an epoch in which a limit is reached, so that its loss is logged, before the training ends.

    A run that was stopped during a validation repeats it when it is resumed. A run that is extended continues with
    another epoch.
    """

    repeats_validation = False
    is_extended = False

    @property
    def done(self) -> bool:
        """Return whether a limit is reached and the epoch is complete."""
        epochs = self.epoch_progress.total
        return super().done and epochs.processed == epochs.started

    def advance(self) -> None:
        """Run the rest of an epoch, unless the training was to be stopped when the checkpoint was written."""
        if self.epoch_loop.restarting and self.trainer.should_stop and self._can_stop_early:
            self.epoch_loop._batches_that_stepped += (
                not self._should_accumulate()
            )  # done after the checkpoint otherwise
        if self.epoch_loop.restarting and self.is_extended:
            self.epoch_loop.batch_progress.current.reset()
            self.epoch_loop.batch_progress.is_last_batch = False
        if self.epoch_loop.restarting and self.repeats_validation:
            self.repeats_validation = False
            self.epoch_loop.val_loop.batch_progress.reset()
            self.epoch_loop.val_loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION
        super().advance()

    def on_save_checkpoint(self) -> dict[str, Any]:
        """Return the state, with whether the checkpoint is written before the end of a validation."""
        repeats = self.trainer.validating and not self.trainer.checkpoint_callback.is_validated
        return {**super().on_save_checkpoint(), "repeats_validation": repeats}

    def on_load_checkpoint(self, state_dict: dict[str, Any]) -> None:
        """Restore the state."""
        super().on_load_checkpoint(state_dict)
        self.repeats_validation = state_dict.get("repeats_validation", False)
        current = self.epoch_progress.current
        self.is_extended = current.processed == current.started > 0
