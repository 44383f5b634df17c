"""Several processes of a training, forked from the test."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import tempfile
import traceback
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig

from warmstart.process import main

SECONDS = 120


def in_processes(folder: Path, function: Callable[[int], Any], count: int = 2) -> list[Any]:
    """What `function(rank)` returns in each of some processes that train together."""
    folder.mkdir(parents=True, exist_ok=True)
    fork = multiprocessing.get_context("fork")
    started = [fork.Process(target=_run, args=(folder, function, number, count)) for number in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(SECONDS)
    errors = "\n".join(path.read_text() for path in sorted(folder.glob("*.txt")))
    assert [process.exitcode for process in started] == [0] * count, errors
    return [torch.load(folder / f"{number}.pt", weights_only=False) for number in range(count)]


def started(count: int, arguments: Sequence[str], folder: Path) -> None:
    """Run the processes of a run as `training.processes.start` does, but forked, which needs no imports."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        variables = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    fork = multiprocessing.get_context("fork")
    ranks = [{"RANK": number, "LOCAL_RANK": number} for number in range(count)]
    found = [fork.Process(target=_process, args=(arguments[2:], {**variables, **rank}, count)) for rank in ranks]
    for process in found:
        process.start()
    for process in found:
        process.join(SECONDS)
    assert [process.exitcode for process in found] == [0] * count


def _process(arguments: Sequence[str], variables: dict[str, Any], count: int) -> None:
    sizes = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ |= {name: str(value) for name, value in {**variables, **sizes}.items()}
    GlobalHydra.instance().clear()
    HydraConfig.instance().cfg = None
    try:
        main(*arguments)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _run(folder: Path, function: Callable[[int], Any], number: int, count: int) -> None:
    try:
        names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ |= {name: str(value) for name, value in names.items()}
        torch.set_num_threads(1)
        tempfile.tempdir = str(folder)
        store = f"file://{folder / 'store'}"
        dist.init_process_group("gloo", store, timedelta(seconds=60), count, number)
        torch.save(function(number), folder / f"{number}.pt")
        with contextlib.suppress(RuntimeError):  # if another process has ended
            dist.barrier()
        os._exit(0)
    except BaseException:
        (folder / f"{number}.txt").write_text(traceback.format_exc())
        os._exit(1)
