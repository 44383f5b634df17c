"""Starts the processes of a training with several devices, and opens its run in each of them.

A run with `trainer.devices` above 1 is frozen in its folder; torch.distributed then starts one process per device,
which trains it with the stage of the run. Processes started by others, such as torchrun or Slurm, are found by their
environment variables. The first process writes the run folder; the others use a temporary one.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from warmstart.core.errors import UserError, WriteError, interrupt_of
from warmstart.core.reading import load_json
from warmstart.core.signals import interrupt
from warmstart.data.datamodule import MemoryDataModule
from warmstart.distributed.processes import agreed, all_values, broadcast, rank, world
from warmstart.run import cores
from warmstart.run.folder import RunFolder
from warmstart.run.identity import config_sha256, new_id, resolved
from warmstart.training.record import runs_folder

TIMEOUT = timedelta(minutes=30)  # of a collective operation, such as waiting for the preparation of data
MONITOR_SECONDS = 0.1
USER, WRITE, OTHER = "user", "write", "other"  # kinds of errors


class ProcessFailed(RuntimeError):
    """A process of a training ended with an error that the user cannot correct, or by a signal."""


def needs_processes(config: DictConfig) -> bool:
    """Return whether processes must be started for the devices of a training."""
    return world() == 1 and int(config.trainer.devices) > 1


def train_in_processes(config: DictConfig, opened: RunFolder | None, callbacks: Sequence[Any]) -> RunFolder:
    """Train a run in one process per device.

    Args:
        config: a composed pretraining or finetuning config.
        opened: the run folder to resume; by default, a new one.
        callbacks: must be empty, as callbacks belong to this process.

    Raises:
        UserError: a process had one, or there are callbacks, or too few accelerators.
        ProcessFailed: a process failed.
    """
    if callbacks:
        raise UserError("trainer.devices above 1 is not supported in searches that stop jobs early: set it to 1")
    check_devices(config)
    run = opened or RunFolder.create(config, runs_folder(config))
    with run.recording(), tempfile.TemporaryDirectory() as errors:
        try:
            start(int(config.trainer.devices), ["-m", "warmstart.process", str(run.path), errors, *config.trust])
        except SignalException as error:
            interrupt(error.sigval)
        except ChildFailedError as error:
            raise error_of(error, Path(errors), config) from error
        finally:
            run.record = RunFolder.open(run.path).record | {"status": "running"}
    return run


def check_devices(config: DictConfig) -> None:
    """Raise an error if there are fewer accelerators than `trainer.devices`; CPUs are shared."""
    wanted = config.trainer.devices
    found = torch.cuda.device_count() if config.trainer.accelerator in ("auto", "gpu", "cuda") else 0
    if config.trainer.accelerator == "mps" or (found and found < wanted):
        raise UserError(f"trainer.devices={wanted}: this machine has {max(1, found)}")


def start(count: int, arguments: Sequence[str]) -> None:
    """Run Python with these arguments in `count` processes; if one fails, the others are stopped.

    Raises:
        ChildFailedError: a process failed.
        SignalException: a signal came.
    """
    settings = LaunchConfig(
        run_id=new_id(),
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=MONITOR_SECONDS,
    )
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else DDP warns of the search for unused parameters
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        elastic_launch(settings, sys.executable)(*arguments)
    finally:
        with contextlib.suppress(ValueError):  # not in the main thread
            for number, handler in handlers.items():
                signal.signal(number, handler)


def error_of(failure: ChildFailedError, folder: Path, config: DictConfig) -> BaseException:
    """Return the first error of a process, from the files that `noting_error` wrote."""
    found = sorted((load_json(path) for path in folder.glob("*.json")), key=lambda one: one["time"])
    known = next((one for one in found if one["kind"] != OTHER), None)
    ends = {number: end.exitcode for number, end in sorted(failure.failures.items())}
    killed = [number for number, code in ends.items() if code < 0 and code != -signal.SIGTERM]  # which stops the others
    if known is None and (killed or not found):
        number = (killed or list(ends))[0]
        code = ends[number]
        reason = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return ProcessFailed(f"process {number} of {config.trainer.devices} {reason}")
    first = known or found[0]
    if first["kind"] == USER:
        return UserError(first["message"])
    if first["kind"] == WRITE:
        return WriteError(Path(first["path"]), first["message"])
    return ProcessFailed(f"process {first['process']} of {config.trainer.devices} failed:\n{first['message']}")


@contextlib.contextmanager
def noting_error(folder: Path) -> Iterator[None]:
    """Write an error of this process to a file in the folder."""
    import time

    try:
        yield
    except BaseException as error:
        if interrupt_of(error) is None:
            kind = USER if isinstance(error, UserError) else WRITE if isinstance(error, WriteError) else OTHER
            message = {USER: str(error), WRITE: getattr(error, "reason", "")}.get(kind, traceback.format_exc())
            entry = {"process": rank(), "time": time.time(), "kind": kind, "message": message}
            where = {"path": str(error.path)} if isinstance(error, WriteError) else {}
            (folder / f"{os.environ['RANK']}.json").write_text(json.dumps({**entry, **where}))
        raise


def join() -> None:
    """Join the processes of this training, as the variables of torchrun describe; they share the CPU threads."""
    is_gpu = torch.cuda.is_available()
    if is_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if is_gpu else "gloo", timeout=TIMEOUT)
    cores.use(max(1, (cores.in_use() or 1) // int(os.environ["LOCAL_WORLD_SIZE"])))


def open_run(config: DictConfig, opened: RunFolder | None) -> RunFolder:
    """Return the run folder, by default a new one; for other processes than the first, a temporary one."""
    if world() == 1:
        return opened or RunFolder.create(config, runs_folder(config))
    with agreed():
        run = (opened or RunFolder.create(config, runs_folder(config))) if rank() == 0 else None
    record = broadcast(run and run.record)
    if run is not None:
        return run
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return RunFolder(folder, record)


def check_equal(config: DictConfig, data: MemoryDataModule) -> None:
    """Raise an error if the processes have different code, settings or data.

    Raises:
        UserError: with what differs, and in which process.
    """
    own = {
        "code": code_sha256(),
        "torch": torch.__version__,
        "config": config_sha256(resolved(config)),
        "data": data.fingerprint,
    }
    found = all_values(own)
    for number, other in enumerate(found):
        for name, value in other.items():
            if value != found[0][name]:
                raise UserError(
                    f"process {number} has a different {name} from process 0: all processes of a run need the same"
                )


def code_sha256() -> str:
    """Return the SHA-256 of the source files of the package."""
    digest, root = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()
