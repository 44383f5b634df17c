"""Event files of TensorBoard agree with metrics.csv."""

from __future__ import annotations

import csv
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tests.conftest import FAST, TENSORBOARD

from warmstart.core.errors import UserError, WriteError
from warmstart.run.folder import RunFolder
from warmstart.training.logger import RunLogger
from warmstart.training.session import Session


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return accumulator.Reload()


def test_scalars_text_hparams_and_pictures_of_a_finetuning(cli):
    length = ("trainer.max_epochs=2", "trainer.min_steps=41")  # 3 epochs of 20 steps
    outcome = cli("stage=finetune", "init=scratch", *length, "optimizer.lr=0.01")
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

    assert "max_epochs: 2" in seen.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()

    plugin = {
        tag: HParamsPluginData.FromString(seen.SummaryMetadata(tag).plugin_data.content)
        for tag in seen.summary_metadata
        if tag.startswith("_hparams_")
    }
    settings = plugin["_hparams_/session_start_info"].session_start_info.hparams
    assert settings["lr"].number_value == 0.01
    assert settings["max_epochs"].number_value == 3
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
    pictures = seen.Images("input, corrupted, reconstructed")
    assert len(pictures) == 2
    assert (pictures[0].width, pictures[0].height) == (8 * 10, 3 * 10)


def test_reconstructions_of_masked_images_are_logged(cli):
    words = ("objective=masked", "backbone=vit", "backbone.stem.patch=2", "backbone.depth=1")
    outcome = cli("stage=pretrain", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", *words)
    assert events(outcome.run("pretrain")).Images("input, corrupted, reconstructed")


def test_reconstructions_of_masked_frames_end_with_the_recording(cli):
    small = ("backbone.depth=1", "backbone.width=32", "backbone.heads=2", "backbone.stem.channels=4")
    words = ("stage=pretrain", "experiment=speech", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1")
    outcome = cli(*words, *small, "data.test_clusters=[george,jackson,lucas,nicolas]")
    assert outcome.status == 0, outcome.err
    run = outcome.run("pretrain")
    (picture,) = events(run).Images("input, corrupted, reconstructed")
    assert picture.height == 3 * 42
    with Image.open(run / "00000" / "features before" / "sprite.png") as sprite:
        assert sprite.width == sprite.height
        assert "single_image_dim: 40" in (run / "projector_config.pbtxt").read_text()


def test_without_tensorboard_a_run_has_its_metrics_and_no_visualization(cli):
    words = ("stage=finetune", "init=scratch", *FAST[1:])
    metrics = []
    for chosen in ([], ["csv"]):
        outcome = cli(*words, f"logger=[{','.join(chosen)}]")
        assert outcome.status == 0, outcome.err
        run = outcome.run("finetune")
        metrics.append((run / "metrics.csv").read_text())
        assert not [*run.glob("events.*"), *run.glob("projector_config.pbtxt")]
        assert (run / "csv").is_dir() == bool(chosen)
        assert "visualizations are disabled: they require logger=tensorboard" in (run / "train.log").read_text()
        assert list(OmegaConf.load(run / "config.yaml").logger) == chosen
    assert "val/accuracy" in metrics[0]
    assert metrics[0] == metrics[1]


class Greeting(Callback):
    """A contributor's visualization."""

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.logger.writer.add_text("greeting", "hello")


def test_a_logger_of_lightning_and_a_visualization_are_one_yaml_each(command, tmp_path: Path):
    for group, node in (
        ("logger", "_target_: pytorch_lightning.loggers.CSVLogger\n  name: mine"),
        ("visualization", f"_target_: {__name__}.Greeting"),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "mine.yaml").write_text(f"mine:\n  {node}\n")
    words = ("stage=finetune", "init=scratch", *FAST, f"hydra.searchpath=[file://{tmp_path}/conf]")
    outcome = command(*words, "logger=[tensorboard,mine]", "visualization=[mine]", "optimizer.lr=0.01")
    assert outcome.status == 0, outcome.err
    assert "greeting/text_summary" in events(outcome.run("finetune")).Tags()["tensors"]
    folder = outcome.run("finetune") / "mine" / "version_0"
    with open(folder / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    metrics = outcome.record("finetune")["metrics"]
    (logged,) = [float(row["best/test/accuracy"]) for row in rows if row["best/test/accuracy"]]
    assert logged == pytest.approx(metrics["test/accuracy"])
    assert "lr: 0.01" in (folder / "hparams.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("logger=[csv,nonsense]", "logger=nonsense does not exist. There is: csv, tensorboard."),
        ("logger.tensorboard.x=1", "logger.tensorboard.x: no such key"),
        ("+logger.tensorboard.x=1", "logger.tensorboard.x: TensorBoard has no such setting"),
        ("+logger.tensorboard.save_dir=x", "logger.tensorboard.save_dir: TensorBoard has no such setting"),
        ("+logger.x=1", "logger.x=1: choose it with logger=[x]"),
        ("+logger.x._target_=warmstart.loss.mse.mse", "logger.x._target_=warmstart.loss.mse.mse: must be a class"),
        ("+visualization.x._target_=nothing", "visualization.x._target_=nothing cannot be imported"),
    ],
)
def test_an_invalid_logger_or_visualization_is_refused_in_a_line(words: str, message: str, cli):
    outcome = cli("stage=finetune", "init=scratch", *FAST[1:], *words.split())
    assert outcome.status == 2, outcome.err
    assert message in outcome.error
    assert len(outcome.err.splitlines()) <= 2


def test_a_logger_that_would_write_outside_of_the_run_is_refused(tmp_path: Path):
    chosen = OmegaConf.create({"x": {"_target_": "pytorch_lightning.loggers.CSVLogger", "name": "../y"}})
    with pytest.raises(UserError, match="outside the run's folder"):
        RunLogger(tmp_path / "run", chosen)


def logged(folder: Path) -> tuple[str, list[tuple[int, float]]]:
    return (folder / "metrics.csv").read_text(), [(event.step, event.value) for event in events(folder).Scalars("loss")]


def test_what_was_logged_after_the_checkpoint_is_removed(tmp_path: Path):
    logger = RunLogger(tmp_path, TENSORBOARD)
    logger.log_metrics({"loss": 0.5}, 1)
    state = logger.state(2)
    at_checkpoint = logged(tmp_path)
    logger.log_metrics({"loss": 0.25}, 1)
    logger.log_metrics({"loss": 0.125}, 3)
    logger.close()
    for _ in range(2):
        RunLogger(tmp_path, TENSORBOARD, state).close()
        assert logged(tmp_path) == at_checkpoint
    resumed = RunLogger(tmp_path, TENSORBOARD, state)
    resumed.log_metrics({"loss": 0.75}, 3)
    later = resumed.state(4)
    resumed.close()
    RunLogger(tmp_path, TENSORBOARD, later).close()
    assert logged(tmp_path)[1] == [(1, 0.5), (3, 0.75)]
    RunLogger(tmp_path, TENSORBOARD).close()
    assert (tmp_path / "metrics.csv").read_bytes() == b"step,name,value\r\n"
    assert events(tmp_path).Tags()["scalars"] == []


@pytest.mark.parametrize(
    "changed",
    [None, b"", b"1,loss,0.5\r\n", b"step,name,value\r\n", b"step,name,value\r\n1,loss,0.4\r\n"],
    ids=["missing", "empty", "no header", "too few rows", "another value"],
)
def test_rows_that_are_not_those_of_the_checkpoint(changed: bytes | None, tmp_path: Path):
    logger = RunLogger(tmp_path, TENSORBOARD)
    logger.log_metrics({"loss": 0.5}, 1)
    state = logger.state(1)
    logger.close()
    path = tmp_path / "metrics.csv"
    path.unlink()
    if changed is not None:
        path.write_bytes(changed)
    with pytest.raises(
        UserError, match=r"metrics\.csv .* so the run cannot resume: put the file back, or start the run"
    ):
        RunLogger(tmp_path, TENSORBOARD, state)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("name", ["metrics.csv", "events.out.tfevents"])
def test_a_full_disk_raises_where_it_was_logged_and_no_thread_prints(name: str, tmp_path: Path):
    logger = RunLogger(tmp_path, TENSORBOARD)
    file = logger.metrics if name == "metrics.csv" else logger.writer._get_file_writer().event_writer.file
    file.close()
    file.stream = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - closed by the logger
    before = threading.active_count()
    with pytest.raises(WriteError, match=rf"cannot write .*{name}.*: No space left on device"):
        logger.log_metrics({"loss": 0.5}, 1)
    logger.close()
    assert threading.active_count() == before


def test_what_a_checkpoint_counts_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    logger, synced = RunLogger(tmp_path, TENSORBOARD), []
    logger.log_metrics({"train/loss": 1.0}, 1)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    sizes = logger.state(1)["sizes"]
    assert {*synced} == {str(tmp_path), *(str(tmp_path / name) for name in sizes)}
    assert sizes["metrics.csv"] == (tmp_path / "metrics.csv").stat().st_size
    logger.close()


def test_a_trainer_that_cannot_be_built_leaves_no_file_open(tmp_path: Path):
    trainer = {"_target_": "pytorch_lightning.Trainer", "accelerator": "none", "log_every_n_steps": 1}
    settings = {"stage": "pretrain", "experiment": "digits", "seed": 0, "logger": {}, "visualization": {}}
    config = OmegaConf.create({**settings, "trainer": trainer})
    run = RunFolder.create(config, tmp_path)
    module, data = SimpleNamespace(monitor=("val/loss", "min")), SimpleNamespace(train_loader=())
    with pytest.raises(Exception, match="accelerator") as raised, Session(run, config, module, data):
        pass
    assert raised.tb is not None
    open_files = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    assert not [path for path in open_files if path.startswith(str(run.path))]
