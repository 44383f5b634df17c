"""Learning-rate schedules: the step and the total number of steps to a factor of the base rate."""

from __future__ import annotations

import math

from warmstart.core.ranges import UnitInterval


def constant(step: int, total: int, warmup: UnitInterval = 0.0) -> float:
    """1, after a linear warm-up over a share `warmup` of the steps."""
    return _ramp(step, round(total * warmup))


def cosine(step: int, total: int, warmup: UnitInterval = 0.05, final: UnitInterval = 0.0) -> float:
    """Warm-up, then half a cosine down to `final` (Loshchilov and Hutter 2017)."""
    rising = round(total * warmup)
    if step < rising:
        return _ramp(step, rising)
    progress = min(1.0, (step - rising) / max(1, total - rising))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def one_cycle(
    step: int, total: int, peak: UnitInterval = 0.3, start: UnitInterval = 0.04, final: UnitInterval = 1e-4
) -> float:
    """Cosine up from `start` to 1 until a share `peak` of the steps, then cosine down to `final` (Smith 2018)."""
    top = max(1, round(total * peak))
    if step < top:
        return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / top))
    progress = min(1.0, (step - top) / max(1, total - top))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def wsd(
    step: int, total: int, warmup: UnitInterval = 0.05, decay: UnitInterval = 0.2, final: UnitInterval = 0.0
) -> float:
    """Warm-up, a stable 1, then straight down to `final` over the last share `decay` of the steps.

    Sources: Hu et al. (2024), "MiniCPM", https://arxiv.org/abs/2404.06395; Haegele et al. (2024), "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations", https://arxiv.org/abs/2405.18392.
    """
    falling = max(1, round(total * decay))
    progress = min(1.0, max(0.0, (step - (total - falling)) / falling))
    return min(_ramp(step, round(total * warmup)), 1 - (1 - final) * progress)


def _ramp(step: int, rising: int) -> float:
    return min(1.0, (step + 1) / (rising + 1))
