"""Statistics of batch norm for weights that no training step has run with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from warmstart.contracts import Batch


def moving_norms(module: pl.LightningModule) -> set[str]:
    """Names of the batch norms whose statistics a training step would move: none of a frozen part."""
    was_training = module.training
    module.train()
    names = {name for name, part in module.named_modules() if isinstance(part, _BatchNorm) and part.training}
    module.train(was_training)
    return names


class Pass(nn.Module):
    """What `update_bn` needs to see of a model: the norms that may move, and a way to run it."""

    def __init__(self, norms: list[nn.Module], run: Callable[[Batch], Any]):
        super().__init__()
        self.norms, self.run = nn.ModuleList(norms), run

    def forward(self, batch: Batch) -> None:
        """Run the model on a raw batch, for what the norms see of it."""
        self.run(batch)


@torch.no_grad()
def recompute_norms(module: Any, names: Collection[str], data: Any) -> None:
    """Replace the statistics of these norms by their means over one pass of the training rows (Izmailov et al. 2018).

    Rows are augmented as in training, by the same random numbers every time; all else is as in evaluation.

    Args:
        module: with `backbone`, `objective` and `views`, in evaluation mode.
        names: of its batch norms.
        data: a data module, whose own place in its training rows stays where it is.
    """
    norms = [part for name, part in module.named_modules() if name in names]
    if not norms:
        return
    loader = copy.copy(data.train_loader)
    loader.load_state_dict({"epoch": -1, "position": 0})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        run = Pass(norms, lambda batch: module.objective.step(module.backbone, module.views(batch)))
        update_bn(loader, run.eval(), module.device)
