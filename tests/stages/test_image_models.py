"""A vision model of transformers in all stages, on the built-in digits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.conftest import FAST
from tests.huggingface.test_image import saved_folder
from transformers import AutoModelForImageClassification

from warmstart.run.saved import open_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of grey images of 8 x 8 pixels."""
    return saved_folder(tmp_path / "vit", "vit", 1, 8)


def test_a_dtype_is_refused(cli, folder: Path):
    refused = cli("stage=finetune", f"init=hf:{folder}", "backbone.dtype=bfloat16", *FAST)
    assert refused.status == 2
    assert "backbone.dtype=bfloat16 is for text models of Hugging Face, unlike this one: remove it" in refused.error


def test_a_model_is_finetuned_and_its_run_evaluated_asked_exported_and_taken_up_again(
    cli, folder: Path, tmp_path: Path
):
    tuned = cli("stage=finetune", f"init=hf:{folder}", *FAST)
    assert tuned.status == 0, tuned.err
    record = tuned.record("finetune")
    assert record["parent"]["path"] == f"hf:{folder}"
    assert record["transfer"]["fraction"] == 1.0
    evaluated = cli("stage=evaluate")
    assert evaluated.record("evaluate")["metrics"]["test/loss"] == pytest.approx(record["metrics"]["test/loss"])

    pixels = np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(picture := tmp_path / "one.png")
    answer = json.loads(cli("stage=predict", f"input={picture}").out)
    assert cli("stage=export", f"folder={tmp_path / 'back'}").status == 0
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "back").eval()
    settings = json.loads((tmp_path / "back" / "preprocessor_config.json").read_text())
    scaled = (pixels * settings["rescale_factor"] - settings["image_mean"][0]) / settings["image_std"][0]
    with torch.no_grad():
        probabilities = model(pixel_values=torch.tensor(scaled, dtype=torch.float32)[None, None]).logits.softmax(-1)
    assert probabilities.max().item() == pytest.approx(answer["probability"], abs=1e-5)
    assert model.config.id2label[probabilities.argmax().item()] == answer["label"]

    words = ("transfer.arms=[knn,zero_shot]", "transfer.labels=[2]", "transfer.seeds=1")
    transfer = cli("stage=transfer", f"transfer.start=hf:{tmp_path / 'back'}", *words, "transfer.budgets.converged=[]")
    assert transfer.status == 0, transfer.err
    untouched = json.loads((transfer.run("transfer") / "runs" / "zero_shot-2-seed0" / "run.json").read_text())
    assert untouched["metrics"]["test/accuracy"] == pytest.approx(record["metrics"]["test/accuracy"])

    probed = cli("stage=finetune", f"init=hf:{tmp_path / 'back'}", "strategy=linear_probe", *FAST)
    first, second = (open_model(run / "model").weights for run in probed.runs("finetune"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_is_pretrained_further_and_finetuned_from_there(cli, folder: Path):
    further = cli("stage=pretrain", "objective=contrastive", "data/augment=shift", f"init=hf:{folder}", *FAST)
    assert further.status == 0, further.err
    tuned = cli("stage=finetune", *FAST)
    assert tuned.record("finetune")["parent"]["id"] == further.record("pretrain")["id"]


def test_it_is_an_arm_of_a_transfer_with_its_controls(cli, folder: Path):
    starts = {"own": f"hf:{folder}", "cold": f"random:hf:{folder}", "mixed": f"shuffled:hf:{folder}"}
    words = [f'+arm.{name}={{init: "{init}"}}' for name, init in starts.items()]
    short = ("transfer.labels=[2]", "transfer.seeds=1", "trainer.max_steps=2", "trainer.val_check_interval=2")
    arms = ("transfer.arms=[own,cold,mixed]", "pretrain.trainer.max_epochs=1", "visualization=[]")
    outcome = cli("stage=transfer", *words, *short, *arms)
    assert outcome.status == 0, outcome.err
    runs = outcome.run("transfer") / "runs"
    fractions = {name: json.loads((runs / f"{name}-2-seed0" / "run.json").read_text())["transfer"] for name in starts}
    assert {name: found and found["fraction"] for name, found in fractions.items()} == {
        "own": 1.0,
        "cold": None,
        "mixed": 1.0,
    }
    report = json.loads((outcome.run("transfer") / "report.json").read_text())
    assert all(name in json.dumps(report) for name in starts)


def test_images_of_other_channels_are_refused(cli, tmp_path: Path):
    outcome = cli("stage=finetune", f"init=hf:{saved_folder(tmp_path / 'colour', 'vit', 3, 8)}", *FAST)
    assert (outcome.status, len(outcome.error.splitlines())) == (2, 1)
    assert "the images have 1 channels, but the vit takes 3" in outcome.error


def test_models_of_another_modality_are_refused_both_ways(cli, folder: Path, tmp_path: Path):
    from tests.huggingface.test_text import saved_folder as text_folder

    bert = text_folder(tmp_path / "bert", "bert")
    outcome = cli("stage=finetune", f"init=hf:{bert}", *FAST)
    assert (outcome.status, len(outcome.error.splitlines())) == (2, 1)
    assert "backbone=huggingface takes text, but data=digits is image" in outcome.error
    (rows := tmp_path / "rows.csv").write_text("text,label\n" + "good film,a\nbad film,b\n" * 20)
    words = ("experiment=text", f"data.root={rows}", "data.text=text", "data.target=label")
    outcome = cli("stage=finetune", *words, f"init=hf:{folder}", *FAST)
    assert (outcome.status, len(outcome.error.splitlines())) == (2, 1)
    assert "backbone=huggingface_images takes image, but data=text_table is text" in outcome.error
