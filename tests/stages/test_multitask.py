"""data=[a,b]: multi-task training in all stages, and refused combinations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.conftest import FAST
from tests.stages.test_errors import refused

from warmstart.config.expand import expand

QUICK = (*FAST, "trainer.max_epochs=3", "optimizer.lr=0.01", "data.batch_size=16", "backbone.hidden=[32]")


@pytest.fixture
def tables(tmp_path: Path) -> tuple[str, ...]:
    """Two tables with the same columns: is a above b, and how high is their sum."""
    generator = np.random.default_rng(0)
    words = []
    for name, rows in (("larger", 120), ("level", 90)):
        frame = pd.DataFrame({"a": generator.normal(size=rows), "b": generator.normal(size=rows)})
        total = frame.a + frame.b
        third = np.where(total < -0.6, "low", np.where(total > 0.6, "high", "middle"))
        frame["y"] = np.where(frame.a > frame.b, "yes", "no") if name == "larger" else third
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        words += [f"data.sources.{name}.root={tmp_path / f'{name}.csv'}", f"data.sources.{name}.target=y"]
    return ("experiment=table", "data=[larger:table,level:table]", *words)


def test_two_tables_from_pretrained_weights_through_every_stage(cli, tables: tuple[str, ...], tmp_path: Path):
    larger = ("experiment=table", f"data.root={tmp_path / 'larger.csv'}", "data.target=y")
    assert cli("stage=pretrain", *larger, *QUICK).status == 0
    done = cli("stage=finetune", *tables, *QUICK, "trainer.max_epochs=12")
    assert done.status == 0, done.err
    record = done.record("finetune")
    assert record["transfer"]["fraction"] == 1
    assert record["data"]["name"] == "larger+level"
    assert record["data"]["rows"] == {"train": 84 + 62, "validation": 18 + 14, "test": 18 + 14}
    found = record["metrics"]
    assert found["test/accuracy"] == pytest.approx((found["test/accuracy_larger"] + found["test/accuracy_level"]) / 2)
    assert min(found["test/accuracy_larger"], found["test/accuracy_level"]) > 0.6

    path = done.run("finetune")
    evaluated = cli("stage=evaluate", f"run={path}", "experiment=table")
    assert evaluated.status == 0, evaluated.err
    assert evaluated.record("evaluate")["metrics"] == pytest.approx({k: v for k, v in found.items() if "test/" in k})
    (tmp_path / "new.csv").write_text("b,a\n-1.5,2.5\n2,1.5\n")
    predicted = cli("stage=predict", f"run={path}", "experiment=table", f"input={tmp_path / 'new.csv'}")
    first, second = (json.loads(line)["tasks"] for line in predicted.out.splitlines())
    assert (first["larger"]["label"], second["level"]["label"]) == ("yes", "high")
    pseudo = cli("stage=finetune", *tables, *QUICK, "strategy=self_training", "data.unlabelled=true")
    refused(pseudo, "needs one class per row, which objective=multitask does not predict")
    again = cli("stage=rerun", f"run={path}")
    assert again.status == 0, again.err
    refused(cli("stage=export", f"run={path}", "experiment=table", "format=hf"), "transformers")


def test_a_task_without_weight_is_not_learned_and_a_budget_of_labels_is_of_each_class_of_each_task(cli, tables):
    found = {}
    for weight in ("1", "0"):
        words = ("data.labels_per_class=10", "trainer.max_epochs=20", f"objective.weights.level={weight}")
        done = cli("stage=finetune", *tables, *QUICK, "init=scratch", *words)
        assert done.status == 0, done.err
        assert done.record("finetune")["data"]["rows"]["train"] == 10 * (2 + 3)
        found[weight] = done.record("finetune")["metrics"]
    assert found["1"]["test/accuracy_level"] > found["0"]["test/accuracy_level"]


def test_images_of_two_sources_are_tasks_of_one_network_also_mixed(cli, tmp_path: Path):
    (tmp_path / "pictures").mkdir()
    for number in range(24):
        pixels = np.full((8, 8), 40 + 170 * (number % 2), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    names = pd.DataFrame({"img": [f"{number}.png" for number in range(24)], "y": ["dark", "light"] * 12})
    names.to_csv(tmp_path / "pictures" / "t.csv", index=False)
    table = (f"root={tmp_path / 'pictures' / 't.csv'}", "image=img", "target=y", "size=8", "channels=1")
    words = ["data=[digits,light:image_table]", *(f"data.sources.light.{word}" for word in table)]
    done = cli("stage=finetune", *words, *QUICK, "init=scratch", "data/augment=mixup", "loss=focal")
    assert done.status == 0, done.err
    assert done.record("finetune")["metrics"]["test/accuracy_light"] == 1


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("data=[digits]",), ("data=[digits]", "two or more")),
        (("data=several",), ("data.sources=", "two or more")),
        (("data=[digits,digits]",), ("two tasks have the name digits", "data=[x:digits,y:digits]")),
        (("data=[x:digits,loss:digits]",), ("loss is not a valid name",)),
        (("data=[digits,digit]",), ("data=digit does not exist", "digits")),
        (("data=[digits,vectors],[vectors,digits]",), ("give one list",)),
        (("data=[digits,table]",), ("data.sources.table.root=...",)),
        (("data=[digits,vectors]",), ("digits is image", "vectors is vector")),
        (("data=[digits,shakespeare]",), ("digits is image", "shakespeare is text")),
        (("data=[x:digits,y:digits]", "loss=mse"), ("loss=mse is incompatible with objective=multitask",)),
        (("data=[x:digits,y:digits]", "objective=regression"), ("objective=regression needs targets", "category")),
        (
            ("data=[x:digits,y:digits]", "data.sources.x.split_seed=abc"),
            ("x.split_seed=abc", "must be a whole number"),
        ),
        (("data=[x:digits,y:digits]", "data.sources.x.split=1"), ("data.sources.x.split", "split_seed")),
        (("data=[x:digits,y:digits]", "objective.weights.z=1"), ("objective.weights.z", "no such key")),
        (
            ("data=[x:digits,y:digits]", "objective.weights.x=-1"),
            ("objective.weights=", "each a number, 0 or more"),
        ),
        (("objective=multitask",), ("several data sets",)),
    ],
)
def test_data_sets_that_are_not_tasks_are_refused(words: tuple[str, ...], parts: tuple[str, ...], cli):
    outcome = cli("stage=finetune", "init=scratch", *words)
    refused(outcome, *parts)
    assert not outcome.runs("finetune")


def test_flags_stay_where_they_are_and_weights_are_known_wherever_they_are_typed():
    spelled = expand(["-m", "objective.weights.a=2", "data=[a:digits, b:vectors]", "--cfg", "job"])
    assert spelled == [
        *("-m", "data=several", "+data@data.sources.a=digits", "+data@data.sources.b=vectors", "objective=multitask"),
        *("+objective.weights.a=1.0", "+objective.weights.b=1.0", "objective.weights.a=2", "--cfg", "job"),
    ]
    assert expand(["data=digits", "transfer.labels=[1,5]"]) == ["data=digits", "transfer.labels=[1,5]"]
    assert "objective=multitask" not in expand(["data=[a:digits,b:digits]", "objective=classification"])
