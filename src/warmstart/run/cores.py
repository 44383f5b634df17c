"""CPU threads of a run: as many as there are free cores when it starts. Only `use` imports torch.

OpenMP's threads wait for each other in busy loops. Where another process uses a core too, they wait until the thread
that lost its core has it back, so that one thread is then several times as fast as one per core (docs/lab.md).
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from warmstart.core.reading import load_json

TOLERANCE = 0.25  # of a core: what other processes may use of one that counts as free
SHORTEST = 0.1  # seconds over which the kernel's counters, in hundredths of a second, tell the load
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # how a thread waits; read by OpenMP when torch is imported


_applied: Choice | None = None


class Usage(NamedTuple):
    """Cores that a process may use, and the seconds of them that all processes have used so far."""

    cores: int
    seconds: float


class Snapshot(NamedTuple):
    """The counters at a time, in seconds; `own` is the CPU time of this process and the ended ones that it started."""

    time: float
    own: float
    usage: dict[str, Usage]


class Load(NamedTuple):
    """Cores that a process may use, and how many of them other processes keep busy."""

    cores: int
    busy: float


class Choice(NamedTuple):
    """A number of threads, the reason for it, and whether they share the machine and so must not wait in busy loops."""

    threads: int
    reason: str
    is_shared: bool = False


def take(config: DictConfig) -> None:
    """Choose the threads of a run of this config, and give their number to torch, which is imported by this.

    A run that is resumed or run again has the number of its record, so that it rounds alike; else `trainer.threads`
    chooses.
    """
    before = config.get("resume") or (config.run if config.stage == "rerun" else None)
    recorded = recorded_threads(Path(before)) if before else None
    asked = OmegaConf.select(config, "trainer.threads")
    choice = automatic()
    if recorded is not None:
        choice = choice._replace(threads=recorded, reason=f"recorded in {before}")
    elif isinstance(asked, int):
        choice = choice._replace(threads=asked, reason=f"trainer.threads={asked}")
    apply(choice)


@functools.cache
def automatic() -> Choice:
    """The choice of `trainer.threads=auto`: OMP_NUM_THREADS where that is set, else by the load since the start."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isdecimal() and int(given) > 0:
        return Choice(int(given), f"OMP_NUM_THREADS={given}")
    return choose(load(START, snapshot()))


def choose(loads: Sequence[Load]) -> Choice:
    """A thread per free core, and at least one; where several limits hold, by the one that leaves the fewest."""
    free, cores = min((max(0, int(load.cores + TOLERANCE - load.busy)), load.cores) for load in loads)
    busy = cores - free
    return Choice(max(1, free), f"{busy} of {cores} cores {'is' if busy == 1 else 'are'} busy", busy > 0)


def apply(choice: Choice) -> None:
    """Import torch, have it compute with these threads, and keep the choice for `describe`."""
    global _applied
    set_waiting(choice)
    use(choice.threads)
    _applied = choice


def describe() -> str:
    """The number of threads in use, and where it was chosen in this process, why."""
    threads = in_use() or 1
    is_chosen = _applied is not None and _applied.threads == threads
    return f"{counted(threads)}: {_applied.reason}" if is_chosen else counted(threads)


def set_waiting(choice: Choice) -> None:
    """Have threads on a shared machine sleep while they wait, unless the user chose; call it before torch loads."""
    if choice.is_shared and not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def use(threads: int) -> None:
    """Have torch compute with so many threads."""
    import torch

    torch.set_num_threads(threads)


def in_use() -> int | None:
    """Threads that torch computes with; None before it is imported."""
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None


@contextlib.contextmanager
def using(threads: int | None) -> Iterator[None]:
    """Inside, torch computes with so many threads; with as many as before where that is None."""
    before = in_use()
    if threads is not None:
        use(threads)
    try:
        yield
    finally:
        if threads is not None and before is not None:
            use(before)


def counted(threads: int) -> str:
    """The number in words."""
    return f"{threads} CPU thread{'' if threads == 1 else 's'}"


def recorded_threads(folder: Path) -> int | None:
    """The threads in a run folder's record; None where there are none, or no record that can be read."""
    try:
        return threads_in(load_json(folder / "run.json"))
    except (OSError, ValueError):
        return None


def threads_in(record: Any) -> int | None:
    """The threads that a record holds."""
    threads = record.get("threads") if isinstance(record, dict) else None
    return threads if isinstance(threads, int) and not isinstance(threads, bool) and threads > 0 else None


def load(then: Snapshot, now: Snapshot) -> list[Load]:
    """What other processes have used between two snapshots; the load average where the counters do not tell."""
    seconds, own = now.time - then.time, now.own - then.own
    if "machine" not in now.usage.keys() & then.usage.keys() or seconds < SHORTEST:
        return [Load(len(usable_cpus()), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0)]
    return [
        Load(usage.cores, max(0.0, usage.seconds - then.usage[name].seconds - own) / seconds)
        for name, usage in now.usage.items()
        if name in then.usage
    ]


def snapshot(root: Path = Path("/")) -> Snapshot:
    """The counters now: of the CPUs that this process may use, and of each control group that limits it (Linux).

    Args:
        root: the folder that holds `proc` and `sys`.
    """
    usage = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        usage["machine"] = machine(root)
    with contextlib.suppress(OSError, ValueError, IndexError):
        usage |= quotas(root)
    return Snapshot(time.monotonic(), sum(os.times()[:4]), usage)


def machine(root: Path) -> Usage:
    """Physical cores of the CPUs that this process may use, and the seconds that these were not idle."""
    cpus = usable_cpus()
    lines = (line.split() for line in (root / "proc/stat").read_text().splitlines() if line.startswith("cpu"))
    ticks = {name: [int(count) for count in counts] for name, *counts in lines}
    used = [ticks[f"cpu{cpu}"] for cpu in cpus if f"cpu{cpu}" in ticks]
    if not any(map(sum, used)):
        raise ValueError("the kernel does not count")
    # user, nice, system, idle, iowait, irq, softirq, steal
    busy = sum(sum(counts[:3]) + sum(counts[5:8]) for counts in used) / os.sysconf("SC_CLK_TCK")
    return Usage(len({siblings(root, cpu) for cpu in cpus}), busy)


def siblings(root: Path, cpu: int) -> str:
    """The hardware threads of a CPU's core: the same for all of them."""
    try:
        return (root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def quotas(root: Path) -> dict[str, Usage]:
    """Cores that control groups (version 2) grant this process, by folder, and what all their processes have used."""
    lines = (root / "proc/self/cgroup").read_text().splitlines()
    own = next((line[3:] for line in lines if line.startswith("0::")), "/")
    top = root / "sys/fs/cgroup"
    folder, found = top / own.strip("/"), {}
    for group in (folder, *folder.parents):
        limit = group / "cpu.max"
        if limit.is_file() and not limit.read_text().startswith("max"):
            quota, period = map(int, limit.read_text().split())
            counts = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
            found[str(group)] = Usage(max(1, quota // period), int(counts["usage_usec"]) / 1e6)
        if group == top:
            break
    return found


def usable_cpus() -> list[int]:
    """Numbers of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


START = snapshot()  # main imports this module first thing, so that a second has passed when torch is to be imported
