"""Memory of this process: reuse of freed blocks, and the peak of a run."""

from __future__ import annotations

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch

from warmstart.core.glibc import call_glibc

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Configure glibc to reuse freed blocks of up to 1 GiB; does nothing with other C libraries.

    By default glibc maps and unmaps every block above 32 MiB, and the kernel zeroes its pages each time: on the CPU
    this makes a step of a small ResNet 1.3 to 1.7 times slower (docs/lab.md). See mallopt(3).
    """
    call_glibc("mallopt", M_MMAP_THRESHOLD, 1 << 30)
    call_glibc("mallopt", M_TRIM_THRESHOLD, (1 << 31) - 1)


def release_freed_memory() -> None:
    """Return freed blocks to the system; does nothing with other C libraries."""
    call_glibc("malloc_trim", 0)


def reset_peak_memory() -> None:
    """Release freed blocks and reset the peak memory, so that it is that of one run.

    The peak of a process can be reset on Linux only: see clear_refs in proc(5).
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    release_freed_memory()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Return the peak memory of the device, or of this process if there is no accelerator, in MB (1e6 bytes)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    with contextlib.suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
