"""Several processes of a training, forked from the test."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

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
