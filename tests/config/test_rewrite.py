"""Rewriting a config returns a new one and does not change the original."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.pipeline import prepare
from warmstart.config.resolve import with_rows
from warmstart.config.rewrite import changed, from_parent, merged


def test_the_config_that_is_changed_stays_as_it_is():
    config = merged({"optimizer": {"lr": 1.0, "kept": 2}})
    assert changed(config, {"optimizer.lr": 3.0}) == {"optimizer": {"lr": 3.0, "kept": 2}}
    assert config == {"optimizer": {"lr": 1.0, "kept": 2}}
    with pytest.raises(OmegaConfBaseException):
        changed(config, {"optimizer.rate": 3.0})


@pytest.mark.parametrize(
    ("init", "path", "expected"),
    [
        ("latest", "/runs/1/model", "/runs/1/model"),
        ("shuffled:latest", "/runs/1/model", "shuffled:/runs/1/model"),
        ("shuffled:hf:vit", "hf:vit", "shuffled:hf:vit"),
    ],
)
def test_a_run_starts_from_the_same_weights_again(init: str, path: str, expected: str):
    config = OmegaConf.create({"init": init})
    assert from_parent(config, {"path": path}).init == expected
    assert from_parent(config, None).init == init


def test_what_a_stage_is_given_is_a_config_of_its_own(composed):
    config = composed("stage=finetune", "init=scratch")
    before = OmegaConf.to_container(config)
    prepared = prepare(config)
    assert OmegaConf.to_container(config) == before
    assert prepared == {key: value for key, value in config.items() if key not in ("sweep", "resume", "extend")}
    with pytest.raises(OmegaConfBaseException):
        prepared.anything = 1


def test_a_teacher_needs_rows_and_no_blocks_to_separate():
    config = merged({"teacher": "hf:x", "data": {"pack": 64, "separate": True}})
    assert with_rows(config).data == {"pack": None, "separate": False}
