"""Classification by the head of a causal language model: the logits of a word for each class after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Batch
from warmstart.core.protocols import Backbone, Objective
from warmstart.objective.head import make_head


class LabelWords(Objective, nn.Module):
    """The logits of the words of the classes after each prompt, without training.

    Args:
        backbone: a causal backbone.
        numbers: the token number of the word of each class.
    """

    needs: ClassVar = frozenset({"causal"})
    task: ClassVar = "causal_lm"
    keeps_head: ClassVar = True
    is_single_label: ClassVar = True

    def __init__(self, backbone: Backbone, numbers: Sequence[int]):
        super().__init__()
        self.numbers = list(numbers)
        self.head = make_head(backbone, self.task, backbone.target_size)

    def predict(self, backbone: Backbone, batch: Batch) -> Tensor:
        """Return logits (B, C) at the last position of each row."""
        tokens = backbone(batch.x, batch.mask).tokens
        if batch.mask is None:
            last = tokens[:, -1]
        else:
            valid = batch.mask > 0
            index = (valid * torch.arange(valid.shape[1], device=valid.device)).argmax(1)
            last = tokens.take_along_dim(index[:, None, None], 1)[:, 0]
        return self.head(last)[:, self.numbers].float()
