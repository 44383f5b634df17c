"""The recorded peak memory is that of the run, not of earlier work in its process."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from warmstart.training.memory import peak_memory_mb, reset_peak_memory


@pytest.mark.skipif(not sys.platform.startswith("linux") or torch.cuda.is_available(), reason="of a process, on Linux")
def test_a_peak_is_forgotten():
    block = np.ones(30_000_000)  # 240 MB
    high = peak_memory_mb()
    del block
    assert peak_memory_mb() == pytest.approx(high, abs=20)
    reset_peak_memory()
    assert peak_memory_mb() < high - 200
