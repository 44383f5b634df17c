"""Prefix beam search: the labels with the greatest probability, summed over all the ways to say them.

Shapes: B utterances, T positions, C labels and the blank, whose number is C, K hypotheses.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from warmstart.objective.ngram import NGram

CELLS = 2**18  # continuations that are weighed at once: few enough to stay in the cache
FACTOR = 6364136223846793005  # of the hash that tells hypotheses apart
NONE = 0  # the hash of no hypothesis


@torch.no_grad()
def search(outputs: Tensor, width: int, ngram: NGram | None = None, weight: float = 0.0) -> list[list[int]]:
    """The best hypothesis of each utterance (Graves 2012; with a language model, Hannun et al. 2014).

    Args:
        outputs: log-probabilities (B, T, C + 1), the blank last.
        width: hypotheses that are kept at each position.
        ngram: a language model of the labels, or None.
        weight: of its log-probabilities.
    """
    rows = max(1, CELLS // (width * outputs.shape[2]))
    if ngram is None:
        tables = outputs.new_zeros(1, outputs.shape[2]), outputs.new_zeros(1, outputs.shape[2], dtype=torch.int32)
    else:
        tables = weight * ngram.logs.to(outputs.device), ngram.following.to(outputs.device)
    return [labels for part in outputs.split(rows) for labels in _search(part, width, *tables)]


def _search(outputs: Tensor, width: int, logs: Tensor, following: Tensor) -> list[list[int]]:
    """Search one batch; `logs` (S, C + 1) is what a label adds in each state, `following` (S, C + 1) the next state."""
    count, _, size = outputs.shape
    blank = size - 1
    by_blank, by_label = outputs.new_zeros(count, 1), outputs.new_full((count, 1), -math.inf)  # how the paths end
    last = torch.full((count, 1), blank, device=outputs.device)
    key, parent = torch.ones_like(last), torch.full_like(last, NONE)
    prior, state = outputs.new_zeros(count, 1), following[0, blank].long().expand(count, 1)
    steps = []
    for now in outputs.unbind(1):
        kept = key.shape[1]
        both, again = torch.logaddexp(by_blank, by_label), now.gather(1, last)
        longer = both[:, :, None] + now[:, None]
        longer.scatter_(2, last[:, :, None], (by_blank + again)[:, :, None])
        longer[:, :, blank] = -math.inf
        # A hypothesis that continues another one is reached from it too.
        is_child = parent[:, None] == key[:, :, None]
        place = last[:, None].expand(-1, kept, -1)
        joined = longer.gather(2, place).masked_fill(~is_child, -math.inf).amax(1)
        longer.scatter_add_(2, place, torch.zeros_like(place, dtype=longer.dtype).masked_fill(is_child, -math.inf))
        by_label, by_blank = torch.logaddexp(by_label + again, joined), both + now[:, blank:]
        told = prior[:, :, None] + logs[state]
        scores = [torch.logaddexp(by_blank, by_label) + prior, (longer + told).flatten(1)]
        best = torch.cat(scores, 1).topk(min(width, kept * (size + 1)))
        is_new = best.indices >= kept
        place = (best.indices - kept).clamp(min=0)
        origin = torch.where(is_new, place // size, best.indices)
        label = torch.where(is_new, place % size, blank)
        by_blank = by_blank.gather(1, origin).masked_fill(is_new, -math.inf)
        by_label = torch.where(is_new, longer.flatten(1).gather(1, place), by_label.gather(1, origin))
        prior = torch.where(is_new, told.flatten(1).gather(1, place), prior.gather(1, origin))
        state, last, above = state.gather(1, origin), last.gather(1, origin), key.gather(1, origin)
        parent = torch.where(is_new, above, parent.gather(1, origin)).masked_fill(best.values == -math.inf, NONE)
        key = torch.where(is_new, above * FACTOR + label + 1, above)
        state = torch.where(is_new, following[state, label].long(), state)
        last = torch.where(is_new, label, last)
        steps.append((origin, label))
    best = (torch.logaddexp(by_blank, by_label) + prior + logs[state, blank]).argmax(1, keepdim=True)
    found = []
    for origin, label in reversed(steps):
        found.append(label.gather(1, best))
        best = origin.gather(1, best)
    return [[label for label in row if label != blank] for row in torch.cat(found[::-1], 1).tolist()]
