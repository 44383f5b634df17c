"""Batch-norm statistics that are adapted to the evaluated inputs."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from warmstart.backbone.mlp import MLP
from warmstart.backbone.resnet import ResNet
from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor
from warmstart.core.spec import Spec
from warmstart.data.storage.ragged import Frames
from warmstart.data.transforms.augment import Augment
from warmstart.training.adaptation import NormAdaptation
from warmstart.training.trainer import build_trainer


class Model(nn.Module):
    """What an adaptation needs of a module."""

    device = torch.device("cpu")

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.augment = backbone, Augment(Preprocessor(), {})

    def pooled(self, batch: Batch, index: int) -> torch.Tensor:
        return self.backbone(batch.x, batch.mask).pooled


def adapted(model: Model, composed, x, size: int, cluster: np.ndarray | None = None) -> torch.Tensor:
    """The outputs of a copy of the model that is adapted to x, in the order of x."""
    model = copy.deepcopy(model).eval()
    trainer = build_trainer(composed("stage=finetune", "trainer.accelerator=cpu").trainer, Path(), None, [])
    found = NormAdaptation(model, "backbone=resnet").run(trainer, "test", x, None, cluster, size, model.pooled)
    outputs = torch.empty(len(x), model.backbone.width)
    for rows, values in found:
        outputs[torch.from_numpy(rows)] = values
    return outputs


def recordings(rows: int) -> Frames:
    """Recordings of random values, of different lengths."""
    generator = np.random.default_rng(0)
    starts = np.cumsum([0, *generator.integers(3, 9, rows)])
    return Frames(generator.normal(2, 3, (starts[-1], 2, 8)).astype(np.float32), starts, 9)


def test_outputs_are_those_of_one_batch_of_all_rows_in_training_mode_whatever_the_batches(composed):
    torch.manual_seed(0)
    model = Model(ResNet(Spec("speech", (9, 2, 8)), [4, 6], [1, 2]))
    x = recordings(10)
    expected = model.backbone.train()(*x.padded(slice(0, 10))).pooled.detach()
    for size in (3, 10):
        torch.testing.assert_close(adapted(model, composed, x, size), expected, rtol=1e-3, atol=1e-4)


def test_each_cluster_has_its_own_statistics(composed):
    torch.manual_seed(0)
    model = Model(ResNet(Spec("image", (1, 8, 8)), [4, 6], [1, 1]))
    x = torch.randn(8, 1, 8, 8)
    cluster = np.array(["a", "b"] * 4, dtype=object)
    x[1::2] = 5 * x[0::2]  # the same pictures with another contrast
    together = adapted(model, composed, x, 3)
    apart = adapted(model, composed, x, 3, cluster)
    torch.testing.assert_close(apart[1::2], apart[0::2], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(together[1::2], together[0::2], rtol=1e-1, atol=1e-1)


@pytest.mark.parametrize("stack", [1, 2, 3, 4, 5, 8])
def test_a_network_of_spectrograms_uses_all_frames(stack: int):
    model = ResNet(Spec("speech", (9, stack, 8)), [4, 4], [1, 1]).eval()
    x = torch.randn(2, 7, stack, 8, requires_grad=True)
    found = model(x)
    assert found.tokens.shape[1] == 7
    found.tokens.square().sum().backward()
    assert x.grad.abs().sum((0, 3)).all()


def test_backbones_and_rows_without_statistics_are_refused(composed):
    with pytest.raises(UserError, match="backbone=resnet has none"):
        adapted(Model(MLP(Spec("vector", (4,)), [8], norm=True)), composed, torch.randn(4, 4), 4)
    model = Model(ResNet(Spec("image", (1, 2, 2)), [4, 4], [1, 1]))
    with pytest.raises(UserError, match="one value only"):
        adapted(model, composed, torch.randn(2, 1, 2, 2), 2, np.array(["a", "b"], dtype=object))
