"""A look at a model in the middle of training that leaves no trace in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytorch_lightning as pl
import torch


@contextlib.contextmanager
def aside(module: pl.LightningModule) -> Iterator[None]:
    """In evaluation mode, without gradients, and with the same random numbers every time, none of them training's.

    Not in inference mode: what a backbone keeps from a call, such as a table of positions, must still serve training.
    """
    training, device = module.training, module.device
    module.eval()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        yield
    module.train(training)
