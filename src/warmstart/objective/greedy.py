"""Greedy decoding with a causal backbone and its head, as they are in training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from warmstart.core.protocols import Backbone


@torch.no_grad()
def continued(
    backbone: Backbone,
    head: Callable[[Tensor], Tensor],
    prompts: Sequence[Tensor],
    ends: Collection[int],
    length: int,
    context: int,
) -> list[list[int]]:
    """Return the most likely tokens after each prompt (T,), until an end token, which is not included.

    There is no cache: each token takes a pass over the rows that have not ended.

    Args:
        backbone: a causal backbone.
        head: maps features (B, D) to logits (B, V).
        prompts: token ids, one or more per prompt.
        ends: ids of the end tokens.
        length: maximum number of generated tokens.
        context: maximum number of positions.
    """
    sizes = torch.tensor([len(prompt) for prompt in prompts])
    x = torch.zeros(len(prompts), min(context, int(sizes.max()) + length), dtype=torch.long, device=prompts[0].device)
    for row, prompt in zip(x, prompts):
        row[: len(prompt)] = prompt
    found: list[list[int]] = [[] for _ in prompts]
    active = [row for row in range(len(prompts)) if sizes[row] < context]
    for _ in range(length):
        if not active:
            break
        width = int(sizes[active].max())
        last = (sizes[active] - 1).to(x.device)
        mask = torch.arange(width, device=x.device) <= last[:, None]
        tokens = backbone(x[active, :width], mask).tokens
        logits = head(tokens.take_along_dim(last[:, None, None], 1)[:, 0])
        following, active_before = logits.argmax(-1).tolist(), active
        active = []
        for row, number in zip(active_before, following):
            if number in ends:
                continue
            found[row].append(number)
            if sizes[row] + 1 < context:
                x[row, sizes[row]] = number
                active.append(row)
            sizes[row] += 1
    return found
