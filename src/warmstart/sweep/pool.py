"""Tasks in processes of this machine: each with its device and threads, none waiting for a slower one.

New processes are forked from a server that has imported torch and nothing else, so one costs a fraction of a second.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from warmstart.run import cores

Task = Callable[[], Any]

GRACE = 10.0  # seconds for a job that is told to stop to write down that it was


class Death(NamedTuple):
    """A process ended before its task did."""

    reason: str


class Crash(NamedTuple):
    """A task raised what it should have dealt with; the reason is its traceback."""

    reason: str


class Pool:
    """Processes that each work on one task at a time.

    Args:
        workers: tasks at a time.
        threads: CPU threads per task; None shares out what a process alone would have: those of the free cores.
        devices: accelerators to share out; a process sees one of them.
        isolate: end a process after its task.
    """

    def __init__(self, workers: int, threads: int | None = None, devices: int = 0, isolate: bool = True):
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # the server may ask for devices but not start CUDA
        self.context = multiprocessing.get_context("forkserver")
        alone = cores.automatic()
        cores.set_waiting(alone)  # before the server imports torch
        self.threads = threads or max(1, alone.threads // workers)
        self.workers, self.devices, self.isolate = workers, devices, isolate
        self.idle: list[Worker] = []
        self.busy: list[Worker] = []

    @property
    def has_room(self) -> bool:
        """Whether a further task can start now."""
        return len(self.busy) < self.workers

    def start(self, task: Task) -> None:
        """Hand a task to a free process, or a new one."""
        for worker in [worker for worker in self.idle if not worker.process.is_alive()]:
            self.idle.remove(worker)
            worker.stop()
        if not self.idle:
            slots = {worker.slot for worker in self.busy}
            slot = next(number for number in range(self.workers) if number not in slots)
            self.idle.append(Worker(self.context, slot, self))
        worker = self.idle.pop()
        worker.start(task)
        self.busy.append(worker)

    def finished(self, seconds: float) -> list[tuple[Task, Any]]:
        """Tasks that have ended, waiting up to `seconds` for one: each with its result, a `Crash` or a `Death`."""
        ready = set(wait([worker.connection for worker in self.busy], seconds))
        ended = []
        for worker in [worker for worker in self.busy if worker.connection in ready]:
            ended.append((worker.task, worker.result()))
            self.busy.remove(worker)
            if self.isolate or not worker.process.is_alive():
                worker.stop()
            else:
                self.idle.append(worker)
        return ended

    def close(self) -> None:
        """Tell every process to stop, and wait until each has."""
        for worker in self.busy:
            worker.process.terminate()
        for worker in [*self.busy, *self.idle]:
            worker.stop()
        self.busy, self.idle = [], []


class Worker:
    """One process and the pipe to it."""

    def __init__(self, context: Any, slot: int, pool: Pool):
        self.slot = slot
        self.connection, theirs = context.Pipe()
        device = slot % pool.devices if pool.devices else None
        arguments = (theirs, pool.threads, device)
        self.process: BaseProcess = context.Process(target=serve, args=arguments, daemon=False)
        self.process.start()
        theirs.close()

    def start(self, task: Task) -> None:
        """Send the task."""
        self.task = task
        with contextlib.suppress(OSError):  # it died this very moment, which its result will say
            self.connection.send(task)

    def result(self) -> Any:
        """What the task returned; a `Death` where the process is gone."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return Death(how_it_died(self.process.exitcode))

    def stop(self) -> None:
        """End the process: by itself when idle, by force when it does not."""
        self.connection.close()
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class ThisProcess:
    """The same as a pool of one, without another process: for a debugger, and where a process costs too much."""

    has_room = True

    def __init__(self) -> None:
        self.ended: list[tuple[Task, Any]] = []

    def start(self, task: Task) -> None:
        """Run the task now."""
        self.ended.append((task, attempt(task)))

    def finished(self, seconds: float) -> list[tuple[Task, Any]]:
        """What has been run."""
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        """Nothing to stop."""


def preload(modules: Sequence[str], configs: Iterable[dict[str, Any]]) -> None:
    """Have the server import `modules` and what these jobs are made of; call it before the first process starts."""
    nodes = [part for config in configs for part in config.values() if isinstance(part, dict)]
    names = {str(node["_target_"]).rpartition(".")[0] for node in nodes if "_target_" in node}
    parts = sorted(name for name in names if name.startswith("warmstart."))
    multiprocessing.set_forkserver_preload([*modules, *parts])


def once(task: Task) -> Any:
    """A task's result, from a process of its own."""
    pool = Pool(1)
    try:
        pool.start(task)
        while not (ended := pool.finished(1.0)):
            pass
        return ended[0][1]
    finally:
        pool.close()


def serve(connection: Connection, threads: int, device: int | None) -> None:
    """A process's whole life: take a task, send its result, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group: the parent tells us by SIGTERM
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=die_with_parent, daemon=True).start()
    if device is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[device] if visible else str(device)
    cores.use(threads)
    try:
        while True:
            connection.send(attempt(connection.recv()))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        sys.exit(0)


def attempt(task: Task) -> Any:
    """The task's result, or a `Crash`."""
    try:
        return task()
    except Exception:
        return Crash(traceback.format_exc())


def die_with_parent() -> None:
    """Leave at once when the sweep's process is gone: what is left of its jobs is for a resumed sweep."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def how_it_died(code: int | None) -> str:
    """An exit code in words."""
    if code is None or code >= 0:
        return f"its process ended with status {code}"
    name = signal.Signals(-code).name
    why = ", perhaps for lack of memory" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{why}"
