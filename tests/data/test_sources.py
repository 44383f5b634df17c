"""Sources except text and audio: the declared spec matches the batches, and splits are disjoint."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf
from PIL import Image

from warmstart.data.datamodule import GenericDataModule, TaskDataModule
from warmstart.main import CONF
from warmstart.training.components import build

pytestmark = pytest.mark.quick

ELSEWHERE = ("text", "speech")
SOURCES = sorted(
    path.stem
    for path in (CONF / "data").glob("*.yaml")
    if get_object(OmegaConf.load(path)._target_).modality not in ELSEWHERE
)

VECTORS = {"_target_": "warmstart.data.sources.vectors.Vectors", "_partial_": True, "rows": 400}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table and a folder of pictures."""
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"a": generator.normal(size=60), "b": generator.choice(["u", "v"], 60)})
    frame["y"] = np.where(frame.a > 0, "yes", "no")
    frame.loc[50:, "y"] = None
    frame.to_csv(tmp_path / "table.csv", index=False)
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for index in range(12):
            pixels = generator.integers(0, 255, (10, 14, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / label / f"{index}.png")
    names = [f"{label}/{index}.png" for label in ("cat", "dog") for index in range(12)]
    named = pd.DataFrame({"img": names, "label": [name[:3] for name in names]})
    named.to_csv(tmp_path / "images" / "names.csv", index=False)
    return tmp_path


def source(name: str, folder: Path):
    settings = {
        "table": {"root": str(folder / "table.csv"), "target": "y", "categorical": ["b"]},
        "image_folder": {"root": str(folder / "images"), "size": 8},
        "image_table": {"root": str(folder / "images" / "names.csv"), "image": "img", "target": "label", "size": 8},
        "vectors": {"rows": 400},
        "several": {"sources": {name: {**VECTORS, "seed": seed} for seed, name in enumerate("ab")}},
    }
    if name == "cifar10":
        data = os.environ.get("WARMSTART_DATA")
        if not data:
            pytest.skip("WARMSTART_DATA is not set: there is no local copy of CIFAR-10")
        photos = folder / "photos"
        photos.mkdir(exist_ok=True)
        for part, rows in (("train", 6000), ("test", 500)):
            pq.write_table(pq.read_table(f"{data}/cifar10/{part}.parquet")[:rows], photos / f"{part}.parquet")
        settings[name] = {"root": str(photos)}
    node = OmegaConf.merge(OmegaConf.load(CONF / "data" / f"{name}.yaml"), settings.get(name, {}))
    return build(node)


@pytest.mark.parametrize("name", SOURCES)
def test_spec_matches_the_batches_and_parts_are_disjoint(name: str, folder: Path):
    kind = "category"
    one = TaskDataModule(source(name, folder), kind, 8, order_seed=0).prepare()
    batch = next(iter(one.train_dataloader()))
    scaled = one.preprocessor(batch.x)
    assert scaled.shape == (8, *one.spec.shape)
    assert scaled.dtype == torch.float32
    assert batch.y.dtype == torch.int64
    assert 0 <= int(batch.y.min()) <= int(batch.y.max()) < one.spec.outputs
    keys = {part: {row.numpy().tobytes() for row in x} for part, (x, _) in one.parts.items()}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]
    if name != "cifar10":
        again = TaskDataModule(source(name, folder), kind, 8, order_seed=0).prepare()
        assert again.fingerprint == one.fingerprint
        assert torch.equal(again.parts["test"][0], one.parts["test"][0])
        assert torch.equal(next(iter(again.train_dataloader())).x, batch.x)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "cifar10"])
def test_no_label_leaves_generic_data_unless_the_objective_is_supervised(name: str, folder: Path):
    module = GenericDataModule(source(name, folder), None, 8, order_seed=0).prepare()
    for loader in (module.train_dataloader(), module.val_dataloader()):
        assert all(batch.y is None for batch in loader)
    assert module.spec.labels == ()


def test_inputs_are_scaled_by_the_training_rows(folder: Path):
    for name in ("digits", "vectors", "image_folder"):
        module = GenericDataModule(source(name, folder), None, 10_000, order_seed=0).prepare()
        stored = next(iter(module.train_dataloader())).x
        before = stored.clone()
        x = module.preprocessor(stored)
        assert torch.equal(stored, before)
        assert abs(float(x.mean())) < 1e-3
        assert float(x.std()) == pytest.approx(1, abs=0.02)


def test_rows_without_a_target_serve_pretraining_alone(folder: Path):
    generic = GenericDataModule(source("table", folder), None, 8, order_seed=0).prepare()
    task = TaskDataModule(source("table", folder), "category", 8, order_seed=0).prepare()
    assert sum(task.rows.values()) == 50
    assert generic.rows["train"] == task.rows["train"] + 10
    assert generic.rows["test"] == task.rows["test"]


def test_the_two_vector_sets_share_hidden_directions_and_nothing_else(folder: Path):
    generic, task = source("vectors", folder).load("value"), source("vectors", folder).load("category")
    assert not np.array_equal(generic.train.x, task.train.x)
    # Directions found by least squares on the generic values explain the task's classes better than chance ones.
    weights = np.linalg.lstsq(generic.train.x, generic.train.y, rcond=None)[0]
    found = np.linalg.svd(weights, full_matrices=False)[0][:, :8]
    chance = np.linalg.qr(np.random.default_rng(1).normal(size=found.shape))[0]

    def separation(directions: np.ndarray) -> float:
        h = task.train.x @ directions
        means = np.stack([h[task.train.y == label].mean(0) for label in range(4)])
        return float(np.square(means - means.mean(0)).sum())

    assert separation(found) > 3 * separation(chance)


@pytest.mark.parametrize("column", ["two floats", "many names", "whole numbers", "values", "flags"])
def test_no_objective_moves_a_row_to_another_part(column: str, tmp_path: Path):
    """What one objective tests on, no other trains on: the split of a table does not depend on the objective."""
    generator = np.random.default_rng(0)
    y = {
        "two floats": np.arange(90) % 2 + 1.0,
        "many names": [f"name {i % 20}" for i in range(90)],
        "whole numbers": np.arange(90) % 7,
        "values": generator.normal(size=90),
        "flags": np.arange(90) % 2,
    }[column]
    pd.DataFrame({"a": np.arange(90), "y": y, "z": np.arange(90) % 2}).to_csv(tmp_path / "t.csv", index=False)
    node = OmegaConf.load(CONF / "data" / "table.yaml")
    settings = {"root": str(tmp_path / "t.csv"), "target": "y", "ignore": ["z"]}
    kinds = {
        "two floats": [None, "category", "value"],
        "many names": [None, "category"],
        "whole numbers": [None, "category", "value"],
        "values": [None, "value"],
        "flags": [None, "category", "value"],
    }[column]
    parts = [build(OmegaConf.merge(node, settings)).load(kind) for kind in kinds]
    for other in parts[1:]:
        assert list(other.test.x.a) == list(parts[0].test.x.a)
        assert list(other.validation.x.a) == list(parts[0].validation.x.a)
