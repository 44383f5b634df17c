"""Image sources in all stages: tables, multi-label targets, augmentation, predictions for files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tests.conftest import FAST

SMALL = ("experiment=images", "data.size=8", "backbone.widths=[8,8,8,8]", *FAST)
ALL_CHANGES = ("data/augment=[crop,shift,flip,blur,solarize,color_jitter,grayscale,random_erasing]",)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Dark and light images, and a table of them: their class, whether they are wide, and both as a list."""
    generator, rows = np.random.default_rng(0), []
    (tmp_path / "photos").mkdir()
    for index in range(40):
        is_light, is_wide = index % 2, index // 2 % 2
        pixels = generator.integers(120 * is_light, 120 * is_light + 100, (12, 12 + 8 * is_wide, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index:02}.png")
        rows.append(
            {"img": f"{index:02}.png", "label": ("dark", "light")[is_light], "light": is_light, "wide": is_wide}
        )
    pd.DataFrame(rows).to_csv(tmp_path / "photos" / "table.csv", index=False)
    return tmp_path / "photos"


def test_a_table_of_images_is_pretrained_on_finetuned_with_and_predicted_for(cli, photos: Path):
    words = (*SMALL, "data=image_table", f"data.root={photos / 'table.csv'}", "data.image=img", "data.target=label")
    pretrain = cli("stage=pretrain", *words, *ALL_CHANGES)
    assert pretrain.status == 0, pretrain.err
    finetune = cli("stage=finetune", *words, "data/augment=[shift,blur,solarize,color_jitter,grayscale,random_erasing]")
    assert finetune.status == 0, finetune.err
    assert finetune.record("finetune")["transfer"]["fraction"] == 1.0

    (photos / "notes.txt").write_text("no picture")
    predict = cli("stage=predict", "experiment=images", f"input={photos}")
    lines = [json.loads(line) for line in predict.out.splitlines()]
    assert [line["file"] for line in lines] == sorted(map(str, photos.glob("*.png")))
    assert [line["row"] for line in lines] == list(range(1, 41))
    one = cli("stage=predict", "experiment=images", f"input={photos / '07.png'}")
    assert json.loads(one.out) == {**lines[7], "row": 1}

    table = cli("stage=predict", "experiment=images", f"input={photos / 'table.csv'}")
    assert [json.loads(line) for line in table.out.splitlines()][7] == lines[7]

    refused = cli("stage=predict", "experiment=images", f"input={photos / 'none.png'}")
    assert refused.status == 2
    assert f"{photos / 'none.png'}: no such file or folder" in refused.error


def test_several_labels_and_broken_images(cli, photos: Path):
    (photos / "05.png").write_bytes(b"")
    words = (*SMALL, "stage=finetune", "init=scratch", "data=image_table", f"data.root={photos / 'table.csv'}")
    words = (*words, "data.image=img", "data.target=[light,wide]", "objective=multilabel")
    refused = cli(*words)
    assert refused.status == 2
    assert "05.png" in refused.error
    outcome = cli(*words, "data.on_error=skip")
    assert outcome.status == 0, outcome.err
    assert "1 of 40 images are skipped" in outcome.err
    assert sum(outcome.record("finetune")["data"]["rows"].values()) == 39
    assert "test/f1" in outcome.record("finetune")["metrics"]


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("grayscale", "probability=1.5"),
        ("blur", "probability=-0.1"),
        ("solarize", "probability=often"),
        ("random_erasing", "area=2"),
        ("crop", "size=0.5"),
        ("crop", "size=-1"),
        ("shift", "pixels=0"),
    ],
)
def test_settings_of_a_transform_beyond_their_range_are_refused(name: str, setting: str, cli):
    outcome = cli("stage=pretrain", f"data/augment={name}", f"data.augment.{name}.{setting}")
    assert outcome.status == 2
    assert outcome.error.startswith(f"error: data.augment.{name}.{setting}: must be")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.augment.shift=2",), "data.augment.shift: shift is not chosen. Add data/augment=[shift,...]"),
        (
            ("data.augment.colour=0.4",),
            "no such key. Choose with data/augment=[...]. Did you mean",
        ),
        (("data/augment=[crop,colour]",), "data/augment=colour does not exist. Did you mean"),
        (("data.augment=[crop]",), "data.augment=[crop]: choose with data/augment=[crop]"),
        (("+data.augment.bands=5",), "data.augment.bands=5: choose transforms with data/augment="),
        (
            ("data/augment=crop", "data.augment.crop=0.5"),
            "data.augment.crop=0.5: choose transforms with",
        ),
        (("data/augment=crop", "data.augment.crop._target_=os.getcwd"), "must be a class that inherits from"),
    ],
)
def test_an_invalid_transform_is_refused(words: tuple[str, ...], message: str, cli):
    outcome = cli("stage=pretrain", *words)
    assert outcome.status == 2
    assert message in outcome.error


def characters(folder: Path, per_class: int) -> Path:
    """Write a folder of ten classes of handwritten digits, as images of 16 x 16 pixels."""
    digits = load_digits()
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
        for number, index in enumerate(np.flatnonzero(digits.target == label)[:per_class]):
            pixels = (digits.images[index] * 15).astype(np.uint8)
            Image.fromarray(pixels).resize((16, 16)).save(folder / str(label) / f"{number}.png")
    return folder


def test_five_labels_per_class_are_learned_at_the_defaults(cli, tmp_path: Path):
    root = characters(tmp_path / "images", 30)
    words = ("stage=finetune", "experiment=images", "init=scratch", f"data.root={root}", "data.size=16")
    words = (*words, "data.labels_per_class=5", "backbone.widths=[16,32,64,128]", "logger=[]", "visualization={}")
    outcome = cli(*words)
    assert outcome.status == 0, outcome.err
    assert "200 epochs instead of 20: trainer.min_steps=200" in outcome.err
    assert "the training loss fell" not in outcome.err
    assert outcome.record("finetune")["metrics"]["test/accuracy"] > 0.5  # it was 0.1 after 20 steps
    short = cli(*words, "trainer.max_epochs=20")
    assert "warning: the training loss fell" in short.err
