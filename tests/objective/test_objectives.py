"""Every objective in conf/objective learns on a tiny batch, with its own loss and nothing else."""

from __future__ import annotations

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from warmstart.contracts import Batch, Spec
from warmstart.main import CONF
from warmstart.stage.parts import build

OBJECTIVES = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))


def set_up(name: str) -> tuple[torch.nn.Module, torch.nn.Module, Batch]:
    torch.manual_seed(0)
    node = OmegaConf.load(CONF / "objective" / f"{name}.yaml")
    cls = get_object(node._target_)
    labels = () if cls.target is None else ("a", "b", "c")
    spec = Spec("image", (1, 8, 8), labels, (1.0, 2.0, 3.0), (1.0, 1.0, 2.0))
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        backbone_node = compose("backbone/vit" if "hide" in cls.needs else "backbone/mlp").backbone
    backbone = build(backbone_node, spec=spec)
    objective = build(node, backbone=backbone, spec=spec, loss=cls.default_loss)
    x = torch.randn(8 * cls.views, 1, 8, 8)
    y = {
        None: None,
        "category": torch.arange(8) % 3,
        "categories": torch.randint(0, 2, (8, 3)).float(),
        "value": torch.randn(8, 3),
    }[cls.target]
    return backbone, objective, Batch(x, y)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_falls_on_one_batch(name: str):
    backbone, objective, batch = set_up(name)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], lr=1e-3)
    losses = []
    for _ in range(40):
        torch.manual_seed(1)
        output = objective.step(backbone, batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert output.count >= len(batch.x)
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_supervised_ones_answer_in_plain_records_and_the_others_have_no_metrics(name: str):
    backbone, objective, batch = set_up(name)
    if objective.target is None:
        assert objective.metrics() == {}
        return
    spec = Spec("image", (1, 8, 8), ("a", "b", "c"))
    answers = objective.answer(objective.predict(backbone, batch), spec)
    assert len(answers) == 8
    for metric in objective.metrics().values():
        metric.update(objective.predict(backbone, batch), batch.y)
        assert torch.isfinite(metric.compute())


def test_masked_hides_the_share_it_says_and_only_counts_those():
    backbone, objective, batch = set_up("masked")
    hidden = objective.choose(torch.zeros(5, 10, 3))
    assert hidden.sum(1).tolist() == [5] * 5
    objective.ratio = 0.25
    output = objective.step(backbone, batch)
    assert output.count == 8 * round(4 * 0.25)


def test_contrastive_loss_by_hand():
    backbone, objective, batch = set_up("contrastive")
    z = torch.nn.functional.normalize(objective.head(backbone(batch.x).pooled), dim=1)
    similarity = (z @ z.T / objective.temperature).exp()
    similarity.fill_diagonal_(0)
    partner = [(i + 8) % 16 for i in range(16)]
    expected = -torch.stack([(similarity[i, j] / similarity[i].sum()).log() for i, j in enumerate(partner)]).mean()
    assert objective.step(backbone, batch).loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_regression_loss_is_in_standard_deviations_and_outputs_are_not():
    backbone, objective, batch = set_up("regression")
    output = objective.step(backbone, batch)
    center, spread = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 2.0])
    expected = ((output.outputs - batch.y) / spread).square().mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    raw = objective.head(backbone(batch.x).pooled)
    assert torch.allclose(output.outputs, raw * spread + center)
