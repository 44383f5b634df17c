"""Strategies as arms of a transfer, from its pretraining or from existing weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from warmstart import main
from warmstart.transfer.arms import with_start
from warmstart.transfer.strategies import strategy_names, with_strategies

SMALL = (
    "stage=transfer",
    "transfer.labels=[2]",
    "transfer.seeds=1",
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "pretrain.trainer.max_epochs=1",
)


def expanded(config: DictConfig) -> tuple[DictConfig, list[str]]:
    """The config with its strategies as arms, and the names of all strategies."""
    with initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)):
        return with_strategies(config), strategy_names()


def test_all_strategies_are_compared_with_full_finetuning(composed, capfd: pytest.CaptureFixture):
    config, known = expanded(composed(*SMALL, "transfer.arms=strategies"))
    fitting = [name for name in known if name in config.transfer.arms]
    arms = ["full", "scratch", *(name for name in fitting if name != "full")]
    assert "excluded strategy norm_only: strategy=norm_only: backbone MLP has no norm layers" in capfd.readouterr().err
    assert "norm_only" not in fitting
    assert {"bitfit", "linear_probe", "lp_ft", "mixout"} < set(fitting)
    assert not {"self_training", "fixmatch", "noisy_student"} & set(fitting)  # these have more data than the others
    assert config.transfer.arms == config.transfer.budgets.steps == arms
    assert config.transfer.budgets.converged == []
    for name in fitting:
        assert config.arm[name].init == "pretrained"
        assert config.arm[name].strategy._target_.startswith(f"warmstart.strategy.{name}.")
        assert config.arm[name].against == ("scratch" if name == "full" else "full")


def test_strategies_by_name_with_other_arms(composed):
    words = ("transfer.arms=[scratch,linear,lp_ft,full]", "+arm.lp_ft.optimizer.lr=0.1", "strategy.backbone_scale=0.5")
    found, _ = expanded(composed(*SMALL, *words))
    assert found.transfer.arms == ["scratch", "linear", "lp_ft", "full"]
    assert found.arm.lp_ft == {
        "init": "pretrained",
        "against": "full",
        "strategy": {"_target_": "warmstart.strategy.lp_ft.LPFT", "probe": 0.5, "backbone_scale": 1.0, "rate": 1.0},
        "optimizer": {"lr": 0.1},
    }
    assert found.arm.full.strategy.backbone_scale == 0.5
    alone, _ = expanded(composed(*SMALL, "transfer.arms=[lp_ft,scratch]"))
    assert alone.arm.lp_ft.against == "scratch"
    kept, _ = expanded(composed(*SMALL, "transfer.arms=[lp_ft,scratch]", "+arm.lp_ft={init: scratch}"))
    assert kept.arm.lp_ft == {"init": "scratch"}
    both, _ = expanded(composed(*SMALL, "transfer.arms=[scratch,full]", "transfer.budgets.converged=[scratch,full]"))
    assert both.transfer.budgets.converged == ["scratch", "full"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("transfer.arms=[scratch,norm_only]",), "transfer.arms: strategy=norm_only: backbone MLP has no norm layers"),
        (("transfer.arms=[scratch,fulll]",), "transfer.arms: unknown arm fulll"),
        (("transfer.arms=full",), "transfer.arms=full: must be strategies, or a list"),
        (("transfer.start=nowhere",), "transfer.start=nowhere: no such folder"),
        (
            ("transfer.arms=[scratch,linear]", "transfer.pretrain_seeds=2", "transfer.seeds=2"),
            "no arm uses a pretraining",
        ),
        (
            ("transfer.arms=[scratch,full,self_training]", "transfer.labels=[2,all]"),
            "transfer.labels=all labels all 1,257 training rows, so arm self_training has no unlabelled rows",
        ),
        (("transfer.arms=[scratch,full]", "data.unlabelled=true"), "no arm in transfer.arms uses unlabelled rows"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(cli, words: tuple[str, ...], reason: str):
    outcome = cli(*SMALL, *words)
    assert outcome.status == 2
    assert reason in outcome.error
    assert not outcome.folder.exists()


def test_from_weights_that_are_there_nothing_is_pretrained(cli):
    base = cli("stage=pretrain", "trainer.max_epochs=1").run("pretrain")
    outcome = cli(*SMALL, "transfer.arms=[scratch,full,shuffled,self_training]", f"transfer.start={base}")
    assert outcome.status == 0, outcome.err
    folder = outcome.run("transfer")
    assert sorted(path.name for path in (folder / "runs").iterdir()) == [
        "full-2-seed0",
        "scratch-2-seed0",
        "self_training-2-seed0",
        "shuffled-2-seed0",
    ]
    weights = json.loads((base / "run.json").read_text())["weights_sha256"]
    config = OmegaConf.load(folder / "config.yaml")
    assert config.arm.full.strategy._target_ == "warmstart.strategy.full.Full"
    assert config.arm.full.init == str(base)
    parent = json.loads((folder / "runs" / "full-2-seed0" / "run.json").read_text())["parent"]
    assert Path(parent["path"]).parent == base
    report = json.loads((folder / "report.json").read_text())
    assert (report["headline"]["arm"], report["headline"]["against"]) == ("full", "scratch")
    assert {row["arm"] for row in report["costs"]} == {"scratch", "full", "shuffled", "self_training"}
    assert report["pretraining"] == []
    assert [one["weights_sha256"] for one in report["checks"]["parents"]] == [weights]
    text = (folder / "report.md").read_text()
    assert "no own pretraining" in text
    assert "recover the cost" not in text
    assert cli("stage=report", f"runs={folder}").status == 0


def test_from_a_hugging_face_model_scratch_is_its_architecture(composed):
    words = ("experiment=sst2", "+backbone@arm.own.backbone=tiny", "+arm.own.init=scratch")
    found = with_start(composed("stage=transfer", "transfer.start=hf:DIR", *words)).arm
    assert found.pretrained.init == "hf:DIR"
    assert found.shuffled.init == "shuffled:hf:DIR"
    assert found.scratch == {"init": "random:hf:DIR", "preprocessor": None}
    assert found.own.init == "scratch"
    assert found.linear == {"baseline": {"_target_": "warmstart.baseline.linear.Linear"}}
    assert found.knn.init == "hf:DIR"


def test_unlabelled_rows_are_for_the_arms_that_use_them_and_count_as_cost(cli):
    arms = ("transfer.arms=[pretrained,scratch,self_training]", "transfer.budgets.converged=[]")
    outcome = cli(*SMALL, *arms, "+arm.self_training.strategy.warmup=0.5")
    assert outcome.status == 0, outcome.err
    runs = {
        path.name: json.loads((path / "run.json").read_text()) for path in outcome.run("transfer").glob("runs/*-2-*")
    }
    assert {name: run["data"]["rows"].get("unlabelled") for name, run in runs.items()} == {
        "pretrained-2-seed0": None,
        "scratch-2-seed0": None,
        "self_training-2-seed0": 1237,
    }
    assert runs["scratch-2-seed0"]["cost"]["examples"] == 2 * 20
    assert runs["self_training-2-seed0"]["cost"]["examples"] == 2 * 20 + 64  # not in the warm-up
