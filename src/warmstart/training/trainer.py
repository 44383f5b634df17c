"""The Lightning Trainer with one logger, our callbacks, low overhead and no console output."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loops.fit_loop import _FitLoop
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.distributed.processes import any_process, world
from warmstart.training.budget import Budget
from warmstart.training.checkpoint import AtomicCheckpointIO
from warmstart.training.data_parallel import DataParallel
from warmstart.training.logger import RunLogger
from warmstart.training.memory import keep_freed_memory
from warmstart.training.sharding import ShardedDataParallel


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
        plugins=[AtomicCheckpointIO()],
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
    """Return the settings of Lightning for the processes of this training; none for a single process."""
    if world() == 1:
        return {}
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
    """Train; a signal stops the training after the current batch and raises KeyboardInterrupt."""
    stop = StopBetweenBatches()
    trainer.callbacks.append(stop)
    with stop.listening():
        trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    if stop.received:
        raise KeyboardInterrupt


def measured(trainer: pl.Trainer) -> dict[str, float]:
    """Return the last logged metrics by name."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


class FitLoop(_FitLoop):
    """Completes an epoch in which a limit is reached, so that its loss is logged, before the training ends."""

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
        super().advance()


DEFAULT = (signal.SIG_DFL, signal.default_int_handler)


@contextlib.contextmanager
def handling(handler: Callable[[int, Any], None] = signal.default_int_handler) -> Iterator[None]:
    """Handle SIGINT and SIGTERM with `handler` inside the context, unless they are ignored or have another handler.

    Lightning converts an interrupt to an exit and then ignores SIGINT: the exit is converted to KeyboardInterrupt, and
    the handlers are restored.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    for number, found in before.items():
        if found in DEFAULT:
            signal.signal(number, handler)
    try:
        yield
    except SystemExit as exit_:
        raise KeyboardInterrupt from exit_
    finally:
        for number, found in before.items():
            if found is not None:
                signal.signal(number, found)


class StopBetweenBatches(pl.Callback):
    """Raises KeyboardInterrupt after the current batch if a signal was received, and immediately at a second signal."""

    def __init__(self) -> None:
        self.received = False

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Return the context in which signals are handled."""
        return handling(self.note)

    def note(self, number: int, frame: Any) -> None:
        """Handle a signal."""
        if self.received:
            raise KeyboardInterrupt
        self.received = True

    def on_train_batch_end(self, *args: Any) -> None:
        """Raise KeyboardInterrupt if a signal was received, by any process."""
        self.received = any_process(self.received)
        self.check()

    def on_validation_batch_end(self, *args: Any) -> None:
        """Raise KeyboardInterrupt if a signal was received; several processes stop after their next training batch."""
        if world() == 1:
            self.check()

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal was received."""
        if self.received:
            raise KeyboardInterrupt
