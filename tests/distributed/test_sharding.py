"""Sharded data parallel training (FSDP2) in two processes equals data parallel training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.distributed.several import in_processes
from tests.distributed.test_objectives import SIZE, Parts
from tests.distributed.test_strategies import Repeated
from tests.strategy.test_strategies import make
from tests.training.test_accumulation import Steps, example, module_of

from warmstart.distributed.processes import world
from warmstart.training.checkpoint import AtomicCheckpointIO
from warmstart.training.data_parallel import DataParallel
from warmstart.training.sharding import ShardedDataParallel, is_sharded, unshard

OBJECTIVES = ("causal", "masked_tokens")
STRATEGIES = ("linear_probe", "lp_ft", "gradual", "lora")
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
    module.optimizer = lambda groups: torch.optim.AdamW(groups, lr=0.01)
    module.optimizer.func, module.optimizer.keywords = torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}
    trainer = trainer_of(strategy, steps, **{"max_epochs": epochs, "gradient_clip_val": 0.5, **more})
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


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("batches", [1, 2], ids=["", "accumulated"])
def test_sharded_training_equals_data_parallel_training(name: str, batches: int, tmp_path: Path):
    def both(number: int) -> list[Any]:
        settings = {"accumulate_grad_batches": batches}
        return [train(name, strategy, **settings) for strategy in (ShardedDataParallel, DataParallel)]

    for (losses, weights, share), (expected, theirs, _) in in_processes(tmp_path / "two", both):
        assert len(losses) == EPOCHS * (3 if batches == 1 else 2)
        assert losses == pytest.approx(expected, abs=1e-4)
        close(weights, theirs)
        assert 0.3 < share < 0.7


def test_bf16(tmp_path: Path):
    settings = {"precision": "bf16-mixed"}
    both = [ShardedDataParallel, DataParallel]
    found = in_processes(tmp_path / "two", lambda number: [train("causal", one, **settings) for one in both])
    for (losses, weights, _), (expected, _, _) in found:
        assert losses[0] == pytest.approx(expected[0], rel=1e-2)
        assert losses[-1] < losses[0]
        assert {value.dtype for value in weights.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_checkpoint_of_two_processes_is_resumed_by_another_number(count: int, tmp_path: Path):
    path = tmp_path / "last.ckpt"
    _, expected, _ = in_processes(tmp_path / "all", lambda number: train("causal", ShardedDataParallel))[0]
    in_processes(tmp_path / "first", lambda number: train("causal", ShardedDataParallel, HALF, save=path))
    saved = torch.load(path, weights_only=True)
    assert all(type(value) is torch.Tensor for value in saved["state_dict"].values())
    if count == 1:
        close(train("causal", None, resume=path)[1], expected)
        return
    again = in_processes(tmp_path / "more", lambda number: train("causal", ShardedDataParallel, resume=path), count)
    for _, weights, _ in again:
        close(weights, expected)


def finetune(name: str, strategy: type) -> tuple[list[float], dict[str, torch.Tensor]]:
    module, batch = make(name, "tiny")
    steps = Shares()
    trainer = trainer_of(strategy, steps, max_epochs=1)
    trainer.fit(module, Repeated(batch))
    unshard(trainer)
    return steps.losses, module.state_dict()


@pytest.mark.parametrize("name", STRATEGIES)
def test_parameters_frozen_and_trained_in_turn(name: str, tmp_path: Path):
    both = (ShardedDataParallel, DataParallel)
    for ours, theirs in in_processes(tmp_path / "two", lambda number: [finetune(name, one) for one in both]):
        assert ours[0] == pytest.approx(theirs[0], abs=1e-4)
        close(ours[1], theirs[1])
