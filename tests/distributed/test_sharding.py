"""Sharded data parallel training (FSDP2) in two processes equals data parallel training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from tests.distributed.several import in_processes
from tests.distributed.test_objectives import SIZE, Parts
from tests.distributed.test_strategies import Repeated
from tests.strategy.test_strategies import make
from tests.training.test_accumulation import Steps, example, module_of

from warmstart.core.errors import UserError
from warmstart.distributed.processes import world
from warmstart.training.assemble import assemble
from warmstart.training.checkpoint import AtomicCheckpointIO
from warmstart.training.data_parallel import DataParallel
from warmstart.training.sharding import ShardedDataParallel, check_sharding, is_sharded, unshard

OBJECTIVES = ("causal", "masked_tokens")
STRATEGIES = ("lp_ft", "lora")
EPOCHS = 7  # of three steps
HALF = 4


class Shares(Steps):
    """The loss of each step, and the share of the parameters that this process stores."""

    share = 1.0

    def note(self, module: pl.LightningModule, loss: Any) -> None:
        self.weights.append(torch.empty(0))
        self.losses.append(float(loss))
        if is_sharded(module):
            values = list(module.parameters())
            self.share = sum(value.to_local().numel() for value in values) / sum(value.numel() for value in values)


def trainer_of(strategy: type | None, steps: pl.Callback, **settings: Any) -> pl.Trainer:
    if world() > 1:
        settings |= {"devices": world(), "strategy": strategy(), "use_distributed_sampler": False}
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[steps],
        **settings,
    )


def train(
    name: str,
    strategy: type | None,
    epochs: int = EPOCHS,
    resume: Path | None = None,
    save: Path | None = None,
    **more: Any,
) -> tuple[list[float], dict[str, torch.Tensor], float]:
    """Losses, final weights, and the share of the parameters of this process."""
    backbone, objective, pick, rows = example(name)
    module, steps = module_of(backbone, objective), Shares()
    module.optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.002)
    module.optimizer.func, module.optimizer.keywords = torch.optim.AdamW, {"lr": 0.002, "weight_decay": 0.1}
    settings = {"max_epochs": epochs, "gradient_clip_val": 0.5, **more}
    trainer = trainer_of(strategy, steps, **settings)
    trainer.fit(module, Parts(pick, rows, SIZE), ckpt_path=resume, weights_only=True)
    if save is not None:
        trainer.save_checkpoint(save)
    unshard(trainer)
    assert not is_sharded(module)
    return steps.losses, module.state_dict(), steps.share


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-4) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.allclose(ours[name].float(), value.float(), atol=tolerance), name


def finetune(name: str, strategy: type) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and final weights of steps in the phases of a strategy."""
    module, batch = make(name, "tiny")
    steps = Shares()
    trainer = trainer_of(strategy, steps, max_epochs=1)
    trainer.fit(module, Repeated(batch))
    unshard(trainer)
    return steps.losses, module.state_dict()


BOTH = (ShardedDataParallel, DataParallel)
CASES = {
    "causal": lambda one: train("causal", one),
    "masked_tokens": lambda one: train("masked_tokens", one, 2),
    "accumulated": lambda one: train("causal", one, 2, accumulate_grad_batches=2),
    "bf16": lambda one: train("causal", one, 2, precision="bf16-mixed"),
    **{name: lambda one, name=name: finetune(name, one) for name in STRATEGIES},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two processes in the middle of a training."""
    return tmp_path_factory.mktemp("saved") / "last.ckpt"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, saved: Path) -> list[dict[str, Any]]:
    """The results of sharded and of data parallel training in each of two processes, and of a resumed training."""

    def all_cases(number: int) -> dict[str, Any]:
        found: dict[str, Any] = {name: [case(one) for one in BOTH] for name, case in CASES.items()}
        train("causal", ShardedDataParallel, HALF, save=saved)
        return {**found, "resumed": train("causal", ShardedDataParallel, resume=saved)}

    return in_processes(tmp_path_factory.mktemp("two"), all_cases)


@pytest.mark.parametrize("name", [*OBJECTIVES, "accumulated"])
def test_sharded_training_equals_data_parallel_training(name: str, two: list[dict[str, Any]]):
    for (losses, weights, share), (expected, theirs, _) in (found[name] for found in two):
        assert len(losses) == {"causal": 3 * EPOCHS, "masked_tokens": 6, "accumulated": 4}[name]
        assert losses == pytest.approx(expected, abs=1e-4)
        close(weights, theirs)
        assert 0.3 < share < 0.7


def test_bf16(two: list[dict[str, Any]]):
    for (losses, weights, _), (expected, _, _) in (found["bf16"] for found in two):
        assert losses[0] == pytest.approx(expected[0], rel=1e-2)
        assert losses[-1] < losses[0]
        assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("name", STRATEGIES)
def test_parameters_frozen_and_trained_in_turn(name: str, two: list[dict[str, Any]]):
    for ours, theirs in (found[name] for found in two):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-4)
        close(ours[1], theirs[1])


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_checkpoint_of_two_processes_is_resumed_by_another_number(
    count: int, two: list[dict[str, Any]], saved: Path, tmp_path: Path
):
    expected = two[0]["causal"][0][1]
    state = torch.load(saved, weights_only=True)["state_dict"]
    assert all(type(value) is torch.Tensor for value in state.values())
    if count == 1:
        again = [train("causal", None, resume=saved)]
    elif count == 2:
        again = [found["resumed"] for found in two]
    else:
        again = in_processes(tmp_path, lambda number: train("causal", ShardedDataParallel, resume=saved), count)
    for _, weights, _ in again:
        close(weights, expected)


@pytest.mark.parametrize(
    ("stage", "words", "message"),
    [
        ("pretrain", ["average=ema"], "average of the weights .* set average=none"),
        ("pretrain", ["objective=byol", "data/augment=simclr"], "objective BYOL .* choose another objective="),
        ("pretrain", ["optimizer=muon"], "optimizer Muon"),
        ("finetune", ["init=scratch", "strategy=l2_sp"], "strategy L2SP"),
        ("finetune", ["init=scratch", "trainer.precision=16-mixed"], "precision=16-mixed .* bf16-mixed"),
    ],
)
def test_what_requires_complete_parameters_is_refused(
    stage: str, words: list[str], message: str, composed: Callable[..., DictConfig], tmp_path: Path
):
    config = composed(f"stage={stage}", "experiment=digits", "backbone=vit", "trainer=fsdp", *words)
    with pytest.raises(UserError, match=message):
        check_sharding(config, assemble(config)[1])
