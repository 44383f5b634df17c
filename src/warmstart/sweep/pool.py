"""A pool of worker processes on this machine, each with its own device and threads.

Workers are forked from a server that has imported torch, so a new one starts in a fraction of a second.
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

GRACE = 10.0  # seconds that a stopped job has to record its status


class Death(NamedTuple):
    """The process of a task ended before it returned a result."""

    reason: str


class Crash(NamedTuple):
    """A task raised an unexpected exception; the reason is its traceback."""

    reason: str


class Pool:
    """Worker processes that each run one task at a time.

    Args:
        workers: maximum number of concurrent tasks.
        threads: CPU threads per task; None divides the free cores among the workers.
        devices: number of accelerators; each process sees `per_task` of them.
        isolate: end a process after its task.
        per_task: number of devices of a task.
    """

    def __init__(
        self, workers: int, threads: int | None = None, devices: int = 0, isolate: bool = True, per_task: int = 1
    ):
        os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # the server may ask for devices but not start CUDA
        self.context = multiprocessing.get_context("forkserver")
        available = cores.automatic()
        cores.set_waiting(available)  # before the server imports torch
        self.threads = threads or max(1, available.threads // workers)
        self.workers, self.devices, self.isolate, self.per_task = workers, devices, isolate, per_task
        self.idle: list[Worker] = []
        self.busy: list[Worker] = []

    @property
    def has_room(self) -> bool:
        """Return whether another task can start now."""
        return len(self.busy) < self.workers

    def start(self, task: Task) -> None:
        """Send a task to an idle worker, or to a new one."""
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
        """Wait up to `seconds` for tasks to end; return each with its result, a `Crash` or a `Death`."""
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
        """Terminate all workers, and wait until they have ended."""
        for worker in self.busy:
            worker.process.terminate()
        for worker in [*self.busy, *self.idle]:
            worker.stop()
        self.busy, self.idle = [], []


class Worker:
    """A worker process and its pipe."""

    def __init__(self, context: Any, slot: int, pool: Pool):
        self.slot = slot
        self.connection, child = context.Pipe()
        first = slot * pool.per_task
        devices = (
            sorted({number % pool.devices for number in range(first, first + pool.per_task)}) if pool.devices else []
        )
        arguments = (child, pool.threads, devices)
        self.process: BaseProcess = context.Process(target=run_worker, args=arguments, daemon=False)
        self.process.start()
        child.close()

    def start(self, task: Task) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # it has just died, which `result` reports
            self.connection.send(task)

    def result(self) -> Any:
        """Receive the result of the task; a `Death` if the process has ended."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return Death(exit_reason(self.process.exitcode))

    def stop(self) -> None:
        """Close the pipe, which ends an idle process; kill it after the grace period."""
        self.connection.close()
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class ThisProcess:
    """Runs tasks in this process with the interface of `Pool`: for debuggers and very short tasks."""

    has_room = True

    def __init__(self) -> None:
        self.ended: list[tuple[Task, Any]] = []

    def start(self, task: Task) -> None:
        self.ended.append((task, call(task)))

    def finished(self, seconds: float) -> list[tuple[Task, Any]]:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        """Do nothing: there is no process to stop."""


def preload(modules: Sequence[str], configs: Iterable[dict[str, Any]]) -> None:
    """Set the modules that the server imports: `modules` and those of the jobs' components.

    Call it before the first process starts.
    """
    nodes = [value for config in configs for value in config.values() if isinstance(value, dict)]
    names = {str(node["_target_"]).rpartition(".")[0] for node in nodes if "_target_" in node}
    components = sorted(name for name in names if name.startswith("warmstart."))
    multiprocessing.set_forkserver_preload([*modules, *components])


def run_once(task: Task) -> Any:
    """Run a task in a new process, and return its result."""
    pool = Pool(1)
    try:
        pool.start(task)
        while not (ended := pool.finished(1.0)):
            pass
        return ended[0][1]
    finally:
        pool.close()


def run_worker(connection: Connection, threads: int, devices: Sequence[int]) -> None:
    """Run tasks from the pipe and send their results until it closes; the main function of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process group; the parent sends SIGTERM
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=exit_with_parent, daemon=True).start()
    if devices:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(max(devices) + 1)]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[number] for number in devices)
    cores.use(threads)
    try:
        while True:
            connection.send(call(connection.recv()))
    except (EOFError, ConnectionError, KeyboardInterrupt):
        sys.exit(0)


def call(task: Task) -> Any:
    """Return the result of the task, or a `Crash`."""
    try:
        return task()
    except Exception:
        return Crash(traceback.format_exc())


def exit_with_parent() -> None:
    """Exit at once when the sweep's process has ended; a resumed sweep runs the unfinished jobs."""
    wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def exit_reason(code: int | None) -> str:
    """Return a message for an exit code."""
    if code is None or code >= 0:
        return f"its process ended with status {code}"
    name = signal.Signals(-code).name
    cause = ", possibly out of memory" if name == "SIGKILL" else ""
    return f"its process was killed by {name}{cause}"
