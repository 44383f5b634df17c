"""Masked autoencoder: encodes visible positions only, loss on masked ones, invariant to padding."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import FAST
from tests.objective.test_objectives import compose_backbone
from torch import nn

from warmstart.backbone.stem import FeatureStem
from warmstart.core.batch import Batch
from warmstart.core.spec import Spec
from warmstart.loss.mse import mse
from warmstart.objective.masked_autoencoder import MaskedAutoencoder
from warmstart.training.components import build

SPEC = Spec("image", (3, 16, 16))
MAE = ("stage=pretrain", "objective=masked_autoencoder")


def set_up(position: str = "learned", **settings) -> tuple[nn.Module, MaskedAutoencoder, torch.Tensor]:
    torch.manual_seed(0)
    node = compose_backbone("vit")
    node.position, node.depth = position, 2
    backbone = build(node, spec=SPEC)
    return backbone, MaskedAutoencoder(backbone, SPEC, mse, **settings), torch.randn(8, 3, 16, 16)


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_a_trunk_without_some_positions_is_one_that_cannot_see_them(position: str):
    backbone, _, x = set_up(position)
    visible = torch.rand(8, 16).argsort(1)[:, :5]
    alone = backbone(x, visible=visible)
    mask = torch.zeros(8, 16, dtype=torch.bool).scatter(1, visible, True)
    masked = backbone(x, mask)
    assert alone.tokens.shape == (8, 5, 128)
    assert torch.allclose(alone.tokens, masked.tokens.take_along_dim(visible[:, :, None], 1), atol=1e-5)
    assert torch.allclose(alone.pooled, masked.pooled, atol=1e-5)


@pytest.mark.parametrize("position", ["learned", "rotary"])
def test_the_loss_falls_and_hidden_values_are_never_seen(position: str):
    backbone, objective, x = set_up(position)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], lr=1e-3)
    losses = []
    for _ in range(60):
        torch.manual_seed(1)
        output = objective.step(backbone, Batch(x))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert output.count == 8 * 12
    assert losses[-1] < 0.5 * losses[0]
    visible, shown, hidden = objective.choose(backbone, Batch(x))
    assert torch.equal(shown, ~hidden)
    other = backbone.assemble(torch.where(hidden[:, :, None], torch.randn(8, 16, 48), backbone.targets(x)))
    before, after = (objective.decode(backbone, Batch(images), visible, shown) for images in (x, other))
    assert torch.allclose(before, after, atol=1e-5)


def test_padding_is_neither_seen_nor_rebuilt():
    backbone, objective, x = set_up()
    objective.eval()
    mask = torch.arange(16) < torch.tensor([16, 8, 4, 16, 2, 1, 16, 12])[:, None]
    visible, shown, hidden = objective.choose(backbone, Batch(x, mask=mask))
    assert shown.sum(1).tolist() == [4, 2, 1, 4, 1, 1, 4, 3]
    assert torch.equal(shown | hidden, mask)
    unseen = ~shown[:, :, None]
    other = backbone.assemble(torch.where(unseen, torch.randn(8, 16, 48), backbone.targets(x)))
    before, after = (objective.decode(backbone, Batch(images, mask=mask), visible, shown) for images in (x, other))
    assert torch.allclose(before[mask], after[mask], atol=1e-5)
    assert objective.step(backbone, Batch(x, mask=mask)).count == int(hidden.sum())


def test_pictures_show_what_was_visible_and_keep_it():
    backbone, objective, x = set_up()
    inputs, seen, rebuilt = objective.reconstructions(backbone, Batch(x))
    assert torch.equal(inputs, x)
    assert (seen == 0).float().mean() == pytest.approx(0.75)
    assert torch.equal(rebuilt[seen != 0], x[seen != 0])


def test_single_values_are_rebuilt_as_they_are(cli):
    spec = Spec("vector", (12,))
    node = compose_backbone("transformer")
    backbone = build(node, spec=spec)
    assert isinstance(backbone.stem, FeatureStem)
    output = MaskedAutoencoder(backbone, spec, mse, normalize=False).step(backbone, Batch(torch.randn(8, 12)))
    assert output.count == 8 * 9
    words = (*MAE, "experiment=vectors", "backbone=transformer", "data.rows=400", "data.features=20", *FAST)
    refused = cli(*words)
    assert refused.status == 2
    assert "objective.normalize=false" in refused.error


def test_a_run_is_visualized_and_finetuned(cli):
    words = ("backbone=vit", "backbone.width=16", "backbone.depth=1", "backbone.heads=2", "backbone.stem.patch=2")
    pretrained = cli(*MAE, *words, *FAST[1:])
    assert pretrained.status == 0, pretrained.err
    finetuned = cli("stage=finetune", f"init={pretrained.run('pretrain')}", *words, "data.labels_per_class=5", *FAST)
    assert finetuned.record("finetune")["transfer"]["fraction"] == 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("backbone=mlp", "needs a backbone that can skip positions"),
        ("backbone=vit backbone.window=4", "needs a backbone that can skip positions"),
        ("backbone=vit objective.ratio=1", "objective.ratio=1"),
        ("backbone=vit objective.width=30", "objective.width=30 is not a multiple of objective.heads=4"),
        ("experiment=shakespeare backbone=tiny", "predicts continuous values"),
    ],
)
def test_what_cannot_be_is_refused(words: str, message: str, cli):
    outcome = cli(*MAE, *words.split(), *FAST)
    assert outcome.status == 2
    assert message in outcome.error
