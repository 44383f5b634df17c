"""Settings that are checked before torch is imported have the types and ranges of the signatures they end in."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from warmstart.config.expand import CONF
from warmstart.config.schema import FINETUNE

PARTS = sorted(path for group in ("average", "strategy") for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("path", PARTS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_a_setting_has_one_type_and_range(path: Path):
    known = FINETUNE.keys[path.parent.name].keys
    hints = inspect.signature(get_object(OmegaConf.load(path)._target_), eval_str=True).parameters
    for name in known.keys() & hints.keys() - {"_target_"}:
        assert hints[name].annotation == known[name]
