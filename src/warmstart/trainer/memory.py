"""Large tensors without a trip to the operating system each time."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks of up to 1 GiB for reuse; elsewhere, do nothing.

    By default glibc maps and unmaps every block above 32 MiB, and the kernel clears its pages anew: on the CPU a step
    of a small ResNet took 1.3 to 1.7 times as long (docs/lab.md). See mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
