"""Call the C library for control of the memory of this process."""

from __future__ import annotations

import ctypes
import sys
from typing import Any


def call_glibc(name: str, *values: Any) -> None:
    """Call a function of glibc; does nothing with other C libraries."""
    if not sys.platform.startswith("linux"):
        return
    try:
        function = getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return
    function(*values)
