"""Two processes compute what one does: the losses of every step and the weights, for every objective."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from tests.distributed.several import in_processes
from tests.objective.test_objectives import OBJECTIVES
from tests.training.test_accumulation import Loader, Steps, example, module_of

from warmstart.core.batch import Batch
from warmstart.distributed.batch_norm import synchronize_norms
from warmstart.distributed.processes import own_part, world
from warmstart.training.data_parallel import DataParallel

NAMES = (*OBJECTIVES, "token_classification")
SIZE = 7  # of a batch; of 18 rows, the last batch has 4
EPOCHS = 3  # of three steps


class Parts(Loader):
    """The batches of a loader, or the parts of this process."""

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.rows, self.size):
            rows = slice(start, min(start + self.size, self.rows))
            part = own_part(rows.stop - rows.start)
            if part is None:
                yield self.pick(rows)
            else:
                yield self.pick(rows).rows(part)


def train(name: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and final state of 50 steps of four or two examples."""
    backbone, objective, pick, rows = example(name)
    module, steps = module_of(backbone, objective), Steps()
    module.optimizer = lambda groups: torch.optim.SGD(groups, lr=0.02)
    module.optimizer.func, module.optimizer.keywords = torch.optim.SGD, {"lr": 0.02}
    settings: dict[str, Any] = {}
    if world() > 1:
        synchronize_norms(module)
        settings = {"devices": world(), "strategy": DataParallel(), "use_distributed_sampler": False}
    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        precision="64-true",  # so that only differences of method remain
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[steps],
        **settings,
    )
    trainer.fit(module, Parts(pick, rows, SIZE))
    return steps.losses, module.state_dict()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The results of all objectives in each of two processes."""
    return in_processes(tmp_path_factory.mktemp("two"), lambda rank: {name: train(name) for name in NAMES})


@pytest.mark.parametrize("name", NAMES)
def test_an_objective_in_two_processes(name: str, two: list[dict[str, Any]]):
    losses, weights = train(name)
    assert len(losses) == 3 * EPOCHS
    for found, state in (process[name] for process in two):
        assert found == pytest.approx(losses, abs=1e-5, rel=1e-5)
        for key, value in weights.items():
            assert torch.allclose(state[key].float(), value.float(), atol=1e-4), key
