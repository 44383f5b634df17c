"""The mistakes in TensorBoard are the test rows with the largest loss under the saved model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import Outcome
from torch import Tensor

from warmstart.core.batch import Batch
from warmstart.data.datamodule import TaskDataModule
from warmstart.data.preprocess import rebuild
from warmstart.run.folder import RunFolder
from warmstart.training import components
from warmstart.training.modules import FinetuneModule
from warmstart.training.restore import restore
from warmstart.training.visualization.misclassifications import MAX_CHARACTERS, SHOWN, Misclassifications, table

SPEECH = (
    *("stage=finetune", "experiment=speech", "init=scratch", "trainer.max_epochs=1", "optimizer.lr=0.005"),
    *("backbone.depth=1", "backbone.width=32", "backbone.heads=2", "backbone.stem.channels=4"),
    *("data.test_clusters=[george,jackson,lucas,nicolas]", "trainer.precision=32-true"),
)


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0, "audio": 0}).Reload()


def rows(folder: Path, tag: str) -> list[list[str]]:
    """The cells of a table that TensorBoard got as text."""
    (event,) = events(folder).Tensors(f"{tag}/text_summary")
    lines = event.tensor_proto.string_val[0].decode().splitlines()
    return [[cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def saved(outcome: Outcome) -> tuple[FinetuneModule, TaskDataModule, Tensor]:
    """The saved model, the data, and the model's outputs for the whole test set (N, ...)."""
    folder = RunFolder.open(outcome.run("finetune"))
    config = folder.config()
    module, model = restore(folder, config)
    data = components.task_data(config, rebuild(model.preprocessor)).prepare()
    batch = data.sample("test", data.rows["test"])
    batch.x = data.preprocessor(batch.x)
    with torch.no_grad():
        return module, data, module.eval().objective.predict(module.backbone, batch)


def test_recordings_that_the_model_is_surely_wrong_about(cli):
    outcome = cli(*SPEECH)
    assert outcome.status == 0, outcome.err
    folder = outcome.run("finetune")
    _, data, outputs = saved(outcome)
    sure, predicted = outputs.softmax(-1).max(-1)
    truth = data.parts["test"][1]
    wrong = sorted((row for row in range(len(sure)) if predicted[row] != truth[row]), key=lambda row: -sure[row])
    labels, shown = data.spec.labels, rows(folder, "most confident mistakes")
    assert len(shown) == SHOWN
    for number, (row, cells) in enumerate(zip(wrong, shown), 1):
        assert cells[:3] == [str(number), labels[truth[row]], labels[predicted[row]]]
        assert float(cells[3].rstrip("%")) == pytest.approx(100 * float(sure[row]), abs=0.11)
        assert cells[4] == data.raw_test.file[row]
    players = [tag for tag in events(folder).Tags()["audio"] if tag.startswith("most confident mistakes")]
    assert len(players) == 4
    assert players[0] == f"most confident mistakes/1 {shown[0][1]} predicted as {shown[0][2]}"


def test_utterances_with_most_wrong_words(cli):
    outcome = cli(*SPEECH, "objective=ctc", "data.connect=[2,3]")
    assert outcome.status == 0, outcome.err
    module, data, outputs = saved(outcome)
    metric = module.objective.metrics()["errors"]
    metric.update(outputs, data.sample("test", data.rows["test"]).y)
    compared = metric.compared
    errors = [errors for errors, *_ in compared]
    worst = sorted(range(len(errors)), key=lambda row: -errors[row])[:SHOWN]
    shown = rows(outcome.run("finetune"), "worst transcripts")
    assert [cells[4] for cells in shown] == [data.raw_test.file[row] for row in worst]
    assert [(cells[1], int(cells[3])) for cells in shown] == [(compared[row][1], errors[row]) for row in worst]
    assert errors[worst[0]] >= 2
    (first,) = module.objective.target_texts(data.sample("validation", 1).y)
    assert f"recordings/1 {first}" in events(outcome.run("finetune")).Tags()["audio"]


def test_images_are_drawn_and_nothing_is_where_no_pictures_are_wanted(cli):
    words = ("stage=finetune", "init=scratch", "trainer.max_epochs=1")
    outcome = cli(*words)
    (figure,) = events(outcome.run("finetune")).Images("most confident mistakes")
    assert (figure.width, figure.height) == (450, 760)
    metrics = outcome.record("finetune")["metrics"]
    without = cli(*words, "visualization=[]")
    assert without.record("finetune")["metrics"] == metrics
    tags = events(without.run("finetune")).Tags()
    assert tags["images"] == tags["audio"] == []
    assert [tag for tag in tags["tensors"] if "text_summary" in tag] == ["config/text_summary"]
    assert not (without.run("finetune") / "projector_config.pbtxt").exists()


def test_kept_over_batches_of_any_size_and_only_what_is_wrong():
    outputs = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    truth = outputs.argmax(-1)
    truth[:9] = (truth[:9] + 1) % 4
    mistakes = Misclassifications()
    mistakes.on_test_start(None, None)
    for part, y in zip(outputs.split(7), truth.split(7)):
        mistakes.on_test_batch_end(None, None, part, Batch(part, y), 0)
    sure, found, true, predicted = mistakes.kept
    order = outputs[:9].softmax(-1).amax(-1).argsort(descending=True)
    assert torch.equal(found[:9], order)
    assert not sure[9:].any()
    assert torch.equal(true[:9], truth[order])
    assert torch.equal(predicted[:9], outputs.argmax(-1)[order])


def test_what_a_table_holds_is_shown_as_it_is():
    header, rule, first, second = table(("text",), [("a | b <c>\n*d*",), ("e" * 400,)]).splitlines()
    assert (header, rule) == ("|  | text |", "| --- | --- |")
    assert first == r"| 1 | a \| b &lt;c&gt; \*d\* |"
    assert second == f"| 2 | {'e' * MAX_CHARACTERS} … |"
