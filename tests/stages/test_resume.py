"""A run that is interrupted at any point and resumed ends with the weights of an uninterrupted run."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.records import change_run

from warmstart.run.folder import RunFolder
from warmstart.training.callbacks.curves import Curves
from warmstart.training.modules import FinetuneModule

STEPWISE = ("trainer.check_val_every_n_epoch=null", "trainer.val_check_interval=7", "visualization=[]")
CHANGES = ("data/augment=[crop,blur,solarize,color_jitter,random_erasing]",)
MIXES = ("data/augment=[mixup,cutmix]",)


# Saved every 7 batches, and so in the middle of an optimizer step.
ACCUMULATED = ("trainer.accumulate_grad_batches=3", "trainer.gradient_clip_val=1.0", "trainer.log_every_n_steps=1")

# Saved after the running means of the strategy started, with a share of the epoch's pseudo-labels.
UNLABELLED = ("strategy=fixmatch", "strategy.confidence=0.2", "data.unlabelled=true", "data/augment@data.strong=shift")

# Saved in the second of three rounds, in the middle of an optimizer step.
ROUNDS = ("strategy=noisy_student", "strategy.confidence=0.2", "data.unlabelled=true", "trainer.max_epochs=12")

SMALL = ("backbone=resnet", "backbone.widths=[4]", "backbone.blocks=[1]")


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original = Curves.on_train_batch_end

    def interrupting(self, trainer, *args):
        original(self, trainer, *args)
        if trainer.global_step == step:
            raise KeyboardInterrupt

    monkeypatch.setattr(Curves, "on_train_batch_end", interrupting)


@pytest.mark.parametrize(
    ("words", "stop"),
    [
        (("stage=pretrain", "trainer.max_epochs=3", "backbone.dropout=0.1", "data/augment=shift"), 33),
        (("stage=pretrain", "trainer.max_epochs=3", "objective=contrastive", "data/augment=shift"), 20),
        (("stage=pretrain", "trainer.max_epochs=3", "objective=byol", "data/augment=shift"), 20),
        (("stage=pretrain", "trainer.max_epochs=2", "objective=contrastive", *CHANGES), 20),
        (("stage=finetune", "init=scratch", "trainer.max_epochs=3", "data/augment=shift"), 45),
        (("stage=finetune", "init=scratch", "trainer.max_epochs=3", *MIXES), 45),
        (("stage=finetune", "init=scratch", "trainer.max_epochs=2", "strategy=lp_ft", "scheduler=cosine"), 8),
        (("stage=finetune", "init=scratch", "trainer.max_epochs=2", "strategy=lp_ft", "scheduler=cosine"), 34),
        (("stage=finetune", "init=scratch", "trainer.max_epochs=1", "strategy=mixout"), 10),
        (("stage=finetune", "init=scratch", "trainer.max_epochs=3", "average=ema"), 45),
        (("stage=finetune", "init=scratch", "trainer.max_steps=21", *SMALL, "average=swa", "average.start=0.2"), 17),
        (("stage=finetune", "init=scratch", "trainer.max_epochs=1", "strategy=lora", "strategy.dropout=0.1"), 10),
        (("stage=finetune", "init=scratch", "trainer.max_epochs=1", "strategy=lora", "strategy.dora=true"), 10),
        (("stage=pretrain", "trainer.max_epochs=2", "average=ema"), 33),
        (
            (
                "stage=finetune",
                "init=scratch",
                "trainer.max_epochs=3",
                "data.labels_per_class=25",
                "data.batch_size=32",
                *ACCUMULATED,
            ),
            8,
        ),
        (("stage=pretrain", "trainer.max_epochs=1", "objective=byol", "data/augment=shift", *ACCUMULATED), 5),
        (
            (
                "stage=finetune",
                "init=scratch",
                "trainer.max_steps=60",
                "trainer.max_epochs=-1",
                "data.labels_per_class=20",
            ),
            31,
        ),
        (("stage=finetune", "init=scratch", "trainer.max_epochs=12", "data.labels_per_class=20", *UNLABELLED), 31),
        (
            ("stage=finetune", "init=scratch", "data.labels_per_class=25", "data.batch_size=32", *ROUNDS, *ACCUMULATED),
            17,
        ),
    ],
    ids=[
        "denoise",
        "contrastive",
        "byol",
        "changes of images",
        "finetune",
        "mixed",
        "probing",
        "after probing",
        "mixout",
        "ema",
        "swa",
        "lora",
        "dora",
        "ema pretrain",
        "accumulated",
        "accumulated byol",
        "few labels",
        "unlabelled",
        "rounds",
    ],
)
def test_stopped_in_the_middle_of_an_epoch(words, stop: int, cli, monkeypatch: pytest.MonkeyPatch):
    stage = words[0].removeprefix("stage=")
    undisturbed = cli(*words, *STEPWISE)
    assert undisturbed.status == 0, undisturbed.err
    first = undisturbed.run(stage)

    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        stopped = cli(*words, *STEPWISE)
    assert stopped.status == 130
    run = next(path for path in stopped.runs(stage) if path != first)
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "interrupted"
    assert not (run / "model").exists()

    resumed = cli(f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert len(resumed.runs(stage)) == 2
    one, two = (json.loads((path / "run.json").read_text()) for path in (first, run))
    assert two["status"] == "done"
    assert two["error"] is None
    assert two["weights_sha256"] == one["weights_sha256"]
    assert_same_record(run, first)
    averages = [torch.load(path / "checkpoints/last.ckpt", weights_only=True).get("average") for path in (first, run)]
    assert (averages[0] is not None) == any(word.startswith("average=") for word in words)
    if averages[0] is not None:
        weights, same = (average.pop("weights") for average in averages)
        assert averages[0] == averages[1]
        assert all(torch.equal(value, same[name]) for name, value in weights.items())


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows; of what is measured in seconds, the steps only."""
    seen = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    found = {tag: [(event.step, event.value) for event in seen.Scalars(tag)] for tag in seen.Tags()["scalars"]}
    return {tag: [(s, tag == "tokens_per_second" or v) for s, v in values] for tag, values in found.items()}


def assert_same_record(run: Path, first: Path) -> None:
    """The resumed run's record is the undisturbed one's."""
    one, two = (json.loads((path / "run.json").read_text()) for path in (first, run))
    for name in ("status", "weights_sha256", "metrics", "average", "snapshots"):
        assert two.get(name) == one.get(name), name
    assert (two["cost"]["steps"], two["cost"]["examples"]) == (one["cost"]["steps"], one["cost"]["examples"])
    assert (run / "metrics.csv").read_text() == (first / "metrics.csv").read_text()
    assert scalars(run) == scalars(first)


@pytest.mark.parametrize(
    "limit",
    [
        ("trainer.max_epochs=2",),
        ("trainer.max_epochs=-1", "trainer.max_steps=6", "trainer.val_check_interval=2"),
        ("trainer.max_epochs=9", "patience=1", "optimizer.lr=0.1", "trainer.val_check_interval=2"),
    ],
    ids=["epochs", "steps", "patience"],
)
def test_a_signal_while_the_test_split_is_measured(limit: tuple[str, ...], cli, monkeypatch: pytest.MonkeyPatch):
    words = ("stage=finetune", "init=scratch", "data.labels_per_class=20", "visualization=[]", *limit)
    first = cli(*words).run("finetune")
    test_step = FinetuneModule.test_step

    def signalled(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        return test_step(*args)

    monkeypatch.setattr(FinetuneModule, "test_step", signalled)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        stopped = cli(*words)
        assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.status == 75
    run = next(path for path in stopped.runs("finetune") if path != first)
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    monkeypatch.undo()
    resumed = cli("stage=finetune", f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert_same_record(run, first)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(cli, monkeypatch: pytest.MonkeyPatch):
    words = ("stage=pretrain", "trainer.max_epochs=1", "snapshots=3", *STEPWISE)
    first = cli(*words).run("pretrain")
    with monkeypatch.context() as patch:
        stop_at(patch, 16)
        run = next(path for path in cli(*words).runs("pretrain") if path != first)
    for name in ("last", "best"):
        path = run / "checkpoints" / f"{name}.ckpt"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    resumed = cli("stage=pretrain", f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert resumed.err.count(" is damaged: its SHA-256 is not the recorded one; resuming from previous.ckpt") == 2
    assert_same_record(run, first)


def test_resume_is_refused_where_there_is_nothing_to_go_on_with(cli, tmp_path: Path):
    done = cli("stage=pretrain", "trainer.max_epochs=1", *STEPWISE).run("pretrain")
    change_run(done, status="interrupted")
    for name in ("last", "previous", "best"):
        (done / f"checkpoints/{name}.ckpt").write_bytes((done / "checkpoints/last.ckpt").read_bytes()[:1000])
    damaged = cli(f"resume={done}")
    assert damaged.status == 2
    assert (
        "checkpoints: damaged: last.ckpt, previous.ckpt, best.ckpt. Remove this folder and start the run again"
        in damaged.error
    )
    change_run(done, status="done")
    for words, message in (
        (("stage=pretrain", f"resume={done}"), "the run is already done"),
        (("stage=finetune", f"resume={done}"), "the run is already done"),
        (("resume=",), "resume=: must be a path"),
        (("stage=pretrain", f"resume={tmp_path / 'nowhere'}"), "no such folder"),
    ):
        outcome = cli(*words)
        assert outcome.status == 2
        assert message in outcome.error


@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_a_run_goes_on_with_its_experiment_named_and_none_of_its_data(
    cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str
):
    table = tmp_path / "table.csv"
    table.write_text("a,b,kind\n" + "".join(f"{n},{n % 7},{'xy'[n % 2]}\n" for n in range(40)))
    words = (f"stage={stage}", "experiment=table", f"data.root={table}", "data.target=kind", "trainer.max_epochs=20")
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        assert cli(*words, *(("init=scratch",) if stage == "finetune" else ())).status == 130
    (run,) = (tmp_path / "outputs" / stage).glob("*/*")
    resumed = cli(f"resume={run}")
    assert resumed.status == 0, resumed.err
    assert json.loads((run / "run.json").read_text())["status"] == "done"


@pytest.mark.parametrize("changed", ["data", "parent", "config"])
def test_a_killed_run_is_not_continued_on_other_data_weights_or_settings(
    cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: str
):
    table = tmp_path / "table.csv"
    rows = "a,b,kind\n" + "".join(f"{n},{n % 7},{'xy'[n % 2]}\n" for n in range(40))
    table.write_text(rows)
    words = ("experiment=table", f"data.root={table}", "data.target=kind", "trainer.max_epochs=20")
    bases = [cli("stage=pretrain", *words, f"seed={seed}").run("pretrain") / "model" for seed in (0, 1)]
    base = Path(shutil.copytree(bases[0], tmp_path / "base"))
    with monkeypatch.context() as patch:
        stop_at(patch, 12)
        patch.setattr(RunFolder, "_close", lambda run, error: None)  # as after SIGKILL, the record stays as it was
        assert cli("stage=finetune", *words, f"init={base}").status == 130
    (run,) = (tmp_path / "outputs/finetune").glob("*/*")
    if changed == "data":
        table.write_text(rows.replace(",x\n", ",z\n"))
    elif changed == "config":
        (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("batch_size: ", "batch_size: 1"))
    else:
        shutil.rmtree(base)
        shutil.copytree(bases[1], base)
    refused = cli(f"resume={run}")
    assert refused.status == 2, refused.err
    expected = {
        "data": f"the data of {run} has changed",
        "parent": f"{base} has changed since {run} was initialized from it",
        "config": f"{run / 'config.yaml'} is damaged or was changed",
    }
    assert expected[changed] in refused.error
