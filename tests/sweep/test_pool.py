"""The process pool: devices and threads are divided, tasks run independently, deaths are reported."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from warmstart.run import cores
from warmstart.stages.runner import StageRunner
from warmstart.sweep.pool import Crash, Death, Pool, preload


@pytest.fixture
def pool() -> Iterator[Callable[..., Pool]]:
    preload(StageRunner.modules, [])
    made: list[Pool] = []

    def call(*args: Any, **kwargs: Any) -> Pool:
        made.append(Pool(*args, **kwargs))
        return made[-1]

    yield call
    for each in made:
        each.close()


def results(pool: Pool, *tasks: Callable[[], Any]) -> list[Any]:
    """What the tasks gave, in the order in which they ended."""
    waiting, ended = list(tasks), []
    while len(ended) < len(tasks):
        while waiting and pool.has_room:
            pool.start(waiting.pop(0))
        ended += [result for _, result in pool.finished(10)]
    return ended


@pytest.mark.skipif("CUDA_VISIBLE_DEVICES" in os.environ, reason="the devices are chosen already")
@pytest.mark.parametrize(("per_task", "expected"), [(1, {"0", "1"}), (2, {"0,1", "2,3"})])
def test_each_worker_sees_its_own_devices(pool, per_task: int, expected: set[str]):
    look = [functools.partial(os.getenv, "CUDA_VISIBLE_DEVICES") for _ in range(4)]
    both = pool(2, devices=2 * per_task, per_task=per_task)
    for task in look[:2]:
        both.start(task)
    seen = {result for _ in range(2) for _, result in both.finished(10)}
    while len(seen) < 2:
        seen |= {result for _, result in both.finished(10)}
    assert seen == expected


def test_threads_are_divided_among_the_workers_or_as_set(pool):
    count = functools.partial(torch.get_num_threads)
    assert results(pool(1, threads=3), count) == [3]
    assert results(pool(1), count) == [torch.get_num_threads()]
    assert results(pool(64), count) == [1]


def test_free_cores_are_shared_out_among_the_workers(pool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cores, "automatic", lambda: cores.Choice(6, "2 of 8 cores are busy"))
    assert [pool(workers).threads for workers in (1, 2, 4, 9)] == [6, 3, 1, 1]


def test_a_process_per_task_or_one_that_stays(pool):
    tasks = [functools.partial(os.getpid) for _ in range(3)]
    assert len({*results(pool(1), *tasks), os.getpid()}) == 4
    assert len(set(results(pool(1, isolate=False), *tasks))) == 1


def test_nobody_waits_for_a_slower_one(pool):
    slow, *fast = (functools.partial(time.sleep, seconds) for seconds in (5, 0.1, 0.1, 0.1))
    two = pool(2, isolate=False)
    two.start(slow)
    ended: list[Any] = []
    waiting = list(fast)
    deadline = time.monotonic() + 60
    while len(ended) < 3 and time.monotonic() < deadline:
        while waiting and two.has_room:
            two.start(waiting.pop())
        ended += [task for task, _ in two.finished(1)]
    assert slow not in ended


@pytest.mark.parametrize("isolate", [True, False])
def test_a_death_is_reported_and_the_pool_goes_on(pool, isolate: bool):
    die = functools.partial(signal.raise_signal, signal.SIGKILL)
    leave = functools.partial(os._exit, 7)
    found = results(pool(1, isolate=isolate), die, leave, functools.partial(int, "x"), functools.partial(int, "5"))
    assert isinstance(found[0], Death)
    assert "SIGKILL, possibly out of memory" in found[0].reason
    assert found[1] == Death("its process ended with status 7")
    assert isinstance(found[2], Crash)
    assert "ValueError" in found[2].reason
    assert found[3] == 5
