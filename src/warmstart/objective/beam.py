"""Beam search over CTC outputs, with an n-gram language model of characters."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.core.errors import UserError

MOST = 2**24  # numbers in a table


class NGram(nn.Module):
    """Interpolated n-grams with the smoothing of Witten and Bell (1991), as in Chen and Goodman (1999).

    A text starts after a boundary and ends with one, whose number is C. States are the S contexts that occur in the
    texts; the first is the empty one. `logs` (S, C + 1) are the log-probabilities of what comes next in each, and
    `following` (S, C + 1) the state after it: that of the longest context that occurs.

    Args:
        order: labels of a context, plus one.
        size: how many labels there are, C.
    """

    def __init__(self, order: int, size: int):
        super().__init__()
        self.order, self.boundary = order, size
        self.register_buffer("logs", torch.empty(0, size + 1))
        self.register_buffer("following", torch.empty(0, size + 1, dtype=torch.int32))
        self.register_load_state_dict_pre_hook(make_room)

    def fit(self, y: Tensor) -> None:
        """Count the labels (N, L), -1 beyond the end.

        Raises:
            UserError: the texts are too short for this order, or have too many contexts.
        """
        texts = [[label for label in row if label >= 0] for row in y.tolist()]
        longest = max(map(len, texts), default=0)
        if self.order > longest + 1:
            raise UserError(
                f"objective.ngram={self.order}: the longest training text has {longest} labels; "
                f"give at most {longest + 1}"
            )
        before = self.order - 1
        grams: Counter[tuple[int, ...]] = Counter()
        for text in texts:
            padded = [self.boundary] * before + text + [self.boundary]
            grams.update(zip(*(padded[start:] for start in range(self.order))))
        levels = [sorted({gram[before - length : before] for gram in grams}) for length in range(self.order)]
        places = {context: place for place, context in enumerate(context for level in levels for context in level)}
        if len(places) * (self.boundary + 1) > MOST:
            raise UserError(
                f"objective.ngram={self.order}: the training texts have {len(places):,} contexts of "
                f"{self.boundary:,} labels, too many for a table; give a lower order"
            )
        counts = torch.zeros(len(places), self.boundary + 1, dtype=torch.float64)
        for gram, count in grams.items():
            for start in range(self.order):
                counts[places[gram[start:before]], gram[before]] += count
        kinds = (counts > 0).sum(1, keepdim=True)
        totals = counts.sum(1, keepdim=True) + kinds
        shares = torch.full_like(counts, 1 / (self.boundary + 1))
        following = torch.zeros(counts.shape, dtype=torch.int32)
        for level in levels:
            here = torch.tensor([places[context] for context in level])
            shorter = torch.tensor([places[context[1:]] for context in level])
            for context in filter(None, level):
                following[places[context[:-1]], context[-1]] = places[context]
            following[here] = following[shorter]
            shares[here] = (counts[here] + kinds[here] * shares[shorter]) / totals[here]
        following[:, self.boundary] = places[(self.boundary,) * before]
        self.logs, self.following = shares.log().float(), following


def make_room(ngram: NGram, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Take tables of the saved size before these are loaded."""
    for name, table in ngram.named_buffers():
        if prefix + name in state:
            setattr(ngram, name, table.new_empty(state[prefix + name].shape))


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
