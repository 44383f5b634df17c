"""Duplicates of generic rows among the test rows are detected, without false positives."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from warmstart.data.duplicates.overlap import Overlap, find_duplicates
from warmstart.data.sources.image.digits import Digits

pytestmark = pytest.mark.quick

NOTHING = Overlap([], [])


def pixels(count: int, seed: int, shape: tuple[int, ...] = (3, 12, 12)) -> Tensor:
    """Random pictures (N, C, H, W), uint8."""
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def numbers(count: int, features: int, seed: int) -> Tensor:
    """Standard normal rows (N, F)."""
    return torch.randn(count, features, generator=torch.Generator().manual_seed(seed))


def test_copies_of_pictures_are_found_exactly_and_off_by_one():
    generic, test = pixels(300, 0), pixels(60, 1)
    test[[3, 40]] = generic[[250, 7]]
    noise = torch.randint(-1, 2, (2, 3, 12, 12), generator=torch.Generator().manual_seed(2))
    test[[0, 59]] = (generic[[299, 0]].int() + noise).clamp(0, 255).to(torch.uint8)
    assert find_duplicates(generic, test) == Overlap(exact=[3, 40], near=[0, 59])
    assert find_duplicates(generic, test, tolerance=0.001) == Overlap(exact=[3, 40], near=[])


@pytest.mark.parametrize("features", [20, 200])
def test_copies_of_vectors_are_found_whatever_their_offset(features: int):
    generic, test = numbers(400, features, 0), numbers(50, features, 1)
    test[5] = generic[399]
    test[9] = generic[11] + 0.05 * numbers(1, features, 2)[0]
    assert find_duplicates(generic, test) == Overlap(exact=[5], near=[9])
    assert find_duplicates(generic + 1000, test + 1000).near == [9]


@pytest.mark.parametrize("features", [10, 300])
def test_near_rows_are_those_of_a_plain_comparison(features: int):
    mixed = numbers(10, features, 2)
    generic, test = (numbers(count, 10, count) @ mixed + 0.1 * numbers(count, features, 1) for count in (500, 200))
    scaled = generic.std(0, correction=0)
    distance = torch.cdist(test / scaled, generic / scaled).amin(1) / features**0.5
    tolerance = distance.sort().values[49:51].mean().item()
    assert find_duplicates(generic, test, tolerance).near == (distance <= tolerance).nonzero().flatten().tolist()


def test_blocks_and_many_equal_rows_change_nothing(monkeypatch: pytest.MonkeyPatch):
    generic, test = numbers(300, 100, 0), numbers(90, 100, 1)
    generic[:150] = generic[0]
    test[80] = test[81] = generic[0] + 0.01
    complete = find_duplicates(generic, test)
    assert complete == Overlap([], [80, 81])
    monkeypatch.setattr("warmstart.data.duplicates.overlap.CHUNK", 1000)
    assert find_duplicates(generic, test) == complete


def test_real_digits_share_nothing_until_one_is_saved_again():
    splits, preprocessor = Digits().load(None), Digits().preprocessor()
    preprocessor.fit(splits.train.x)
    generic, test = (preprocessor(preprocessor.encode(rows.x)) for rows in (splits.train, splits.test))
    assert find_duplicates(generic, test) == NOTHING
    noise = 0.01 * 16 / preprocessor.std * numbers(len(test), 64, 0).view_as(test)
    again = generic[: len(test)] + noise
    assert find_duplicates(generic, again) == Overlap([], list(range(len(test))))


def test_token_numbers_are_compared_exactly_alone():
    generic = torch.arange(2000).view(100, 20)
    test = generic[[50, 4, 99]].clone()
    test[1, 0] += 1
    assert find_duplicates(generic, test) == Overlap([0, 2], [])


def test_constant_features_are_left_out():
    generic, test = numbers(100, 20, 0), numbers(3, 20, 1)
    test[1] = generic[30]
    generic[:, :5] = 0.1
    assert find_duplicates(generic, test) == Overlap([], [1])
    assert find_duplicates(torch.full((9, 4), 0.1), torch.zeros(2, 4)) == NOTHING


@pytest.mark.parametrize(
    ("generic", "test"),
    [
        (pixels(4, 0), pixels(4, 0, (3, 6, 24))),
        (pixels(4, 0), pixels(4, 0).float()),
        (numbers(4, 5, 0), numbers(4, 5, 0)[:0]),
        (numbers(4, 5, 0)[:0], numbers(4, 5, 0)),
        (torch.zeros(4, 0), torch.zeros(4, 0)),
    ],
)
def test_rows_that_cannot_be_compared_share_nothing(generic: Tensor, test: Tensor):
    assert find_duplicates(generic, test) == NOTHING
