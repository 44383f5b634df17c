"""Synthetic vectors: with `shared` both tasks depend on the same directions, otherwise on orthogonal ones."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.data.sources.vectors import Vectors

pytestmark = pytest.mark.quick

SMALL = {"features": 30, "directions": 4, "rows": 4000}


def directions(source: Vectors) -> np.ndarray:
    """The task's hidden directions (F, D)."""
    drawn = np.random.default_rng([source.seed, 0]).standard_normal((source.features, source.directions))
    return drawn * 2 / np.sqrt(source.features)


def explained(inputs: np.ndarray, y: np.ndarray) -> float:
    """The share of the variance of y (N, K) that is linear in the inputs (N, D)."""
    x = np.hstack([inputs, np.ones((len(inputs), 1))])
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return float(1 - rest.var(0).sum() / y.var(0).sum())


def arrays(splits: Splits) -> list[np.ndarray]:
    return [array for rows in (splits.train, splits.validation, splits.test) for array in (rows.x, rows.y)]


def one_hot(splits: Splits) -> np.ndarray:
    return np.eye(len(splits.labels))[splits.train.y]


def test_shared_sets_are_drawn_as_ever():
    source = Vectors()
    own = np.random.default_rng([0, 2])
    x = own.standard_normal((10_000, 100)).astype(np.float32)
    h = np.tanh(x @ directions(source))
    y = h @ own.standard_normal((8, 16)) / np.sqrt(8)
    y = (y + 0.1 * own.standard_normal(y.shape)).astype(np.float32)
    generic = arrays(source.load("value"))
    assert np.array_equal(np.concatenate(generic[0::2]), x)
    assert np.array_equal(np.concatenate(generic[1::2]), y)


@pytest.mark.parametrize("seed", [0, 1])
def test_shared_targets_depend_on_the_task_s_directions(seed: int):
    source = Vectors(**SMALL, seed=seed)
    generic, task = source.load("value"), source.load("category")
    assert explained(np.tanh(generic.train.x @ directions(source)), generic.train.y) > 0.9
    assert explained(np.tanh(task.train.x @ directions(source)), one_hot(task)) > 0.3


@pytest.mark.parametrize("seed", [0, 1])
def test_targets_that_share_nothing_tell_nothing_about_the_task_s_directions(seed: int):
    source = Vectors(**SMALL, shared=False, seed=seed)
    generic, w = source.load("value"), directions(source)
    x, y = generic.train.x, generic.train.y
    h = np.tanh(x @ w)
    assert explained(np.hstack([h, h**2]), y) < 0.01  # 8 inputs and 2800 rows: chance explains 0.003
    assert explained(x, y) > 0.7  # and yet there is much to learn
    found = np.linalg.svd(np.linalg.lstsq(x, y, rcond=None)[0], full_matrices=False)[0][:, :4]
    assert np.abs(found.T @ np.linalg.qr(w)[0]).max() < 0.1


def test_targets_depend_on_as_many_directions_of_like_length_either_way():
    for shared in (True, False):
        generic = Vectors(**SMALL, shared=shared, noise=0.0).load("value")
        strengths = np.linalg.svd(np.linalg.lstsq(generic.train.x, generic.train.y, rcond=None)[0])[1]
        assert strengths[3] > 10 * strengths[4]
    w = directions(Vectors(**SMALL))
    others = Vectors(**SMALL).orthogonal_to(w)
    np.testing.assert_allclose(others.T @ others, 4 * np.eye(4), atol=1e-12)
    np.testing.assert_allclose(others.T @ w, 0, atol=1e-12)


def test_all_but_the_generic_targets_is_the_same_either_way():
    shared, apart = Vectors(**SMALL), Vectors(**SMALL, shared=False)
    for one, other in zip(arrays(shared.load("category")), arrays(apart.load("category"))):
        assert np.array_equal(one, other)
    generic, other = arrays(shared.load("value")), arrays(apart.load("value"))
    for index in range(6):
        assert (generic[index].shape, generic[index].dtype) == (other[index].shape, other[index].dtype)
        assert np.array_equal(generic[index], other[index]) == (index % 2 == 0)
    again = arrays(Vectors(**SMALL, shared=False).load("value"))
    assert all(np.array_equal(one, two) for one, two in zip(other, again))
    reseeded = arrays(Vectors(**SMALL, shared=False, seed=1).load("value"))
    assert not any(np.array_equal(one, two) for one, two in zip(other, reseeded))


def test_too_few_features_for_directions_that_share_nothing_are_refused():
    with pytest.raises(UserError, match="twice the directions"):
        Vectors(shared=False, features=15, directions=8)


def test_just_enough_features_leave_room_for_directions_that_share_nothing():
    Vectors(features=15, directions=8, rows=40).load("value")
    source = Vectors(features=16, directions=8, rows=40, shared=False)
    assert np.isfinite(source.load("value").train.y).all()


def test_the_conflict_experiment_shares_nothing_and_ties_its_pretraining_to_the_task(composed):
    for words, shared in (((), False), (("data.shared=true", "data.seed=3", "backbone.hidden=[64]"), True)):
        complete = OmegaConf.to_container(
            composed("stage=transfer", "experiment=transfer_conflict", *words), resolve=True
        )
        pretrain, own = complete["pretrain"], {"batch_size", "augment", "pack", "separate"}
        assert pretrain["data"]["shared"] is shared
        assert pretrain["backbone"] == complete["backbone"]
        assert all(value == complete["data"][key] for key, value in pretrain["data"].items() if key not in own)
    for stage in ("pretrain", "finetune"):
        assert composed(f"stage={stage}", "experiment=transfer_conflict").data.shared is False
        assert composed(f"stage={stage}", "experiment=vectors").data.shared is True
