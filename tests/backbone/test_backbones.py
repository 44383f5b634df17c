"""Every backbone in conf/backbone: shapes, padding, depth map, and equality after saving and loading."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig

from warmstart.core.errors import UserError
from warmstart.core.spec import Spec, Vocabulary
from warmstart.main import CONF
from warmstart.run.saved import load_weights

SHAPES = {"vector": (12,), "image": (3, 16, 16), "text": (12,), "speech": (12, 2, 20)}
VOCABULARY = Vocabulary(40, padding=0, end=3, mask=4, special=(0, 1, 2, 3, 4))


def config(name: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(f"backbone/{name}").backbone


def cases() -> list[tuple[str, str]]:
    found = []
    for path in sorted((CONF / "backbone").glob("*.yaml")):
        node = config(path.stem)
        if "architecture" in node:  # another library's: built from a model's own config
            continue
        for modality in sorted(get_object((node.stem if "stem" in node else node)._target_).modalities):
            found.append((path.stem, modality))
    return found


def make(name: str, modality: str, seed: int = 0) -> tuple[torch.nn.Module, torch.Tensor]:
    torch.manual_seed(seed)
    node = config(name)
    if "depth" in node:
        node.depth = min(node.depth, 2)
    spec = Spec(modality, SHAPES[modality], vocabulary=VOCABULARY if modality == "text" else None)
    backbone = instantiate(node, _partial_=True, _convert_="all")(spec=spec)
    return backbone, torch.randint(5, 40, (4, 12)) if modality == "text" else torch.randn(4, *SHAPES[modality])


def can_hide(name: str) -> bool:
    node = config(name)
    found = get_object(node._target_).abilities
    return "hide" in (found(**node) if callable(found) else found)


def with_another_end(backbone: torch.nn.Module, x: torch.Tensor, modality: str) -> torch.Tensor:
    """The same inputs with their last position changed."""
    x = x.clone()
    if modality == "text":
        x[:, -1] = (x[:, -1] + 1).clamp(5, 39)
    elif modality in ("vector", "speech"):
        x[:, -1] += 5
    else:
        x[:, :, -backbone.stem.patch :, -backbone.stem.patch :] += 5
    return x


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
    for matrix in backbone.parameters():  # a projection of zeros, with zero_init, passes no gradient in the first step
        if matrix.ndim == 2 and not matrix.any():
            torch.nn.init.normal_(matrix, std=0.02)
    loss = backbone(x).pooled.square().sum()
    if name == "encoder_decoder":
        loss = loss + backbone.decode(backbone(x).tokens, None, x).square().sum()
    loss.backward()
    without = {n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    assert without <= {"mask_token", "stem.mask_token"}


@pytest.mark.parametrize(("name", "modality"), [case for case in cases() if can_hide(case[0])])
def test_masked_positions_change_nothing_and_hidden_ones_are_not_seen(name: str, modality: str):
    backbone, x = make(name, modality)
    backbone.eval()
    valid = torch.ones(4, backbone.stem.positions, dtype=torch.bool)
    torch.testing.assert_close(backbone(x, valid).pooled, backbone(x).pooled)
    valid[:, -1] = False
    changed = with_another_end(backbone, x, modality)
    assert not torch.allclose(backbone(changed).tokens[:, 0], backbone(x).tokens[:, 0])
    torch.testing.assert_close(backbone(changed, valid).pooled, backbone(x, valid).pooled)
    torch.testing.assert_close(backbone(changed, None, ~valid).tokens, backbone(x, None, ~valid).tokens)
    assert backbone.maskable(x).all()
    runs = 5 if modality == "speech" else 1  # neighbouring frames are hidden together
    assert backbone.word_ids(x).tolist() == [[place // runs for place in range(valid.shape[1])]] * 4
    assert torch.equal(backbone.assemble(backbone.targets(x)), x)


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
