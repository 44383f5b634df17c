"""The tables of docs/scale.md are those of scripts/scale.py, whose models are those that are built."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from scale import TABLES  # noqa: E402
from scale_formulas import MODELS, all_gather, all_reduce  # noqa: E402

from warmstart.core.spec import Spec, Vocabulary  # noqa: E402
from warmstart.training import components  # noqa: E402


@pytest.mark.parametrize("title", TABLES)
def test_a_table_of_the_page(title: str):
    section = (ROOT / "docs" / "scale.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    assert TABLES[title]() in section


def test_parameters_of_the_smallest_model(composed):
    config = composed("stage=pretrain", "experiment=shakespeare", "backbone=gpt2_124m")
    spec = Spec("text", (1024,), vocabulary=Vocabulary(50_257, padding=0))
    with torch.device("meta"):
        backbone = components.build(config.backbone, spec=spec)
    parameters = list(backbone.parameters())
    assert MODELS["124M"].parameters == sum(value.numel() for value in parameters)
    assert MODELS["124M"].tensors == len(parameters)


def test_a_ring_of_one_sends_nothing_and_a_reduction_is_two_halves():
    assert all_reduce(8, 1) == 0
    assert all_reduce(8, 4) == 2 * all_gather(8, 4) == 12
