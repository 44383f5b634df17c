"""Jobs of a vmap group match the same jobs trained separately: metrics, curves, weights, records."""

from __future__ import annotations

import csv
import importlib
import json
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, open_dict
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from warmstart.core import screen
from warmstart.core.errors import CannotBatch, GroupFailed, UserError
from warmstart.data.sources.image.digits import Digits
from warmstart.run.folder import RunFolder
from warmstart.stages.runner import StageRunner
from warmstart.vmap.loop import VmapLoop

FINETUNE = ("stage=finetune", "init=scratch", "visualization=[]", "trainer.max_epochs=2")
PRETRAIN = (
    *("stage=pretrain", "visualization=[]", "feature_rows=0"),
    *("trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1"),
)
TABLE = ("experiment=table", "data.root={folder}/table.csv")
STEPS = (
    *("trainer.max_epochs=-1", "trainer.max_steps=27", "trainer.check_val_every_n_epoch=null"),
    *("trainer.val_check_interval=10", "trainer.log_every_n_steps=4"),
)
PATIENT = (
    *("trainer.max_epochs=-1", "trainer.max_steps=300", "trainer.check_val_every_n_epoch=null"),
    *("trainer.val_check_interval=10", "trainer.min_steps=60", "patience=3"),
)
WITHIN = ("trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2", "trainer.val_check_interval=4")
SUBSET = ("data.labels_per_class=10", "data.batch_size=16", "data/augment=[shift,noise]", "data.augment.noise.std=0.2")
MOMENTUM = ("optimizer=sgd", "optimizer.momentum=0.9", "scheduler=one_cycle")
TINY = ("backbone=vit", "backbone.width=8", "backbone.depth=1", "backbone.heads=2")
NEAR = 1e-4

Jobs = Callable[..., list[DictConfig]]


@pytest.fixture
def jobs(composed, tmp_path: Path) -> Jobs:
    """Configs that share some words, and have each their own."""

    def call(shared: Iterable[str], *own: str) -> list[DictConfig]:
        configs = []
        for words in own:
            given = [word.format(folder=tmp_path) for word in (*shared, *words.split())]
            config = composed(*given, f"output_dir={tmp_path}")
            with open_dict(config):
                config.pop("sweep", None)
            configs.append(config)
        return configs

    return call


@pytest.fixture
def table(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(draw.normal(size=(120, 3)), columns=["a", "b", "c"])
    frame["z"] = 50 + 10 * frame.a + draw.normal(size=120)
    frame["p"], frame["q"] = (frame.a > 0).astype(int), (frame.b + frame.c > 0).astype(int)
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return path


def opened(configs: list[DictConfig]) -> list[RunFolder]:
    return [RunFolder.create(config, Path(config.output_dir) / "together") for config in configs]


def run_in_group(configs: list[DictConfig]) -> list[RunFolder]:
    runs = opened(configs)
    with screen.quiet():
        StageRunner().run_group(configs, runs)
    return runs


def run_alone(config: DictConfig) -> RunFolder:
    run = RunFolder.create(config, Path(config.output_dir) / "alone")
    with screen.quiet():
        importlib.import_module(f"warmstart.stages.{config.stage}").run(config, run)
    return run


def curves(run: RunFolder) -> tuple[list[tuple[str, str]], list[float]]:
    with open(run.path / "metrics.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [(row["step"], row["name"]) for row in rows], [float(row["value"]) for row in rows]


def without_chance(record: dict) -> dict:
    """A record without what no two runs share, or what is only near."""
    kept = {
        key: value for key, value in record.items() if key not in ("id", "weights_sha256", "model_sha256", "checksums")
    }
    kept["metrics"] = list(record["metrics"])
    kept["data"] = {key: value for key, value in record["data"].items() if key != "overlap"}  # not searched for in jobs
    kept["cost"] = {name: record["cost"][name] for name in ("steps", "examples")}
    if "cka" in record:
        kept["cka"] = pytest.approx(record["cka"], abs=NEAR)
    return kept


def assert_same(alone: RunFolder, run: RunFolder) -> None:
    written, record = (json.loads((one.path / "run.json").read_text()) for one in (run, alone))
    assert list(written) == list(record)
    assert without_chance(written) == without_chance(record)
    assert written["metrics"] == pytest.approx(record["metrics"], abs=NEAR)
    assert written["cost"]["seconds"] > 0
    names, values = curves(alone)
    assert curves(run)[0] == names
    assert curves(run)[1] == pytest.approx(values, rel=NEAR, abs=NEAR)
    assert sorted(path.name for path in (run.path / "model").glob("*")) == sorted(
        path.name for path in (alone.path / "model").glob("*")
    )
    for path in alone.path.glob("test_scores.npy"):
        assert np.abs(np.load(run.path / path.name) - np.load(path)).mean() < NEAR
    for path in (alone.path / "model").glob("*.safetensors"):
        ours = load_file(run.path / "model" / path.name)
        for name, tensor in load_file(path).items():
            torch.testing.assert_close(ours[name], tensor, atol=NEAR, rtol=0)


CASES = {
    "seeds, rates and decays": (
        FINETUNE,
        "seed=0",
        "seed=1 optimizer.lr=0.01",
        "seed=2 optimizer.weight_decay=0.5",
        "seed=3",
    ),
    "a frozen backbone": ((*FINETUNE, "strategy=linear_probe"), "seed=0 optimizer.lr=0.01", "seed=1"),
    "a slower backbone": ((*FINETUNE, "strategy.backbone_scale=0.1", "backbone.norm=true"), "seed=0", "seed=1"),
    "steps, not epochs": (
        (*FINETUNE, *STEPS),
        "seed=0",
        "seed=1",
    ),
    "a validation inside some epochs, a subset and noise of each job's own": (
        (*FINETUNE, *WITHIN, *SUBSET, *MOMENTUM),
        "seed=0 optimizer.lr=0.1",
        "seed=1 optimizer.lr=0.1",
    ),
    "an end to patience": (
        (*FINETUNE, *PATIENT, *SUBSET),
        "seed=0 optimizer.lr=0.0003",
        "seed=1 optimizer.lr=0.001",
        "seed=2 optimizer.lr=0.002",
    ),
    "a run too short to validate": ((*FINETUNE, "trainer.check_val_every_n_epoch=5"), "seed=0", "seed=1"),
    "label smoothing": (
        (*FINETUNE, "loss=cross_entropy"),
        "seed=0 loss.label_smoothing=0.1",
        "seed=0",
        "seed=1 loss.label_smoothing=0.1",
    ),
    "a parameter that is not used": (
        (*FINETUNE, *TINY, "optimizer=sgd", "trainer.max_epochs=1"),  # Adam would blow up the rounding of key biases
        "seed=0",
        "seed=1",
    ),
    "values of a subset": (
        (*FINETUNE, *TABLE, "objective=regression", "data.target=z", "data.ignore=[p,q]", "data.label_fraction=0.5"),
        "seed=0 optimizer.lr=0.01",
        "seed=1",
    ),
    "several labels": (
        (*FINETUNE, *TABLE, "objective=multilabel", "data.target=[p,q]", "data.ignore=[z]"),
        "seed=0 optimizer.lr=0.01",
        "seed=1",
    ),
    "pretraining with augmented copies": (
        (*PRETRAIN, "objective=contrastive", "data/augment=noise", "data.augment.noise.std=0.5"),
        "seed=0",
        "seed=1 optimizer.lr=0.01",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_job_comes_out_as_alone(case, jobs: Jobs, table: Path):
    shared, *own = case
    configs = jobs(shared, *own)
    for config, run in zip(configs, run_in_group(configs)):
        assert_same(run_alone(config), run)


def test_patience_ends_each_job_at_a_step_of_its_own(jobs: Jobs):
    shared, *own = CASES["an end to patience"]
    steps = [run.record["cost"]["steps"] for run in run_in_group(jobs(shared, *own))]
    assert len(set(steps)) > 1
    assert all(60 <= step < 300 for step in steps)


def test_jobs_that_start_from_saved_backbones_and_from_scratch(jobs: Jobs, tmp_path: Path):
    starts = [run_alone(config) for config in jobs((*PRETRAIN, "trainer.max_epochs=1"), "seed=0", "seed=1")]
    configs = jobs(FINETUNE, f"init={starts[0].path}", f"init={starts[1].path}", "init=scratch")
    runs = run_in_group(configs)
    assert runs[0].record["parent"]["id"] == starts[0].record["id"]
    assert runs[0].record["transfer"]["fraction"] == 1
    for config, run in zip(configs, runs):
        assert_same(run_alone(config), run)


def test_a_job_that_started_from_other_weights_before_is_not_trained_with_others(jobs: Jobs):
    pretrained = run_alone(*jobs((*PRETRAIN, "trainer.max_epochs=1"), "seed=1"))
    configs = jobs((*FINETUNE, f"init={pretrained.path}"), "seed=1", "seed=2")
    runs = opened(configs)
    runs[1].update(parent={"path": str(pretrained.path / "model"), "weights_sha256": "0" * 64})
    with screen.quiet(), pytest.raises(CannotBatch, match=r"has changed since .* was initialized from it"):
        StageRunner().run_group(configs, runs)
    assert [run.record["transfer"] for run in runs] == [None, None]


def test_events_hold_the_same_curves_and_hparams_as_alone(jobs: Jobs):
    config, other = jobs((*FINETUNE, "trainer.max_epochs=1"), "seed=0", "seed=1")
    tags = []
    for run in (run_alone(config), run_in_group([config, other])[0]):
        events = EventAccumulator(str(run.path)).Reload()
        tags.append((events.Tags()["scalars"], events.Tags()["tensors"], sorted(events.PluginAssets("hparams"))))
        hparams = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        tags[-1] += (hparams,)
        assert b"weight_decay" in hparams
    assert tags[0] == tags[1]


def test_a_saved_backbone_can_be_finetuned_and_has_no_checkpoints(jobs: Jobs):
    shared = (*PRETRAIN, "trainer.max_epochs=1", "objective=classification")
    start = run_in_group(jobs(shared, "seed=0", "seed=1"))[1]
    assert (start.path / "model" / "pretrained_model.pth").is_file()
    assert not (start.path / "checkpoints").exists()
    assert "vmap group of 2 jobs" in (start.path / "train.log").read_text()
    (config,) = jobs((*FINETUNE, "trainer.max_epochs=1"), f"init={start.path}")
    assert run_alone(config).record["status"] == "done"


@pytest.mark.parametrize(
    "extra", [(), ("trainer.log_every_n_steps=5",)], ids=["seen at a validation", "seen at a step"]
)
def test_a_job_that_diverges_leaves_the_others_alone(extra, jobs: Jobs):
    shared = (*FINETUNE, "optimizer=sgd", "trainer.check_val_every_n_epoch=1", "trainer.log_every_n_steps=50", *extra)
    configs = jobs(shared, "optimizer.lr=0.1", "optimizer.lr=1e30", "optimizer.lr=0.2")
    runs = run_in_group(configs)
    with pytest.raises(UserError, match="diverged") as reason:
        run_alone(configs[1])
    assert [run.record["status"] for run in runs] == ["done", "failed", "done"]
    assert runs[1].record["error"] == f"UserError: {reason.value}"
    assert not (runs[1].path / "model").exists()
    assert "Traceback" in (runs[1].path / "train.log").read_text()
    assert_same(run_alone(configs[0]), runs[0])
    assert_same(run_alone(configs[2]), runs[2])


def test_a_group_stops_when_all_its_jobs_have_failed(jobs: Jobs):
    runs = run_in_group(
        jobs((*FINETUNE, "trainer.max_epochs=50", "optimizer=sgd", "optimizer.lr=1e30"), "seed=0", "seed=1")
    )
    assert [run.record["status"] for run in runs] == ["failed", "failed"]
    assert runs[0].record["cost"]["steps"] == 20


def test_the_data_is_read_once(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    count, load = [], Digits.load
    monkeypatch.setattr(Digits, "load", lambda self, target: count.append(1) or load(self, target))
    run_in_group(jobs((*FINETUNE, "trainer.max_epochs=1", "loss=cross_entropy"), "seed=0", "loss.label_smoothing=0.1"))
    assert len(count) == 1


def test_a_signal_interrupts_every_run_of_all_groups(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    step = VmapLoop.train_step

    def killed(self: VmapLoop, batches):
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, batches)

    monkeypatch.setattr(VmapLoop, "train_step", killed)
    configs = jobs((*FINETUNE, "loss=cross_entropy"), "seed=0", "seed=1", "loss.label_smoothing=0.1")
    runs = opened(configs)
    with pytest.raises(KeyboardInterrupt):
        StageRunner().run_group(configs, runs)
    assert [run.record["status"] for run in runs] == ["interrupted"] * 3
    assert [run.record["cost"]["steps"] for run in runs] == [4, 4, 0]


def test_what_stops_a_group_leaves_its_jobs_to_be_run_alone(jobs: Jobs, monkeypatch: pytest.MonkeyPatch):
    step = VmapLoop.train_step

    def broken(self: VmapLoop, batches):
        if self.jobs[0].config.loss.label_smoothing == 0:
            raise RuntimeError("out of memory")
        return step(self, batches)

    monkeypatch.setattr(VmapLoop, "train_step", broken)
    shared = (*FINETUNE, "trainer.max_epochs=1", "loss=cross_entropy")
    configs = jobs(shared, "seed=0", "seed=1", "loss.label_smoothing=0.1")
    with pytest.raises(GroupFailed, match="RuntimeError: out of memory"):
        run_in_group(configs)
    records = [json.loads(path.read_text()) for path in sorted(Path(configs[0].output_dir).rglob("run.json"))]
    assert sorted(record["status"] for record in records) == ["done", "interrupted", "interrupted"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("visualization=[views]", "visualization needs one run at a time"),
        ("logger=csv", "logger=csv"),
        ("trainer.gradient_clip_val=1.0", "trainer.gradient_clip_val=1.0"),
        ("trainer.precision=bf16-mixed", "trainer.precision=bf16-mixed"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches=2"),
        ("debug=overfit", "trainer.overfit_batches=1"),
        ("debug=limit", "trainer.limit_train_batches=10"),
        ("debug=profile", "trainer.profiler=simple"),
        ("debug=deterministic", "trainer.deterministic=True"),
        ("+trainer.max_time=00:01:00", "trainer.max_time=00:01:00"),
        ("trainer.val_check_interval=0.5", "trainer.val_check_interval=0.5"),
        ("trainer.val_check_interval=21", "more than the 20 steps of an epoch"),
        ("optimizer._target_=torch.optim.Muon", "optimizer=muon"),
        ("data/augment=mixup", "data/augment=mixup mixes targets"),
        ("backbone=resnet", "backbone=resnet updates a buffer"),
        ("backbone.dropout=0.1", "backbone=mlp draws random numbers"),
        ("stage=pretrain ~init ~strategy", "objective=denoise draws random numbers"),
        ("backbone.hidden=[4096,4096]", "too large for a speedup"),
        ("strategy=lp_ft", "strategy=lp_ft needs one run at a time"),
        ("strategy=l2_sp", "strategy=l2_sp needs one run at a time"),
        ("init=nowhere", "init=nowhere: there is no such folder"),
    ],
)
def test_incompatible_jobs_of_a_vmap_group_are_reported_before_anything_is_written(words: str, reason: str, jobs: Jobs):
    shared = PRETRAIN if "pretrain" in words else (*FINETUNE, *words.split())
    configs = jobs(shared, "seed=0", "seed=1")
    runs = opened(configs)
    before = [sorted((path.name, path.stat().st_mtime_ns) for path in run.path.iterdir()) for run in runs]
    with screen.quiet(), pytest.raises(CannotBatch) as refusal:
        StageRunner().run_group(configs, runs)
    assert reason in str(refusal.value)
    assert before == [sorted((path.name, path.stat().st_mtime_ns) for path in run.path.iterdir()) for run in runs]
