"""The losses of five small experiments equal the recorded ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.golden import GOLDEN, RECIPES, measure

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("name", RECIPES)
def test_losses_are_as_recorded(name: str, cli, tmp_path: Path):
    def train(*words: str, output_dir: Path) -> None:
        outcome = cli(*words, output_dir=output_dir)
        assert outcome.status == 0, outcome.err

    found = measure(name, tmp_path, train)
    for stage, losses in json.loads(GOLDEN.read_text())[name].items():
        assert found[stage].keys() == losses.keys()
        for column, values in losses.items():
            assert found[stage][column] == pytest.approx(values, rel=0, abs=1e-6), f"{stage} {column}"
