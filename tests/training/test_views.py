"""Augmented views are logged with their images, without effect on training."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import FAST

TAG = "augmented views"
CELL = 10  # pixels of an 8 x 8 digit with its frame


def picture(run: Path) -> np.ndarray:
    """The rows of the one picture of a run: (kinds, 10, 80)."""
    events = EventAccumulator(str(run)).Reload()
    (event,) = events.Images(TAG)
    assert event.step == 0
    pixels = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)).convert("L"))
    return pixels.reshape(-1, CELL, pixels.shape[1])


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (("stage=pretrain", "objective=contrastive", "data/augment=shift", "data.augment.shift.pixels=2"), 3),
        (
            (
                "stage=finetune",
                "init=scratch",
                "data/augment=mixup",
                "data.augment.mixup.alpha=1.0",
                "backbone.dropout=0.1",
            ),
            2,
        ),
    ],
    ids=["two views", "mixed"],
)
def test_each_view_is_a_row_below_the_images_and_weights_are_those_without(words, rows: int, cli):
    stage = words[0].removeprefix("stage=")
    runs = []
    for settings in (FAST, (*FAST, "visualization=[views]")):
        outcome = cli(*words, *settings)
        assert outcome.status == 0, outcome.err
        runs.append((outcome.run(stage), outcome.record(stage)["weights_sha256"]))
    (plain, weights), (drawn, others) = runs
    assert weights == others
    assert TAG not in EventAccumulator(str(plain)).Reload().Tags()["images"]
    kinds = picture(drawn)
    assert kinds.shape == (rows, CELL, 8 * CELL)
    for number, kind in enumerate(kinds):
        assert all((kind != other).any() for other in kinds[:number])
