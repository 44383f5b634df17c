"""Number of CPU threads of a run: by default the number of free cores at its start. Only `use` imports torch.

OpenMP threads synchronize in busy loops. If another process occupies one of the cores, all threads wait for the thread
that lost it, and a single thread can be several times as fast as one per core (docs/lab.md).
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

TOLERANCE = 0.25  # share of a free core that other processes may use
MIN_SECONDS = 0.1  # minimum interval for the load; the kernel's counters have a resolution of 0.01 s
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # how threads wait; OpenMP reads them when torch is imported


_applied: Choice | None = None


class Usage(NamedTuple):
    """Number of available cores, and their CPU seconds used by all processes so far."""

    cores: int
    seconds: float


class Snapshot(NamedTuple):
    """CPU counters at a time, in seconds; `own` is the CPU time of this process and its ended children."""

    time: float
    own: float
    usage: dict[str, Usage]


class Load(NamedTuple):
    """Number of available cores, and how many of them other processes use on average."""

    cores: int
    busy: float


class Choice(NamedTuple):
    """Number of threads, the reason, and whether other processes use the machine, so that busy loops are avoided."""

    threads: int
    reason: str
    is_shared: bool = False


def configure(config: DictConfig, earlier: Path | None = None) -> None:
    """Set the number of torch threads for a run of this config; imports torch.

    A resumed, extended or repeated run uses the recorded number, for equal rounding; other runs use `trainer.threads`.

    Args:
        config: of the run.
        earlier: folder of the run that is resumed or extended.
    """
    earlier = earlier or (config.run if config.stage == "rerun" else None)
    recorded = recorded_threads(Path(earlier)) if earlier else None
    threads = OmegaConf.select(config, "trainer.threads")
    choice = automatic()
    if recorded is not None:
        choice = choice._replace(threads=recorded, reason=f"recorded in {earlier}")
    elif isinstance(threads, int):
        choice = choice._replace(threads=threads, reason=f"trainer.threads={threads}")
    apply(choice)


@functools.cache
def automatic() -> Choice:
    """Return the choice of `trainer.threads=auto`: OMP_NUM_THREADS if set, else the free cores since the start."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if given.isdecimal() and int(given) > 0:
        return Choice(int(given), f"OMP_NUM_THREADS={given}")
    return choose(load(START, snapshot()))


def choose(loads: Sequence[Load]) -> Choice:
    """Return one thread per free core, at least one; of several limits, the one with the fewest free cores counts."""
    free, cores = min((max(0, int(load.cores + TOLERANCE - load.busy)), load.cores) for load in loads)
    busy = cores - free
    return Choice(max(1, free), f"{busy} of {cores} cores {'is' if busy == 1 else 'are'} busy", busy > 0)


def apply(choice: Choice) -> None:
    """Import torch, set its number of threads, and store the choice for `describe`."""
    global _applied
    set_waiting(choice)
    use(choice.threads)
    _applied = choice


def describe() -> str:
    """Return the number of threads in use, and the reason if this process chose it."""
    threads = in_use() or 1
    is_chosen = _applied is not None and _applied.threads == threads
    return f"{thread_count(threads)}: {_applied.reason}" if is_chosen else thread_count(threads)


def set_waiting(choice: Choice) -> None:
    """Let waiting threads sleep on a shared machine, unless the user set this; call it before importing torch."""
    if choice.is_shared and not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def use(threads: int) -> None:
    """Set the number of torch threads."""
    import torch

    torch.set_num_threads(threads)


def in_use() -> int | None:
    """Return the number of torch threads; None if torch is not imported."""
    return sys.modules["torch"].get_num_threads() if "torch" in sys.modules else None


@contextlib.contextmanager
def using(threads: int | None) -> Iterator[None]:
    """Set the number of torch threads inside the block; None leaves it unchanged."""
    before = in_use()
    if threads is not None:
        use(threads)
    try:
        yield
    finally:
        if threads is not None and before is not None:
            use(before)


def thread_count(threads: int) -> str:
    """Return the number with its unit."""
    return f"{threads} CPU thread{'' if threads == 1 else 's'}"


def recorded_threads(folder: Path) -> int | None:
    """Return the number of threads in a run folder's record; None if it is missing or cannot be read."""
    try:
        return threads_in(load_json(folder / "run.json"))
    except (OSError, ValueError):
        return None


def threads_in(record: Any) -> int | None:
    """Return the number of threads in a record, if it is valid."""
    threads = record.get("threads") if isinstance(record, dict) else None
    return threads if isinstance(threads, int) and not isinstance(threads, bool) and threads > 0 else None


def load(before: Snapshot, now: Snapshot) -> list[Load]:
    """Return the load by other processes between two snapshots; the load average if there are no counters."""
    seconds, own = now.time - before.time, now.own - before.own
    if "machine" not in now.usage.keys() & before.usage.keys() or seconds < MIN_SECONDS:
        return [Load(len(usable_cpus()), os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0)]
    return [
        Load(usage.cores, max(0.0, usage.seconds - before.usage[name].seconds - own) / seconds)
        for name, usage in now.usage.items()
        if name in before.usage
    ]


def snapshot(root: Path = Path("/")) -> Snapshot:
    """Read the counters of the CPUs of this process, and of each control group that limits it (Linux)."""
    usage = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        usage["machine"] = machine(root)
    with contextlib.suppress(OSError, ValueError, IndexError):
        usage |= quotas(root)
    return Snapshot(time.monotonic(), sum(os.times()[:4]), usage)


def machine(root: Path) -> Usage:
    """Return the number of physical cores that this process may use, and their busy seconds."""
    cpus = usable_cpus()
    lines = (line.split() for line in (root / "proc/stat").read_text().splitlines() if line.startswith("cpu"))
    ticks = {name: [int(count) for count in counts] for name, *counts in lines}
    used = [ticks[f"cpu{cpu}"] for cpu in cpus if f"cpu{cpu}" in ticks]
    if not any(map(sum, used)):
        raise ValueError("the kernel has no counters")
    # user, nice, system, idle, iowait, irq, softirq, steal
    busy = sum(sum(counts[:3]) + sum(counts[5:8]) for counts in used) / os.sysconf("SC_CLK_TCK")
    return Usage(len({siblings(root, cpu) for cpu in cpus}), busy)


def siblings(root: Path, cpu: int) -> str:
    """Return an identifier of a CPU's physical core, equal for its hardware threads."""
    try:
        return (root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text()
    except OSError:
        return str(cpu)


def quotas(root: Path) -> dict[str, Usage]:
    """Return the limit and usage of each control group (version 2) of this process, by folder."""
    lines = (root / "proc/self/cgroup").read_text().splitlines()
    name = next((line[3:] for line in lines if line.startswith("0::")), "/")
    top = root / "sys/fs/cgroup"
    folder, found = top / name.strip("/"), {}
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
    """Return the numbers of the CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


START = snapshot()  # `main` imports this module first, about a second before torch
