"""Weight averages: their values, which weights are saved, and frozen norm statistics."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from warmstart.average.ema import EMA
from warmstart.average.swa import SWA
from warmstart.core.errors import CannotBatch, UserError
from warmstart.vmap.eligibility import check_config

SHORT = ("stage=finetune", "init=scratch", "visualization=[]", "scheduler=constant", "trainer.max_epochs=2")
SMALL = ("backbone=resnet", "backbone.widths=[4]", "backbone.blocks=[1]", "data.labels_per_class=20")


def test_ema_moves_towards_the_weights_and_soon_forgets_the_first():
    averaged = [torch.zeros(2)]
    EMA(0.5).update(averaged, [torch.ones(2)], torch.tensor(1))
    assert averaged[0][0] == pytest.approx(1 - 2 / 11)
    EMA(0.5).update(averaged, [torch.zeros(2)], torch.tensor(1000))
    assert averaged[0][0] == pytest.approx((1 - 2 / 11) / 2)


def test_swa_is_the_mean_of_the_last_part_of_the_steps():
    swa = SWA(start=0.5, every=2)
    assert [step for step in range(1, 11) if swa.includes(step, 10.0)] == [7, 9]
    averaged = [torch.tensor([3.0])]
    swa.update(averaged, [torch.tensor([6.0])], torch.tensor(2))
    assert averaged[0].item() == pytest.approx(4.0)
    with pytest.raises(UserError, match="max_steps"):
        swa.includes(1, float("inf"))


def test_the_better_of_the_two_is_saved_and_evaluated(cli):
    noisy = cli(*SHORT, "average=ema", "optimizer.lr=0.05")
    assert noisy.status == 0, noisy.err
    run, record = noisy.run("finetune"), noisy.record("finetune")
    metrics, raw = record["metrics"], record["average"]["raw"]
    assert record["average"]["saved"] == "average"
    assert record["average"]["steps"] == 40
    assert metrics["val/accuracy"] == metrics["val/average_accuracy"] > raw["val/accuracy"]
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
    saved = load_file(run / "model/model.safetensors")
    for name, value in saved.items():
        assert torch.equal(value, best["average"]["weights"][f"backbone.{name}"])
    assert cli("stage=evaluate", "run=latest").record("evaluate")["metrics"] == {
        name: value for name, value in metrics.items() if name.startswith("test")
    }


def test_an_average_leaves_the_raw_weights_as_they_would_be(cli):
    plain, beside = (cli(*SHORT, *SMALL, f"average={name}").run("finetune") for name in ("none", "swa"))
    one, two = (torch.load(path / "checkpoints/last.ckpt", weights_only=True) for path in (plain, beside))
    assert all(torch.equal(value, two["state_dict"][name]) for name, value in one["state_dict"].items())
    assert "average" not in one
    norm = "backbone.stem.1.running_mean"
    assert not torch.equal(two["average"]["weights"][norm], two["state_dict"][norm])


def test_frozen_norms_keep_their_statistics_in_the_average(cli):
    run = cli(*SHORT, *SMALL, "average=ema", "strategy=linear_probe").run("finetune")
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    averaged = state["average"]["weights"]
    for name, value in state["state_dict"].items():
        assert torch.equal(averaged[name], value) == name.startswith("backbone."), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("average=swa", "average.start=1"), "average.start=1: must be a fraction of the steps"),
        (("average=ema", "average.decay=1.0"), "average.decay=1.0: must be a number above 0 and below 1"),
        (("average=swa", "average.every=50"), "after the last of the run's 40 steps"),
        (("average=ema", "average.start=0.5"), "no such key"),
    ],
)
def test_an_average_without_steps_is_refused(words: tuple[str, ...], message: str, cli):
    outcome = cli(*SHORT, *words)
    assert outcome.status == 2
    assert message in outcome.error


def test_runs_with_averages_are_not_trained_together(composed):
    with pytest.raises(CannotBatch, match="average=ema needs one run at a time"):
        check_config(composed(*SHORT, "average=ema"))
