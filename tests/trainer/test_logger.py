"""What TensorBoard gets is read back from the event files, and metrics.csv says the same."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return accumulator.Reload()


def test_scalars_text_hparams_and_pictures_of_a_finetuning(cli):
    outcome = cli("stage=finetune", "init=scratch", "trainer.max_epochs=3", "optimizer.lr=0.01")
    run = outcome.run("finetune")
    record = outcome.record("finetune")
    seen = events(run)

    tags = set(seen.Tags()["scalars"])
    assert {"train/loss", "train/loss_step", "learning_rate", "val/loss", "val/accuracy", "test/accuracy"} <= tags
    assert not any("hp_metric" in tag for tag in tags)
    with open(run / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for name in ("train/loss", "val/accuracy", "train/loss_step", "test/loss"):
        logged = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in seen.Scalars(name)]
        assert [(int(row["step"]), float(row["value"])) for row in rows if row["name"] == name] == logged
    assert len(seen.Scalars("val/accuracy")) == 3

    assert "max_epochs: 3" in seen.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()

    plugin = {
        tag: HParamsPluginData.FromString(seen.SummaryMetadata(tag).plugin_data.content)
        for tag in seen.summary_metadata
        if tag.startswith("_hparams_")
    }
    settings = plugin["_hparams_/session_start_info"].session_start_info.hparams
    assert settings["lr"].number_value == 0.01
    assert settings["loss"].string_value == "cross_entropy"
    metrics = {info.name.tag for info in plugin["_hparams_/experiment"].experiment.metric_infos}
    assert {"best/val/accuracy", "last/val/accuracy", "best/test/accuracy"} <= metrics
    assert seen.Scalars("best/val/accuracy")[0].value == pytest.approx(record["metrics"]["val/accuracy"])
    assert len(seen.Scalars("best/val/accuracy")) == 1
    last = [float(row["value"]) for row in rows if row["name"] == "val/accuracy"][-1]
    assert seen.Scalars("last/val/accuracy")[0].value == pytest.approx(last)

    assert "test confusion matrix" in seen.Tags()["images"]
    projector = (run / "projector_config.pbtxt").read_text()
    assert "features before" in projector
    assert "features after" in projector
    assert "single_image_dim: 8" in projector
    with Image.open(run / "00000" / "features before" / "sprite.png") as sprite:
        assert sprite.size == (17 * 8, 17 * 8)  # of 270 rows


def test_rebuilt_images_beside_their_inputs_while_pretraining(cli):
    outcome = cli("stage=pretrain", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1")
    seen = events(outcome.run("pretrain"))
    pictures = seen.Images("input, corrupted, rebuilt")
    assert len(pictures) == 2
    assert (pictures[0].width, pictures[0].height) == (8 * 10, 3 * 10)


def test_masked_pretraining_of_images_is_pictured_too(cli):
    words = ("objective=masked", "backbone=vit", "backbone.stem.patch=2", "backbone.depth=1")
    outcome = cli("stage=pretrain", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", *words)
    assert events(outcome.run("pretrain")).Images("input, corrupted, rebuilt")


def test_masked_frames_are_pictured_up_to_where_each_recording_ends(cli):
    small = ("backbone.depth=1", "backbone.width=32", "backbone.heads=2", "backbone.stem.channels=4")
    words = ("stage=pretrain", "experiment=speech", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1")
    outcome = cli(*words, *small, "data.test_speakers=[george,jackson,lucas,nicolas]")
    assert outcome.status == 0, outcome.err
    run = outcome.run("pretrain")
    (picture,) = events(run).Images("input, corrupted, rebuilt")
    assert picture.height == 3 * 42
    with Image.open(run / "00000" / "features before" / "sprite.png") as sprite:
        assert sprite.width == sprite.height
        assert "single_image_dim: 40" in (run / "projector_config.pbtxt").read_text()
