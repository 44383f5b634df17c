"""Minimum number of steps of finetunings, and the warning of validation at chance."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from warmstart.config.expand import expand
from warmstart.training.length import min_steps, optimizer_steps, with_min_steps
from warmstart.training.trainer import build_trainer
from warmstart.transfer.arms import steps_and_interval


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
        "trainer.max_epochs=2",
        "trainer.min_steps=null",
        "--cfg",
        "job",
    ]
    assert expand(["trainer.max_epochs=2", "trainer.min_steps=9"]) == ["trainer.max_epochs=2", "trainer.min_steps=9"]
    assert expand(["optimizer.lr=1"]) == ["optimizer.lr=1"]
    assert expand(["++trainer.max_steps=2"])[1:] == ["++trainer.min_steps=null"]
    assert expand(["+arm.own.trainer.max_epochs=2"])[1:] == ["++arm.own.trainer.min_steps=null"]
    for words in (["++trainer.min_steps=9", "trainer.max_epochs=2"], ["resume=x", "trainer.max_epochs=2"]):
        assert expand(words) == words


@pytest.mark.parametrize("debug", ["limit", "one_batch", "overfit", "profile"])
def test_debugging_has_its_own_length(debug: str, composed):
    assert composed("stage=finetune", f"debug={debug}").trainer.min_steps is None


def test_a_smaller_limit_replaces_the_minimum():
    found = with_min_steps(trainer(max_steps=50), 1)
    assert (found.max_epochs, found.check_val_every_n_epoch) == (50, 2)
    for limit in ({"max_time": 60}, {"max_tokens": 1000}):
        assert with_min_steps(trainer(**limit), 1).max_epochs == 20
        assert min_steps(trainer(**limit)) == 0


def test_an_invalid_init_is_explained_without_the_resolver(cli):
    error = cli("stage=finetune", "experiment=cifar10", "init=hf:").error
    assert "init=hf:" in error
    assert "interpolation" not in error


def test_lightning_does_not_delay_a_stop(composed, tmp_path: Path):
    config = composed("stage=finetune", "trainer.max_time=60", "trainer.min_steps=9").trainer
    assert build_trainer(config, tmp_path, None, []).min_steps is None


def test_arms_count_optimizer_steps(composed):
    words = ("trainer.accumulate_grad_batches=2", "trainer.limit_train_batches=4", "trainer.min_steps=null")
    config = composed("stage=finetune", *words, "trainer.max_steps=-1", "trainer.max_epochs=3", "data.batch_size=2")
    assert steps_and_interval(config, 100) == (3 * 2, 4)
