"""Adapters change the outputs, and merged weights give the same outputs."""

from __future__ import annotations

import pytest
import torch
from tests.strategy.test_strategies import ADAPTERS, KINDS, STEPS, make, optimize, take
from torch import nn
from transformers import GPT2Config, GPT2Model

from warmstart.core.errors import UserError
from warmstart.run.adapter import applied, merge, packed
from warmstart.strategy.injected import linear_layers
from warmstart.strategy.lora import LoRA
from warmstart.training.optimization import hidden_matrices

FITTING = [kind for kind in KINDS if kind != "resnet"]
OPTIONS = {**{name: {} for name in ADAPTERS}, "dora": {"dora": True, "rslora": True, "layers": "all_linear"}}


@pytest.mark.parametrize("backbone", FITTING)
@pytest.mark.parametrize("options", OPTIONS)
def test_merged_the_outputs_are_those_of_the_adapters(options: str, backbone: str):
    module, batch = make("lora" if options == "dora" else options, backbone, **OPTIONS[options])
    plain, _ = make("linear_probe", backbone)
    start = {name: value.clone() for name, value in plain.backbone.state_dict().items()}
    optimizer, schedule = optimize(module)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = 0.05
    for step in range(STEPS):
        take(module, batch, optimizer, schedule, step)
    module.eval()
    with torch.no_grad():
        adapted = module.objective.predict(module.backbone, batch)
        changes = module.strategy.extract_adapters(module.backbone)
        left = module.backbone.state_dict()
        assert list(left) == list(start)
        assert all(torch.equal(value, start[name]) for name, value in left.items())
        before = module.objective.predict(module.backbone, batch)
        complete = merge(left, changes)
        module.backbone.load_state_dict(complete)
        torch.testing.assert_close(module.objective.predict(module.backbone, batch), adapted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, adapted, atol=1e-3)
    opened = applied(packed(changes), start, [])
    assert all(torch.equal(value, complete[name]) for name, value in opened.items())


@pytest.mark.parametrize("strategy", ADAPTERS)
def test_the_layers_named_are_adapted_and_no_others(strategy: str):
    module, _ = make(strategy, "vit", layers=["blocks.*.qkv", "*.mlp.2"])
    trained = {name.removeprefix("backbone.") for name in module.trained if name.startswith("backbone.")}
    places = {".".join(name.split(".")[:4]).partition(".lora")[0].partition(".ia3")[0] for name in trained}
    assert places == {f"blocks.{index}.{layer}" for index in (0, 1) for layer in ("qkv", "mlp.2")}
    with pytest.raises(UserError, match=r"strategy.layers: blocks.\*.query matches no linear layer of backbone Trans"):
        make(strategy, "vit", layers=["blocks.*.qkv", "blocks.*.query"])


def test_scales_do_not_decay_and_matrices_of_adapters_are_hidden_ones():
    module, _ = make("ia3", "vit", layers=["blocks.*.qkv"])
    optimizer, _ = optimize(module)
    decays = {
        parameter.ndim: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]
    }
    assert decays[1] == 0
    module, _ = make("lora", "vit", layers=["blocks.*.qkv"])
    adapters = {name for name in module.trained if "lora" in name}
    assert len(adapters) == 4
    assert adapters < hidden_matrices(module)


def test_dropout_of_an_adapter_is_active_while_the_layer_inside_rests():
    module, _ = make("lora", "mlp", dropout=0.5)
    wrapper = module.train().strategy.wrappers["layers.0.0"]
    (dropout,) = wrapper.lora_dropout.values()
    assert dropout.training
    assert not wrapper.base_layer.training


@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_layers_of_the_other_orientation_are_merged_too_and_those_used_by_their_weights_are_left_alone(dora: bool):
    torch.manual_seed(0)
    model = GPT2Model(GPT2Config(vocab_size=20, n_positions=8, n_embd=8, n_layer=1, n_head=2)).eval()
    strategy = LoRA(rank=2, dora=dora)
    strategy.prepare(model)
    with torch.no_grad():
        for wrapper in strategy.wrappers.values():
            wrapper.lora_B["default"].weight.normal_()
        adapted = model(torch.arange(8)[None]).last_hidden_state
        changes = strategy.extract_adapters(model)
        model.load_state_dict(merge(model.state_dict(), changes))
        torch.testing.assert_close(model(torch.arange(8)[None]).last_hidden_state, adapted, atol=1e-4, rtol=1e-4)
    both = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "after": nn.Linear(4, 4)})
    assert linear_layers(both, None, "lora") == ["after"]
