"""Beam search over CTC outputs, with an n-gram language model of the labels."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from warmstart.core.errors import UserError

MAX_CELLS = 2**24  # size of an n-gram table


class NGram(nn.Module):
    """Interpolated n-gram model with Witten-Bell smoothing (1991), as in Chen and Goodman (1999).

    Texts are padded with a boundary label, C, at both ends. A state is one of the S contexts in the training texts;
    state 0 is the empty context. `logs` (S, C + 1) are the log-probabilities of the next label in each state, and
    `following` (S, C + 1) are the next states: each is the longest known context.

    Args:
        order: order of the n-gram: the number of labels in a context, plus one.
        size: number of labels, C.
    """

    def __init__(self, order: int, size: int):
        super().__init__()
        self.order, self.boundary = order, size
        self.register_buffer("logs", torch.empty(0, size + 1))
        self.register_buffer("following", torch.empty(0, size + 1, dtype=torch.int32))
        self.register_load_state_dict_pre_hook(resize_tables)

    def fit(self, y: Tensor) -> None:
        """Estimate the probabilities from labels (N, L), padded with -1.

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
        states = {context: state for state, context in enumerate(context for level in levels for context in level)}
        if len(states) * (self.boundary + 1) > MAX_CELLS:
            raise UserError(
                f"objective.ngram={self.order}: the training texts have {len(states):,} contexts and "
                f"{self.boundary:,} labels, too many for a table; use a lower order"
            )
        counts = torch.zeros(len(states), self.boundary + 1, dtype=torch.float64)
        for gram, count in grams.items():
            for start in range(self.order):
                counts[states[gram[start:before]], gram[before]] += count
        distinct = (counts > 0).sum(1, keepdim=True)
        totals = counts.sum(1, keepdim=True) + distinct
        probabilities = torch.full_like(counts, 1 / (self.boundary + 1))
        following = torch.zeros(counts.shape, dtype=torch.int32)
        for level in levels:
            here = torch.tensor([states[context] for context in level])
            shorter = torch.tensor([states[context[1:]] for context in level])
            for context in filter(None, level):
                following[states[context[:-1]], context[-1]] = states[context]
            following[here] = following[shorter]
            probabilities[here] = (counts[here] + distinct[here] * probabilities[shorter]) / totals[here]
        following[:, self.boundary] = states[(self.boundary,) * before]
        self.logs, self.following = probabilities.log().float(), following


def resize_tables(ngram: NGram, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Resize the tables to the shapes in a state dict, before it is loaded."""
    for name, table in ngram.named_buffers():
        if prefix + name in state:
            setattr(ngram, name, table.new_empty(state[prefix + name].shape))


BATCH_CELLS = 2**18  # scores computed at once: few enough to stay in the cache
FACTOR = 6364136223846793005  # of the hash that identifies hypotheses
NONE = 0  # hash of an empty slot


@torch.no_grad()
def search(outputs: Tensor, width: int, ngram: NGram | None = None, weight: float = 0.0) -> list[list[int]]:
    """Return the labels of each utterance by prefix beam search (Graves 2012, Hannun et al. 2014).

    Args:
        outputs: log-probabilities (B, T, C + 1), the blank last.
        width: number of hypotheses kept at each position.
    """
    rows = max(1, BATCH_CELLS // (width * outputs.shape[2]))
    if ngram is None:
        tables = outputs.new_zeros(1, outputs.shape[2]), outputs.new_zeros(1, outputs.shape[2], dtype=torch.int32)
    else:
        tables = weight * ngram.logs.to(outputs.device), ngram.following.to(outputs.device)
    return [labels for batch in outputs.split(rows) for labels in _search(batch, width, *tables)]


def _search(outputs: Tensor, width: int, logs: Tensor, following: Tensor) -> list[list[int]]:
    """Search one batch, given the language model scores `logs` and the next states `following`, both (S, C + 1)."""
    count, _, size = outputs.shape
    blank = size - 1
    # Log-probability by the last symbol of the paths.
    by_blank, by_label = outputs.new_zeros(count, 1), outputs.new_full((count, 1), -math.inf)
    last = torch.full((count, 1), blank, device=outputs.device)
    key, parent = torch.ones_like(last), torch.full_like(last, NONE)
    prior, state = outputs.new_zeros(count, 1), following[0, blank].long().expand(count, 1)
    steps = []
    for now in outputs.unbind(1):
        kept = key.shape[1]
        both, repeated = torch.logaddexp(by_blank, by_label), now.gather(1, last)
        longer = both[:, :, None] + now[:, None]
        longer.scatter_(2, last[:, :, None], (by_blank + repeated)[:, :, None])
        longer[:, :, blank] = -math.inf
        # A hypothesis that extends another kept one also receives the paths of the latter.
        is_child = parent[:, None] == key[:, :, None]
        column = last[:, None].expand(-1, kept, -1)
        merged = longer.gather(2, column).masked_fill(~is_child, -math.inf).amax(1)
        longer.scatter_add_(2, column, torch.zeros_like(column, dtype=longer.dtype).masked_fill(is_child, -math.inf))
        by_label, by_blank = torch.logaddexp(by_label + repeated, merged), both + now[:, blank:]
        extended = prior[:, :, None] + logs[state]
        scores = [torch.logaddexp(by_blank, by_label) + prior, (longer + extended).flatten(1)]
        best = torch.cat(scores, 1).topk(min(width, kept * (size + 1)))
        is_new = best.indices >= kept
        index = (best.indices - kept).clamp(min=0)
        origin = torch.where(is_new, index // size, best.indices)
        label = torch.where(is_new, index % size, blank)
        by_blank = by_blank.gather(1, origin).masked_fill(is_new, -math.inf)
        by_label = torch.where(is_new, longer.flatten(1).gather(1, index), by_label.gather(1, origin))
        prior = torch.where(is_new, extended.flatten(1).gather(1, index), prior.gather(1, origin))
        state, last, previous = state.gather(1, origin), last.gather(1, origin), key.gather(1, origin)
        parent = torch.where(is_new, previous, parent.gather(1, origin)).masked_fill(best.values == -math.inf, NONE)
        key = torch.where(is_new, previous * FACTOR + label + 1, previous)
        state = torch.where(is_new, following[state, label].long(), state)
        last = torch.where(is_new, label, last)
        steps.append((origin, label))
    best = (torch.logaddexp(by_blank, by_label) + prior + logs[state, blank]).argmax(1, keepdim=True)
    found = []
    for origin, label in reversed(steps):
        found.append(label.gather(1, best))
        best = origin.gather(1, best)
    return [[label for label in row if label != blank] for row in torch.cat(found[::-1], 1).tolist()]
