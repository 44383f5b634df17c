"""The fixture that composes once: no override reaches the config of another command."""

from __future__ import annotations

import pytest
from hydra.errors import ConfigCompositionException


def test_values_set_by_one_command_do_not_reach_the_next(composed):
    words = ("stage=finetune", "optimizer=sgd")
    plain = composed(*words)
    changed = composed(*words, "optimizer.lr=0.5", "+data.extra=1", "~optimizer.momentum")
    assert changed.optimizer.lr == 0.5
    assert "extra" in changed.data
    assert "momentum" not in changed.optimizer
    assert composed(*words) == plain
    assert "momentum" not in composed("stage=finetune", "optimizer=adamw").optimizer
    with pytest.raises(ConfigCompositionException, match=r"optimizer.lr=x,y"):
        composed(*words, "optimizer.lr=x,y")
