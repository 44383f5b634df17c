"""Minimum number of steps of finetunings, and the warning of validation at chance."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from warmstart.config.expand import expand
from warmstart.training.length import optimizer_steps, with_min_steps


def trainer(**settings):
    """The settings of a trainer of 20 epochs and at least 200 steps."""
    return OmegaConf.create(
        {"max_epochs": 20, "max_steps": -1, "min_steps": 200, "accumulate_grad_batches": 1}
        | {"check_val_every_n_epoch": 1}
        | settings
    )


@pytest.mark.parametrize(
    ("batches", "epochs", "every"), [(1, 200, 10), (3, 67, 3), (9, 23, 1), (10, 20, 1), (100, 20, 1)]
)
def test_short_epochs_are_repeated_with_as_many_validations(batches, epochs, every):
    found = with_min_steps(trainer(), batches)
    assert (found.max_epochs, found.check_val_every_n_epoch) == (epochs, every)
    assert optimizer_steps(found, batches) >= 200


def test_other_limits_remain():
    assert optimizer_steps(with_min_steps(trainer(max_steps=50), 1), 1) == 50
    assert with_min_steps(trainer(max_epochs=-1, max_steps=50), 1).max_epochs == -1
    assert with_min_steps(trainer(min_steps=None), 1).max_epochs == 20
    assert with_min_steps(trainer(accumulate_grad_batches=4), 4).max_epochs == 200


def test_a_length_on_the_command_line_removes_the_minimum():
    assert expand(["trainer.max_epochs=2", "--cfg", "job"]) == [
        "trainer.min_steps=null",
        "trainer.max_epochs=2",
        "--cfg",
        "job",
    ]
    assert expand(["trainer.max_epochs=2", "trainer.min_steps=9"]) == ["trainer.max_epochs=2", "trainer.min_steps=9"]
    assert expand(["optimizer.lr=1"]) == ["optimizer.lr=1"]
