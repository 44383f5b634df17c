"""Two processes train with every strategy as one does, and have equal weights after every step, in all phases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.distributed.several import in_processes
from tests.strategy.test_strategies import STRATEGIES, make
from tests.training.test_accumulation import Steps

from warmstart.core.batch import Batch
from warmstart.distributed.batch_norm import synchronize_norms
from warmstart.distributed.processes import own_part, world
from warmstart.training.data_parallel import DataParallel

BACKBONES = {  # else an MLP
    **{"frozen_half": "encoder_decoder", "frozen_stem": "tiny", "ia3": "tiny", "lora": "tiny", "norm_only": "resnet"}
}
STEPS = 9  # three of each phase, of up to three


class Weights(Steps):
    """All weights after each step, also frozen ones."""

    def note(self, module: pl.LightningModule, loss: Any) -> None:
        self.weights.append(torch.cat([value.detach().flatten() for value in module.parameters()]))
        self.losses.append(float(loss))


class Repeated:
    """A batch, or the part of this process, several times; the rows without labels are the same ones."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[Batch]:
        part = own_part(len(self.batch.x))
        for _ in range(STEPS):
            batch = self.batch if part is None else self.batch.rows(part)
            rows = Batch(self.batch.x[:5])
            batch.unlabelled = rows if part is None else rows.rows(own_part(5))
            yield batch


def train(strategy: str) -> tuple[list[torch.Tensor], list[float]]:
    """Weights and losses after each step."""
    module, batch = make(strategy, BACKBONES.get(strategy, "mlp"))
    steps, settings = Weights(), {}
    if world() > 1:
        synchronize_norms(module)
        settings = {"devices": world(), "strategy": DataParallel(), "use_distributed_sampler": False}
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[steps],
        **settings,
    )
    trainer.fit(module, Repeated(batch))
    return steps.weights, steps.losses


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The steps of all strategies in each of two processes."""
    return in_processes(tmp_path_factory.mktemp("two"), lambda rank: {name: train(name) for name in STRATEGIES})


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_in_two_processes(name: str, two: list[dict[str, Any]]):
    (alone, expected), (ours, losses), (theirs, _) = train(name), *(process[name] for process in two)
    assert len(ours) == STEPS
    for step, weights in enumerate(ours):
        assert torch.equal(weights, theirs[step])
        assert torch.allclose(weights, alone[step], atol=1e-5)
    assert losses == pytest.approx(expected, abs=1e-5)
    assert not torch.equal(ours[0], ours[-1])
