"""Learning-rate schedules: functions of the step and the total number of steps that return a learning-rate factor."""

from __future__ import annotations

import math

from warmstart.core.ranges import UnitInterval


def constant(step: int, total: int, warmup: UnitInterval = 0.0) -> float:
    """Linear warm-up over a fraction `warmup` of the steps, then 1."""
    return _linear_warmup(step, round(total * warmup))


def cosine(step: int, total: int, warmup: UnitInterval = 0.05, final: UnitInterval = 0.0) -> float:
    """Linear warm-up, then cosine decay to `final` (Loshchilov and Hutter 2017)."""
    warmup_steps = round(total * warmup)
    if step < warmup_steps:
        return _linear_warmup(step, warmup_steps)
    progress = min(1.0, (step - warmup_steps) / max(1, total - warmup_steps))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(step: int, total: int, warmup: UnitInterval = 0.05, final: UnitInterval = 0.0) -> float:
    """Linear warm-up, then linear decay to `final`."""
    return wsd(step, total, warmup, 1 - warmup, final)


def one_cycle(
    step: int, total: int, peak: UnitInterval = 0.3, start: UnitInterval = 0.04, final: UnitInterval = 1e-4
) -> float:
    """Cosine increase from `start` to 1 until a fraction `peak` of the steps, then decay to `final` (Smith 2018)."""
    top = max(1, round(total * peak))
    if step < top:
        return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / top))
    progress = min(1.0, (step - top) / max(1, total - top))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def wsd(
    step: int, total: int, warmup: UnitInterval = 0.05, decay: UnitInterval = 0.2, final: UnitInterval = 0.0
) -> float:
    """Linear warm-up, then 1, then linear decay to `final` over the last fraction `decay` of the steps.

    Sources: Hu et al. (2024), "MiniCPM", https://arxiv.org/abs/2404.06395; Haegele et al. (2024), "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations", https://arxiv.org/abs/2405.18392.
    """
    decay_steps = max(1, round(total * decay))
    progress = min(1.0, max(0.0, (step - (total - decay_steps)) / decay_steps))
    return min(_linear_warmup(step, round(total * warmup)), 1 - (1 - final) * progress)


def _linear_warmup(step: int, warmup_steps: int) -> float:
    return min(1.0, (step + 1) / (warmup_steps + 1))
