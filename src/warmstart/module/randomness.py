"""Randomness as a function of the step, so that a resumed run draws what an undisturbed one would."""

from __future__ import annotations

import torch


def seed_step(seed: int, step: int, device: torch.device) -> None:
    """Seed the generators that noise, masks, augmentation and dropout draw from.

    `torch.manual_seed` would do the same, but formats a stack trace per absent kind of accelerator: 2 ms a step.
    """
    torch.default_generator.manual_seed(seed + step)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed + step)
