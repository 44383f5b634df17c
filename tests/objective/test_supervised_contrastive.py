"""Supervised contrastive loss; with one example per class it equals the contrastive loss."""

from __future__ import annotations

import pytest
import torch
from tests.conftest import FAST
from tests.objective.test_objectives import set_up

from warmstart.core.batch import Batch
from warmstart.loss.brier import brier
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.loss.focal import focal
from warmstart.objective.contrastive import Contrastive

WORDS = ("stage=pretrain", "objective=supervised_contrastive", "data/augment=shift", *FAST)


def test_the_loss_by_hand():
    backbone, objective, batch = set_up("supervised_contrastive")
    z = torch.nn.functional.normalize(objective.head(backbone(batch.x).pooled), dim=1)
    similarity, y = z @ z.T / objective.temperature, batch.y.repeat(2)
    values = []
    for i in range(16):
        others = [j for j in range(16) if j != i]
        total = similarity[i, others].logsumexp(0)
        values.append(-torch.stack([similarity[i, j] - total for j in others if y[j] == y[i]]).mean())
    assert objective.step(backbone, batch).loss.item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-4)


def test_without_a_class_in_common_it_is_the_unsupervised_loss():
    backbone, objective, batch = set_up("supervised_contrastive")
    plain = Contrastive(backbone, None, cross_entropy, temperature=objective.temperature)
    plain.head = objective.head
    alone = Batch(batch.x, torch.arange(8))
    assert objective.step(backbone, alone).loss.item() == pytest.approx(
        plain.step(backbone, alone).loss.item(), rel=1e-4
    )


@pytest.mark.parametrize("loss", [cross_entropy, focal, brier])
def test_losses_of_classes_take_shares_of_them(loss):
    outputs, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    shares = torch.nn.functional.one_hot(classes, 3).float()
    assert torch.allclose(loss(outputs, classes), loss(outputs, shares), atol=1e-5)


def test_it_pretrains_on_classes_and_finetunes_nothing(cli):
    pretrained = cli(*WORDS, "loss=focal")
    assert pretrained.status == 0, pretrained.err
    assert pretrained.record("pretrain")["metrics"]["val/knn_accuracy"] > 0.8
    finetuned = cli("stage=finetune", f"init={pretrained.run('pretrain')}", "data.labels_per_class=5", *FAST)
    assert finetuned.record("finetune")["transfer"]["fraction"] == 1.0
    refused = cli("stage=finetune", "init=scratch", *WORDS[1:])
    assert (refused.status, "is for pretraining" in refused.error) == (2, True)
    unlabelled = cli("experiment=shakespeare", *WORDS[:2], *FAST)
    assert unlabelled.status == 2
    assert "needs targets of kind category" in unlabelled.error
