"""Every backbone in conf/backbone: shapes, padding, depth map, and equality after saving and loading."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from warmstart.contracts import Spec, UserError
from warmstart.main import CONF
from warmstart.run.saved import load_weights

SHAPES = {"vector": (12,), "image": (3, 16, 16)}


def config(name: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(f"backbone/{name}").backbone


def cases() -> list[tuple[str, str]]:
    found = []
    for path in sorted((CONF / "backbone").glob("*.yaml")):
        node = config(path.stem)
        for modality in get_object((node.stem if "stem" in node else node)._target_).modalities:
            found.append((path.stem, modality))
    return found


def make(name: str, modality: str, seed: int = 0) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(seed)
    backbone = instantiate(config(name), _partial_=True, _convert_="all")(spec=Spec(modality, SHAPES[modality]))
    return backbone, torch.randn(4, *SHAPES[modality])


@pytest.mark.parametrize(("name", "modality"), cases())
def test_features_have_the_declared_width_and_every_parameter_a_depth(name: str, modality: str):
    backbone, x = make(name, modality)
    features = backbone(x)
    assert features.pooled.shape == (4, backbone.width)
    assert features.tokens.shape[0] == 4
    assert features.tokens.shape[2] == backbone.width
    depths = backbone.depths()
    for parameter, _ in backbone.named_parameters():
        assert sum(parameter == p or parameter.startswith(f"{p}.") for p in depths) == 1, parameter


@pytest.mark.parametrize(("name", "modality"), cases())
def test_saved_and_loaded_into_another_start_it_computes_the_same(name: str, modality: str):
    one, x = make(name, modality, seed=0)
    other, _ = make(name, modality, seed=1)
    one.eval(), other.eval()
    assert not torch.allclose(one(x).pooled, other(x).pooled)
    record = load_weights(other, one.state_dict(), "test")
    assert record["fraction"] == 1.0
    assert torch.equal(one(x).pooled, other(x).pooled)


@pytest.mark.parametrize(("name", "modality"), cases())
def test_every_parameter_that_sees_the_input_gets_a_gradient(name: str, modality: str):
    backbone, x = make(name, modality)
    backbone(x).pooled.square().sum().backward()
    without = {n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert without <= {"mask_token"}


@pytest.mark.parametrize(
    ("name", "modality"), [case for case in cases() if "hide" in get_object(config(case[0])._target_).abilities]
)
def test_masked_positions_change_nothing_and_hidden_ones_are_not_seen(name: str, modality: str):
    backbone, x = make(name, modality)
    backbone.eval()
    positions = backbone.stem.positions
    valid = torch.ones(4, positions, dtype=torch.bool)
    torch.testing.assert_close(backbone(x, valid).pooled, backbone(x).pooled)
    valid[:, -1] = False
    hidden = ~valid
    changed = x.clone()
    target = backbone.targets(x)
    differs = (backbone.targets(torch.randn_like(x)) != target).any(-1)
    assert differs.all()
    if modality == "vector":
        changed[:, -1] += 5
        torch.testing.assert_close(backbone(changed, valid).pooled, backbone(x, valid).pooled)
        torch.testing.assert_close(backbone(changed, None, hidden).tokens, backbone(x, None, hidden).tokens)
    else:
        changed[:, :, -backbone.stem.patch :, -backbone.stem.patch :] += 5
        torch.testing.assert_close(backbone(changed, valid).pooled, backbone(x, valid).pooled)
        torch.testing.assert_close(backbone(changed, None, hidden).tokens, backbone(x, None, hidden).tokens)


def test_patches_are_rebuilt_in_place():
    backbone, x = make("vit", "image")
    patches = backbone.targets(x)
    p = backbone.stem.patch
    assert torch.equal(backbone.stem.assemble(patches), x)
    assert torch.equal(patches[0, 1].view(3, p, p), x[0, :, :p, p : 2 * p])


def test_sizes_that_cannot_be_built_are_refused():
    with pytest.raises(UserError, match="patch=4 does not divide"):
        instantiate(config("vit"), _partial_=True)(spec=Spec("image", (1, 9, 8)))
    with pytest.raises(UserError, match="not a multiple"):
        instantiate(config("transformer"), _partial_=True)(spec=Spec("vector", (5,)), width=10, heads=4)
