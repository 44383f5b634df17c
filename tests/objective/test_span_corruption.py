"""Span corruption loses no token: inputs and targets together are the text."""

from __future__ import annotations

import torch
from tests.objective.test_objectives import set_up

from warmstart.core.batch import Batch
from warmstart.objective.span_corruption import NONE, corrupted

PADDING, END, MASK = 0, 3, 4


def restored(inputs: list[int], labels: list[int]) -> list[int]:
    """The text, with each mask token of the inputs replaced by its span of the labels."""
    assert labels[-1] == END
    spans: list[list[int]] = []
    for number in labels[:-1]:
        if number == MASK:
            spans.append([])
        else:
            spans[-1].append(number)
    found: list[int] = []
    for number in inputs:
        found += spans.pop(0) if number == MASK else [number]
    assert not spans
    return found


def test_inputs_and_targets_restore_the_text():
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(5, 30, (20, 12), generator=generator)
    valid = torch.arange(12) < torch.randint(3, 13, (20, 1), generator=generator)
    x = x.masked_fill(~valid, PADDING)
    removed = (torch.rand(x.shape, generator=generator) < 0.4) & valid
    inputs, mask, labels = corrupted(x, valid, removed, MASK, END, PADDING)
    for row in range(len(x)):
        own = labels[row][labels[row] != NONE].tolist()
        assert restored(inputs[row][mask[row]].tolist(), own) == x[row][valid[row]].tolist()


def test_about_the_chosen_share_is_removed_and_no_special_token():
    backbone, objective, _ = set_up("span_corruption")
    torch.manual_seed(0)
    x = torch.randint(3, 30, (200, 16))
    removed = objective.choose(backbone.maskable(x))
    assert not removed[x < 5].any()
    assert removed.any(1).all()
    assert 0.1 < removed.float().mean() < 0.2


def test_the_complete_text_is_the_target_if_asked_for():
    backbone, objective, batch = set_up("span_corruption")
    objective.generate = "text"
    mask = torch.ones_like(batch.x, dtype=torch.bool)
    mask[:, 10:] = False
    output = objective.step(backbone, Batch(batch.x, mask=mask))
    assert output.count == int(mask.sum())
