"""Starts the processes of a training with several devices, and opens its run in each of them.

A run with `trainer.devices` above 1 is frozen in its folder; torch.distributed then starts one process per device,
which trains it with the stage of the run. Processes that torchrun or Slurm started are found by their environment
variables. The first process writes the run folder; the others use a temporary one.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from omegaconf import DictConfig
from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from warmstart.core import screen
from warmstart.core.errors import UserError, WriteError
from warmstart.core.init import Init
from warmstart.core.reading import load_json
from warmstart.core.signals import interrupt
from warmstart.data.datamodule import MemoryDataModule
from warmstart.distributed.processes import agreed, all_values, broadcast, rank, world
from warmstart.run import cores
from warmstart.run.folder import RunFolder
from warmstart.run.identity import config_sha256, new_id, resolved
from warmstart.run.process_error import OTHER, USER, WRITE
from warmstart.training.record import runs_folder

TIMEOUT = timedelta(minutes=30)  # of a collective operation, such as waiting for the preparation of data
MONITOR_SECONDS = 0.1
HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)  # during a training


class ProcessFailed(RuntimeError):
    """A process of a training ended with an error that the user cannot correct, or by a signal."""


def needs_processes(config: DictConfig) -> bool:
    """Return whether processes must be started for the devices of a training."""
    has_steps = Init.parse(str(config.get("init", "scratch"))).kind != "static"
    return world() == 1 and int(config.trainer.devices) > 1 and has_steps


def train_in_processes(config: DictConfig, opened: RunFolder | None, callbacks: Sequence[Any]) -> RunFolder:
    """Train a run in one process per device.

    Args:
        config: a composed pretraining or finetuning config.
        opened: the run folder to resume; by default, a new one.
        callbacks: callbacks of the Trainer, which are not supported.

    Raises:
        UserError: a process had one, or there are callbacks, or too few accelerators.
        ProcessFailed: a process failed.
    """
    if callbacks:
        raise UserError(
            "trainer.devices above 1 is not supported with a pruner, which acts in this process: set it to 1"
        )
    check_devices(config)
    run = opened or RunFolder.create(config, runs_folder(config))
    with run.recording(), tempfile.TemporaryDirectory() as errors:
        try:
            quiet = str(int(screen.is_quiet()))
            arguments = ["-m", "warmstart.process", str(run.path), errors, quiet, *config.trust]
            start(int(config.trainer.devices), arguments, Path(errors))
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


def start(count: int, arguments: Sequence[str], folder: Path) -> None:
    """Run Python with these arguments in `count` processes; if one fails, the others are stopped.

    SIGUSR1 is passed on to them.

    Args:
        count: number of processes.
        arguments: of Python.
        folder: for files of torch.distributed.

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
        logs_specs=DefaultLogsSpecs(log_dir=str(folder)),
    )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the errors are printed by the caller
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # else DDP warns of the search for unused parameters
    handlers = {number: signal.getsignal(number) for number in HANDLED}
    is_main = threading.current_thread() is threading.main_thread()
    try:
        if is_main:
            signal.signal(signal.SIGUSR1, pass_on)
        elastic_launch(settings, sys.executable)(*arguments)
    finally:
        for number, handler in handlers.items() if is_main else ():
            signal.signal(number, handler)


def pass_on(number: int, frame: Any) -> None:
    """Send a signal to the processes that this one has started (Linux)."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    for child in children.read_text().split() if children.is_file() else ():
        if b"warmstart.process" in Path(f"/proc/{child}/cmdline").read_bytes():
            os.kill(int(child), number)


def error_of(failure: ChildFailedError, folder: Path, config: DictConfig) -> BaseException:
    """Return the first error of a process, from the files that `noting` wrote."""
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


def join(divides: bool = True) -> None:
    """Join the processes of this training, as the variables of torchrun describe.

    Args:
        divides: whether to divide the CPU threads among the processes of this machine.
    """
    is_gpu = torch.cuda.is_available()
    if is_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("cpu:gloo,cuda:nccl" if is_gpu else "gloo", timeout=TIMEOUT)
    if divides:
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
    if world() == 1:
        return
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
