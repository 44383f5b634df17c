"""BYOL: the teacher is a moving average, has no gradients, and is discarded after pretraining."""

from __future__ import annotations

import functools

import pytest
import torch
from safetensors.torch import load_file
from tests.conftest import FAST
from tests.objective.test_objectives import set_up
from torch import nn

from warmstart.core import protocols
from warmstart.core.errors import CannotBatch
from warmstart.data.transforms.augment import Augment
from warmstart.training.modules import PretrainModule
from warmstart.training.optimization import parameter_groups
from warmstart.training.schedule import constant
from warmstart.vmap.eligibility import check_pure

WORDS = ("stage=pretrain", "objective=byol", "data/augment=shift", *FAST)


def moved(module: nn.Module) -> None:
    """As an optimizer or a checkpoint would change it."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


def test_the_teacher_starts_as_the_student_and_then_follows_it():
    backbone, objective, batch = set_up("byol")
    moved(backbone)  # weights that were loaded after the objective was built
    objective.on_step_start(backbone)
    teacher = objective.teacher.module[0]
    start = [parameter.clone() for parameter in teacher.parameters()]
    assert all(torch.equal(own, kept) for own, kept in zip(backbone.parameters(), start))
    moved(backbone)
    objective.on_step_start(backbone)
    objective.step(backbone, batch)
    for own, kept, before in zip(backbone.parameters(), teacher.parameters(), start):
        assert torch.allclose(kept, 0.99 * before + 0.01 * own, atol=1e-6)
    before = [value.clone() for value in objective.teacher.state_dict().values()]
    moved(backbone)
    objective.eval()
    objective.step(backbone, batch)
    assert all(torch.equal(*pair) for pair in zip(before, objective.teacher.state_dict().values()))


def test_the_loss_is_the_distance_on_the_sphere_to_the_other_view():
    backbone, objective, batch = set_up("byol")
    objective.eval()
    backbone.eval()
    guess = objective.predictor(objective.head(backbone(batch.x).pooled))
    wanted = objective.head(backbone(batch.x).pooled)
    cosine = torch.cosine_similarity(guess, torch.cat([wanted[8:], wanted[:8]]))
    assert objective.step(backbone, batch).loss.item() == pytest.approx((2 - 2 * cosine).mean().item(), rel=1e-4)


def test_no_optimizer_sees_the_teacher_and_no_gradient_reaches_it():
    backbone, objective, batch = set_up("byol")
    optimizer = functools.partial(torch.optim.AdamW, lr=1e-3)
    module = PretrainModule(backbone, objective, optimizer, constant, Augment(protocols.Preprocessor()), 0)
    names = {name for group in parameter_groups(module, module.scales, optimizer) for name in group["params"]}
    assert names == {name for name, _ in module.named_parameters() if ".teacher." not in name}
    objective.step(backbone, batch).loss.backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())


def test_it_is_not_trained_together_with_others():
    backbone, objective, batch = set_up("byol")
    complete = nn.ModuleDict({"backbone": backbone, "objective": objective})
    with pytest.raises(CannotBatch, match="objective=byol updates a buffer"):
        check_pure("objective=byol", complete, lambda: objective.step(backbone, batch))


def test_its_run_is_finetuned_and_pretrained_further(cli):
    first = cli(*WORDS)
    assert first.status == 0, first.err
    saved = first.run("pretrain")
    finetuned = cli("stage=finetune", f"init={saved}", "data.labels_per_class=5", *FAST)
    assert finetuned.record("finetune")["transfer"]["fraction"] == 1.0
    further = cli(*WORDS, f"init={saved}")
    assert further.record("pretrain")["transfer"]["head"] == "loaded"
    counts = [load_file(run / "model/head.safetensors")["teacher.n_averaged"] for run in further.runs("pretrain")]
    assert counts[1] == 2 * counts[0] > 0
    other = cli(*WORDS[:1], "objective=denoise", *FAST, f"init={saved}")
    assert other.record("pretrain")["transfer"]["head"] == "random"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("objective.momentum=1.0", "objective.momentum=1.0: must be"),
        ("objective.hidden=0", "objective.hidden=0"),
        ("data/augment=none", "data.augment has no augmentation"),
        ("experiment=text data.root=x data.text=x data.target=y objective=byol", "data.augment has no augmentation"),
    ],
)
def test_what_cannot_be_is_refused(words: str, message: str, cli):
    base = WORDS[:2] if "experiment" in words else WORDS
    outcome = cli(*base, *words.split())
    assert outcome.status == 2
    assert message in outcome.error


def test_it_finetunes_nothing(cli):
    outcome = cli("stage=finetune", "init=scratch", "objective=byol", "data/augment=shift", *FAST)
    assert outcome.status == 2
    assert "objective=byol is for pretraining" in outcome.error
    assert "objective=classification" in outcome.error
