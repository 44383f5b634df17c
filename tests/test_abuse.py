"""A subset of scripts/abuse.py: invalid command lines are refused with a short message."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from scripts.abuse_lines.by_hand import by_hand
from scripts.abuse_lines.lines import Line, systematic
from scripts.abuse_lines.runner import call, reader

NEW = ("stage=finetune", "init=scratch")
BASES = ("finetune", "transfer", "objective=byol", "strategy=lora")
EVERY, EVERY_BY_HAND = 50, 30
SAMPLES = (
    ((*NEW, "loss=cross_entropy", "loss.label_smoothing=nan"), "loss.label_smoothing=nan"),
    ((*NEW, "loss=focal", "loss.gamma=-1"), "loss.gamma=-1"),
    ((*NEW, "trainer.limit_train_batches=inf"), "trainer.limit_train_batches=inf"),
    ((*NEW, "trainer.precision=64"), "trainer.precision=64"),
    ((*NEW, "trainer.accelerator=tpu"), "trainer.accelerator=tpu"),
    ((*NEW, "+trainer.num_nodes=2"), "trainer.num_nodes=2"),
    ((*NEW, "+trainer.fast_dev_run=true"), "trainer.fast_dev_run"),
    (("stage=evaluate", "run=null"), "run=null"),
    ((*NEW, "resume=''"), "resume="),
    ((*NEW, "visualization=abc"), "visualization=abc"),
    ((*NEW, "+x=1"), "x: no such setting"),
    ((*NEW, "+data.pack=128"), "data.pack"),
    ((*NEW, "+scheduler.total=5"), "scheduler.total"),
    ((*NEW, "~scheduler"), "scheduler is missing"),
    ((*NEW, "backbone.hidden=[100000000000,100000000000]"), "not enough memory"),
    ((*NEW, "optimizer=sgd", "optimizer.nesterov=true"), "Nesterov"),
    (("stage=transfer", "pretrain.objective.drop=7"), "pretrain.objective.drop=7"),
    (("stage=transfer", "+arm.scratch.optimizer.lr=-1"), "arm.scratch.optimizer.lr=-1"),
    (("stage=transfer", "+arm.scratch.foo=1"), "arm.scratch.foo"),
    (("stage=transfer", "arm.scratch.init=nowhere"), "arm.scratch.init=nowhere"),
    (("stage=transfer", "arm.scratch.init=/"), "arm.scratch.init=/"),
    (("stage=transfer", "+arm.scratch.preprocessor=nowhere"), "arm.scratch.preprocessor=nowhere"),
    (("stage=transfer", "transfer.start=/"), "transfer.start=/"),
    (("stage=transfer", "transfer.start=hf:/"), "transfer.start=hf:/"),
    ((*NEW, "resume=-1"), "resume=-1: must be a path"),
    ((*NEW, "trainer.precision=16-true"), "trainer.precision=16-true"),
    ((*NEW, "average=swa", "average.every=5000"), "after the last of the run's 400 steps"),
    ((*NEW, "backbone=vit", "backbone.depth=100000000"), "backbone.depth=100000000"),
    ((*NEW, "experiment=speech", "backbone.stem._partial_=0"), "backbone.stem._partial_=0"),
    ((*NEW, "experiment=speech", "~data.frames._partial_"), "data.frames._partial_"),
    (("stage=transfer", "experiment=speech", "backbone.heads=3"), "backbone.heads=3"),
    (("stage=transfer", "+arm.scratch.loss.label_smoothing=5"), "arm.scratch.loss: no loss is chosen"),
    (("-m", *NEW, "sweep=optuna", "loss=cross_entropy,focal", "sweep.trials=0"), "sweep.trials=0"),
    (("-m", *NEW, "optimizer.lr=0.1,nan", "sweep.preflight=false"), "optimizer.lr=nan"),
    (("-m", *NEW, "loss=focal", "loss.gamma=1,-1", "sweep.preflight=false"), "loss.gamma=-1"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the lines are typed and their data lie."""
    folder = tmp_path_factory.mktemp("abuse")
    (folder / "here").mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder / "here")
        yield folder
    GlobalHydra.instance().clear()
    reader.cache_clear()


@pytest.fixture(scope="module")
def lines(folder: Path) -> list[Line]:
    return [*systematic(folder, BASES), *by_hand(folder)]


def test_a_part_of_the_campaign_has_no_defect(lines: list[Line], folder: Path):
    quick, complete = ([line for line in lines if line.wholly is flag] for flag in (False, True))
    chosen = quick[::EVERY] + complete[::EVERY_BY_HAND]
    for line in chosen:
        seen = call(line.words, folder / "outputs", wholly=line.wholly)
        assert seen.kind != "defect", (line.words, seen.message)
        assert seen.kind == "refused" or line.reason(), f"accepted: {line.words}"
        assert seen.kind == "accepted" or not line.right, (line.words, seen.message)


@pytest.mark.parametrize(
    ("words", "named"), SAMPLES, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_ambiguous_overrides_are_refused_by_name(words: tuple[str, ...], named: str, folder: Path):
    seen = call(words, folder / "outputs", wholly=words[0] == "-m")
    assert seen.kind == "refused", seen
    assert named in seen.message


def test_a_defect_is_seen(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("warmstart.config.pipeline.check", lambda config: 1 / 0)
    assert call(NEW, folder / "outputs").kind == "defect"
