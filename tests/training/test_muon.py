"""Muon: parameter groups, training, and exact resuming."""

from __future__ import annotations

import functools
import io
import json

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from warmstart.backbone.mlp import MLP
from warmstart.backbone.resnet import ResNet
from warmstart.backbone.stem import PatchStem
from warmstart.backbone.transformer import Transformer
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec
from warmstart.training.components import build_function
from warmstart.training.muon import Muon
from warmstart.training.optimization import parameter_groups

MUON = functools.partial(Muon, lr=0.02, weight_decay=0.1, adam_scale=0.5)
IMAGE = Spec("image", (1, 8, 8))


class Whole(nn.Module):
    """A backbone and a head, as the modules hold them."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone, self.objective = backbone, nn.Linear(backbone.width, 3)


def transformer() -> Whole:
    return Whole(Transformer(IMAGE, stem=functools.partial(PatchStem, patch=4), width=16, depth=2, heads=2))


def groups_of(module: Whole, optimizer: functools.partial = MUON, scale: float = 1.0) -> list[dict]:
    names = [name for name, _ in module.named_parameters()]
    return parameter_groups(module, {name: scale if name.startswith("backbone") else 1.0 for name in names}, optimizer)


MODULES = {
    "transformer": transformer,
    "mlp": lambda: Whole(MLP(IMAGE, hidden=[8, 8])),
    "resnet": lambda: Whole(ResNet(IMAGE, widths=[4, 4], blocks=[1, 1])),
}


def hidden_of(module: Whole) -> set[str]:
    return {name for group in groups_of(module) if group["hidden"] for name in group["params"]}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_every_parameter_is_in_one_group(name: str, scale: float):
    module = MODULES[name]()
    names = [name for group in groups_of(module, scale=scale) for name in group["params"]]
    assert sorted(names) == sorted(name for name, _ in module.named_parameters())


def test_hidden_are_the_matrices_past_the_input_and_before_the_head():
    module = transformer()
    matrices = {name for name, parameter in module.named_parameters() if parameter.ndim == 2}
    assert hidden_of(module) == {name for name in matrices if name.startswith("backbone.blocks.")}
    assert hidden_of(MODULES["mlp"]()) == {"backbone.layers.1.0.weight"}
    convolutions = ("conv1", "conv2", "shortcut.0")
    found = {f"backbone.stages.{stage}.0.{name}.weight" for stage in (0, 1) for name in convolutions}
    assert hidden_of(MODULES["resnet"]()) == found - {"backbone.stages.0.0.shortcut.0.weight"}


def test_an_embedding_inside_a_block_is_not_hidden():
    module = transformer()
    module.backbone.blocks[0].distances = nn.Embedding(4, 16)
    assert "backbone.blocks.0.distances.weight" not in hidden_of(module)


def test_other_optimizers_get_the_groups_they_always_got():
    groups = groups_of(transformer(), functools.partial(torch.optim.AdamW, lr=0.1, weight_decay=0.05))
    assert [set(group) for group in groups] == [{"params", "lr", "weight_decay"}] * 2


def built(module: Whole) -> tuple[Muon, LambdaLR]:
    own = dict(module.named_parameters())
    optimizer = MUON([{**group, "params": [own[name] for name in group["params"]]} for group in groups_of(module)])
    return optimizer, LambdaLR(optimizer, lambda step: 1 / (1 + step))


def train(module: Whole, optimizer: Muon, schedule: LambdaLR, steps: range) -> list[float]:
    losses = []
    for step in steps:
        generator = torch.Generator().manual_seed(step % 3)
        x = torch.randn(16, 1, 8, 8, generator=generator)
        optimizer.zero_grad()
        loss = (module.objective(module.backbone(x).pooled) - x.mean((1, 2, 3))[:, None]).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def test_both_optimizers_share_the_rate_and_the_schedule():
    optimizer, schedule = built(transformer())
    rates = {group["hidden"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {True: 0.02, False: 0.01}
    module = transformer()
    optimizer, schedule = built(module)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    train(module, optimizer, schedule, range(1))
    assert {group["hidden"]: group["lr"] for group in optimizer.param_groups} == {True: 0.01, False: 0.005}
    for name, parameter in module.named_parameters():
        moved = (parameter - before[name]).square().mean().sqrt()
        if name.startswith("backbone.blocks.") and parameter.ndim == 2:
            assert 0.002 < moved < 0.008  # 0.2 times the rate of 0.02, as an AdamW update is about
        elif "mask_token" not in name:  # nothing is hidden here
            assert 0 < moved < 0.02


def test_a_convolution_is_updated_as_the_matrix_of_its_kernels():
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(6, 4, 3, 3).to(memory_format=torch.channels_last))
    matrix = nn.Parameter(kernel.detach().flatten(1).clone())
    pair = [MUON([{"params": [parameter], "hidden": True}]) for parameter in (kernel, matrix)]
    for _ in range(3):
        gradient = torch.randn(6, 4, 3, 3)
        kernel.grad, matrix.grad = gradient, gradient.flatten(1)
        for optimizer in pair:
            optimizer.step()
    assert torch.equal(kernel.flatten(1), matrix)
    assert kernel.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("made_of", [transformer, MODULES["resnet"]])
def test_it_trains_and_goes_on_bit_for_bit_from_a_saved_state(made_of):
    torch.manual_seed(0)
    complete = made_of()
    start = {name: value.clone() for name, value in complete.state_dict().items()}
    losses = train(complete, *(made := built(complete)), range(30))
    assert losses[-1] < 0.2 * losses[0]

    stopped = made_of()
    stopped.load_state_dict(start)
    train(stopped, *(made := built(stopped)), range(11))
    stream = io.BytesIO()
    torch.save([stopped.state_dict(), *(part.state_dict() for part in made)], stream)
    stream.seek(0)
    weights, *states = torch.load(stream, weights_only=True)

    resumed = made_of()
    resumed.load_state_dict(weights)
    made = built(resumed)
    for part, state in zip(made, states):
        part.load_state_dict(state)
    assert train(resumed, *made, range(11, 30)) == losses[11:]
    for name, value in complete.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_a_head_alone_can_be_trained(cli):
    words = ("visualization=[]", "optimizer=muon", "trainer.max_epochs=2", "init=scratch")
    outcome = cli("stage=finetune", "strategy=linear_probe", *words)
    assert outcome.status == 0, outcome.err


def test_it_is_selected_by_one_override_and_named_in_the_record(cli):
    outcome = cli("stage=pretrain", "visualization=[]", "optimizer=muon", "trainer.max_epochs=20")
    assert outcome.status == 0, outcome.err
    record = json.loads((outcome.run("pretrain") / "run.json").read_text())
    untrained = cli("stage=pretrain", "visualization=[]", "optimizer.lr=1e-9", "trainer.max_epochs=1")
    assert record["metrics"]["val/loss"] < 0.9 * untrained.record("pretrain")["metrics"]["val/loss"]
    refused = cli("stage=pretrain", "optimizer=muon", "optimizer.momentum=2")
    assert refused.status == 2
    assert "optimizer.momentum=2: must be" in refused.error


def test_its_settings_are_those_of_an_optimizer(composed):
    config = composed("stage=pretrain", "optimizer=muon")
    assert build_function(config.optimizer).keywords["lr"] == config.optimizer.lr
    config.optimizer.lr = "fast"
    with pytest.raises(UserError, match=r"optimizer\.lr=fast"):
        build_function(config.optimizer)
