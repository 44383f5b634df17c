"""Where in an utterance each of its labels is said.

Shapes: B utterances, T positions, C labels and the blank, whose number is C, S states: labels with blanks around them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Spans = list[tuple[int, int, int, float]]


@torch.no_grad()
def align(outputs: Tensor, texts: Sequence[Sequence[int]]) -> list[Spans]:
    """Each utterance's labels: number, first and last position, and mean log-probability, on the best path for them.

    The algorithm of Viterbi (1967), in the lattice of CTC (Graves et al. 2006).

    Args:
        outputs: log-probabilities (B, T, C + 1), the blank last.
        texts: the labels of each utterance, no more than fit its positions.
    """
    blank = outputs.shape[2] - 1
    lengths = torch.tensor([[len(text)] for text in texts], device=outputs.device)
    states = torch.full((len(texts), 2 * max(1, int(lengths.max())) + 1), blank)
    for row, text in zip(states, texts):
        row[1 : 2 * len(text) : 2] = torch.tensor(text, dtype=torch.long)
    states = states.to(outputs.device)
    values = outputs.gather(2, states[:, None].expand(-1, outputs.shape[1], -1))
    can_skip = F.pad((states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2]), (2, 0))
    score = values[:, 0].clone()
    score[:, 2:] = -math.inf
    moves = []
    for now in values[:, 1:].unbind(1):
        one, two = (F.pad(score, (step, -step), value=-math.inf) for step in (1, 2))
        best = torch.stack([score, one, two.masked_fill(~can_skip, -math.inf)]).max(0)
        score = best.values + now
        moves.append(best.indices)
    place = 2 * lengths
    on_label = score.gather(1, (place - 1).clamp(min=0)) > score.gather(1, place)
    place = place - on_label.long()
    places = [place]
    for move in reversed(moves):
        place = place - move.gather(1, place)
        places.append(place)
    path = torch.cat(places[::-1], 1)
    sure = values.gather(2, path[:, :, None])[:, :, 0]
    return [_spans(*row) for row in zip(path.tolist(), sure.tolist(), texts)]


def _spans(path: list[int], values: list[float], text: Sequence[int]) -> Spans:
    """One utterance's labels from its path through the states (T,), of which the odd ones are labels."""
    spans = []
    for state, group in itertools.groupby(range(len(path)), path.__getitem__):
        positions = list(group)
        if state % 2:
            mean = sum(values[position] for position in positions) / len(positions)
            spans.append((text[state // 2], positions[0], positions[-1], mean))
    return spans
