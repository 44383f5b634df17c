"""Loader: each row once per epoch, the same order for the same seed, no lost or repeated batch on resume."""

from __future__ import annotations

import itertools

import pytest
import torch

from warmstart.data.loader import GatherLoader

pytestmark = pytest.mark.quick


def loader(seed: int | None = 3) -> GatherLoader:
    return GatherLoader(torch.arange(10), torch.arange(10) * 2, batch_size=4, seed=seed)


def epoch(data: GatherLoader) -> list[list[int]]:
    return [batch.x.tolist() for batch in data]


def test_every_row_once_and_targets_stay_with_inputs():
    batches = list(loader())
    assert [len(batch.x) for batch in batches] == [4, 4, 2]
    assert sorted(torch.cat([batch.x for batch in batches]).tolist()) == list(range(10))
    assert all(torch.equal(batch.y, batch.x * 2) for batch in batches)


def test_order_is_a_function_of_seed_and_epoch():
    one, same, other = loader(), loader(), loader(seed=4)
    first, second = epoch(one), epoch(one)
    assert [first, second] == [epoch(same), epoch(same)]
    assert first != second
    assert first != epoch(other)
    assert epoch(loader(seed=None)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("stop", range(7))
def test_resumed_at_any_batch_it_goes_on_with_the_next(stop: int):
    undisturbed = loader()
    everything = [batch for _ in range(3) for batch in epoch(undisturbed)]

    stopped = loader()
    seen = []
    while len(seen) < stop:
        for batch in itertools.islice(stopped, stop - len(seen)):
            seen.append(batch.x.tolist())
    resumed = loader()
    resumed.load_state_dict(stopped.state_dict())
    while len(seen) < len(everything):
        seen += epoch(resumed)
    assert seen == everything


def test_an_epoch_that_was_cut_short_is_followed_by_a_new_one():
    one, other = loader(), loader()
    next(iter(one))
    epoch(other)
    assert epoch(one) == epoch(other)


def test_a_single_row_left_over_joins_the_batch_before_it():
    data = GatherLoader(torch.arange(9), None, batch_size=4, seed=0)
    assert [len(batch.x) for batch in data] == [4, 5]
    assert len(data) == 2
    assert [len(batch.x) for batch in GatherLoader(torch.arange(9), None, batch_size=4)] == [4, 4, 1]
    assert [len(batch.x) for batch in GatherLoader(torch.arange(3), None, batch_size=1, seed=0)] == [1, 1, 1]
    assert [len(batch.x) for batch in GatherLoader(torch.arange(1), None, batch_size=4, seed=0)] == [1]
