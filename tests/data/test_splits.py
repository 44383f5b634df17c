"""Splits are disjoint and fixed; subsets are nested and stratified."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from warmstart.core.batch import Rows
from warmstart.core.errors import UserError
from warmstart.data.splits import check_classes, labelled_subset, split_rows

pytestmark = pytest.mark.quick

LABELS = ("a", "b", "c")
Y = np.array([0] * 50 + [1] * 30 + [2] * 20)


def test_splits_are_disjoint_complete_stratified_and_fixed_by_seed():
    rows = Rows(np.arange(100), Y)
    splits = split_rows(rows, LABELS, seed=0, strata=Y)
    parts = [splits.train.x, splits.validation.x, splits.test.x]
    assert sorted(np.concatenate(parts)) == list(range(100))
    assert [len(part) for part in parts] == [70, 15, 15]
    for part in (splits.train, splits.validation, splits.test):
        share = np.bincount(part.y, minlength=3) / len(part)
        assert np.abs(share - [0.5, 0.3, 0.2]).max() < 0.06
    assert np.array_equal(split_rows(rows, LABELS, seed=0, strata=Y).test.x, splits.test.x)
    assert not np.array_equal(split_rows(rows, LABELS, seed=1, strata=Y).test.x, splits.test.x)


@pytest.mark.parametrize("seed", range(3))
def test_smaller_label_budgets_are_part_of_larger_ones(seed: int):
    subsets = [set(labelled_subset(Y, LABELS, seed, per_class=count)) for count in (1, 2, 5, 20)]
    assert all(small < large for small, large in pairwise(subsets))
    assert [np.bincount(Y[sorted(subset)]).tolist() for subset in subsets] == [[n] * 3 for n in (1, 2, 5, 20)]
    fractions = [set(labelled_subset(Y, LABELS, seed, fraction=share)) for share in (0.1, 0.3, 1.0)]
    assert all(small < large for small, large in pairwise(fractions))
    assert np.bincount(Y[sorted(fractions[0])]).tolist() == [5, 3, 2]
    assert len(fractions[2]) == 100


def test_up_to_n_rows_per_class_takes_all_of_smaller_classes():
    subset = labelled_subset(Y, LABELS, 0, per_class="<=25")
    assert np.bincount(Y[subset]).tolist() == [25, 25, 20]
    assert set(labelled_subset(Y, LABELS, 0, per_class=20)) < set(subset)
    with pytest.raises(UserError, match=r"fewer than data.labels_per_class=25; '<=25' uses"):
        labelled_subset(Y, LABELS, 0, per_class=25)


def test_subset_depends_on_the_seed():
    assert not np.array_equal(labelled_subset(Y, LABELS, 0, per_class=5), labelled_subset(Y, LABELS, 1, per_class=5))


def test_values_take_a_fraction_and_refuse_classes():
    values = np.linspace(0, 1, 40)
    assert set(labelled_subset(values, (), 0, fraction=0.1)) < set(labelled_subset(values, (), 0, fraction=0.5))
    with pytest.raises(UserError, match="label_fraction"):
        labelled_subset(values, (), 0, per_class=2)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.zeros(20, dtype=int), "one class"),
        (np.array([0] * 20 + [1] * 2 + [2] * 20), "class b has 2 rows"),
    ],
)
def test_classes_that_cannot_be_split_are_named(y: np.ndarray, message: str):
    with pytest.raises(UserError, match=message):
        check_classes(y, LABELS)


def test_too_few_rows_in_a_class_are_named():
    with pytest.raises(UserError, match=r"class c has 20 training rows, fewer than data.labels_per_class=21"):
        labelled_subset(Y, LABELS, 0, per_class=21)
    with pytest.raises(UserError, match="not both"):
        labelled_subset(Y, LABELS, 0, per_class=1, fraction=0.5)


@pytest.mark.parametrize(("labels", "advised"), [(("1.5", "2e3"), True), (("1", "two"), False)])
def test_classes_that_are_numbers_may_be_meant_for_regression(labels: tuple[str, ...], advised: bool):
    with pytest.raises(UserError, match="4 or more are needed") as refusal:
        check_classes(np.array([0, 0, 0, 0, 1]), labels)
    assert ("objective=regression" in str(refusal.value)) == advised


def test_a_number_of_labels_per_class_without_classes_is_refused_with_what_a_transfer_takes():
    with pytest.raises(UserError, match=r"label_fraction with this objective, .*transfer.labels=\[0.1,all\]"):
        labelled_subset(np.array([0.5, 1.5]), (), seed=0, per_class=1)
