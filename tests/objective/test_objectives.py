"""Every objective in conf/objective decreases its loss on a small batch."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from warmstart.core.batch import Batch
from warmstart.core.protocols import monitored
from warmstart.core.spec import Spec, Vocabulary
from warmstart.main import CONF
from warmstart.training.components import build

# targets that need real texts: tests of their own
PLACES = ("span", "tags", "sequence", "completion", "pairs", "rated")

FEWER = {"vicreg": {"projection": 8}}  # of 8 examples, more features than that cannot all be uncorrelated

LABELS = {"multitask": ("one/a", "one/b", "two/c")}


def class_of(name: str) -> type:
    return get_object(OmegaConf.load(CONF / "objective" / f"{name}.yaml")._target_)


ALL = sorted(path.stem for path in (CONF / "objective").glob("*.yaml"))
OBJECTIVES = [name for name in ALL if class_of(name).target not in PLACES]
TOKENS = {
    "causal": "gpt_small",
    "masked_tokens": "tiny",
    "tsdae": "tiny",
    "distill_tokens": "tiny",
    "span_corruption": "encoder_decoder",
    "text_infilling": "encoder_decoder",
}  # objectives on token numbers, and a backbone for each


def compose_backbone(name: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        return compose(f"backbone/{name}").backbone


def set_up(name: str) -> tuple[torch.nn.Module, torch.nn.Module, Batch]:
    torch.manual_seed(0)
    node = OmegaConf.load(CONF / "objective" / f"{name}.yaml")
    cls = class_of(name)
    labels = (
        ()
        if cls.target is None and cls.teacher_output in (None, "features", "tokens")
        else LABELS.get(name, ("a", "b", "c"))
    )
    spec = Spec("image", (1, 8, 8), labels, (1.0, 2.0, 3.0), (1.0, 1.0, 2.0))
    backbone = "vit" if cls.needs or cls.target == "text" else "mlp"
    x = torch.randn(8, 1, 8, 8).repeat(cls.views, 1, 1, 1)
    x = x + 0.1 * torch.randn_like(x)
    if name in TOKENS:
        backbone, x = TOKENS[name], torch.randint(5, 30, (8, 16))
        moments = {"center": (0.0,) * 6, "spread": (1.0,) * 6} if cls.teacher_output == "tokens" else {}
        spec = Spec(
            "text", (16,), **moments, vocabulary=Vocabulary(30, padding=0, end=3, mask=4, special=(0, 1, 2, 3, 4))
        )
    backbone = build(compose_backbone(backbone), spec=spec)
    loss = cls.default_loss
    loss = loss[backbone.target_kind] if isinstance(loss, Mapping) else loss
    objective = build(node, backbone=backbone, spec=spec, loss=loss, **FEWER.get(name, {}))
    y = {
        None: None if cls.teacher_output is None else torch.randn(8, 17, 3) if name in TOKENS else torch.randn(8, 3),
        "category": torch.arange(8) % 3,
        "categories": torch.randint(0, 2, (8, 3)).float(),
        "value": torch.randn(8, 3),
        "text": torch.arange(8)[:, None] % 3,
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
def test_those_of_tasks_answer_in_plain_records_and_the_others_have_no_metrics(name: str):
    backbone, objective, batch = set_up(name)
    if objective.monitor is None:
        assert objective.metrics() == {}
        return
    spec = Spec("image", (1, 8, 8), LABELS.get(name, ("a", "b", "c")))
    answers = objective.to_records(objective.predict(backbone, batch), batch, spec)
    assert len(answers) == 8
    for metric in objective.metrics().values():
        metric.update(objective.predict(backbone, batch), batch.y)
        found = metric.compute()
        for value in found.values() if isinstance(found, dict) else [found]:
            assert torch.isfinite(value)


@pytest.mark.parametrize("name", [name for name in ALL if class_of(name).monitor])
def test_a_monitored_metric_has_bounds(name: str):
    _, mode = monitored(class_of(name), {})
    bounds = class_of(name).bounds
    of_mode = (0.0, 1.0 if mode == "max" else None)
    assert bounds in ((None, None), of_mode) if callable(class_of(name).monitor) else bounds == of_mode


def test_the_bounds_of_accuracy_are_those_of_its_metric():
    _, objective, _ = set_up("classification")
    metric = objective.metrics()["accuracy"]
    assert objective.bounds == (metric.plot_lower_bound, metric.plot_upper_bound)


def test_masked_hides_the_share_it_says_and_only_counts_those():
    backbone, objective, batch = set_up("masked")
    chosen = objective.choose(backbone, batch)
    assert chosen.sum(1).tolist() == [2] * 8
    objective.ratio = 0.25
    output = objective.step(backbone, batch)
    assert output.count == 8 * round(4 * 0.25)


def test_masked_tokens_of_a_batch_without_any_that_can_be_hidden_cost_nothing():
    backbone, objective, _ = set_up("masked_tokens")
    for mode in (True, False):
        result = objective.train(mode).step(backbone, Batch(torch.full((4, 6), 2)))
        assert (result.loss.item(), result.count, result.measures) == (0.0, 0, {})
    result.loss.backward()


def test_masked_tokens_are_hidden_swapped_or_kept_and_never_special_or_padding():
    backbone, objective, _ = set_up("masked_tokens")
    x = torch.randint(5, 30, (200, 40))
    x[:, 0] = 2
    mask = torch.arange(40) < torch.randint(10, 41, (200, 1))
    x[~mask] = 0
    batch = Batch(x, mask=mask)
    chosen = objective.choose(backbone, batch)
    assert not (chosen & ((x < 5) | ~mask)).any()
    assert chosen.sum(1).tolist() == ((mask.sum(1) - 1) * objective.ratio).round().clamp(min=1).long().tolist()
    shown, hidden = objective.corrupt(backbone, x, backbone.targets(x), chosen)
    assert torch.equal(shown[~chosen], x[~chosen])
    assert hidden.sum() / chosen.sum() == pytest.approx(0.8, abs=0.05)
    swapped = (shown != x).sum() / chosen.sum()
    assert swapped == pytest.approx(0.1, abs=0.04)
    assert (shown[shown != x] >= 5).all()


def test_whole_words_are_chosen_or_not_at_all():
    _, objective, _ = set_up("masked_tokens")
    spec = Spec("text", (16,), vocabulary=Vocabulary(30, padding=0, mask=4, joined=tuple(range(20, 30))))
    backbone = build(compose_backbone("tiny"), spec=spec)
    objective.whole_words = True
    x = torch.randint(5, 30, (100, 40))
    chosen = objective.choose(backbone, Batch(x))
    goes_on = x[:, 1:] >= 20
    assert (chosen[:, 1:] == chosen[:, :-1])[goes_on].all()
    assert chosen.any(1).all()


def test_causal_loss_is_the_same_in_chunks_and_by_hand_and_stays_inside_documents():
    backbone, objective, batch = set_up("causal")
    complete = objective.step(backbone, batch)
    logits = objective.head(backbone(batch.x).tokens[:, :-1])
    by_hand = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.x[:, 1:].flatten())
    assert complete.loss.item() == pytest.approx(by_hand.item(), rel=1e-5)
    objective.chunk = 7
    chunks = objective.step(backbone, batch)
    assert chunks.loss.item() == pytest.approx(complete.loss.item(), rel=1e-5)
    gradients = [
        torch.autograd.grad(output.loss, next(iter(backbone.parameters())))[0] for output in (complete, chunks)
    ]
    assert torch.allclose(*gradients, atol=1e-6)
    documents = torch.cat([torch.ones(8, 10), torch.full((8, 4), 2), torch.zeros(8, 2)], 1).long()
    assert objective.step(backbone, Batch(batch.x, mask=documents)).count == 8 * (9 + 3)


def test_perplexity_and_bits_per_byte_follow_from_the_loss():
    _, objective, _ = set_up("causal")
    spec = Spec("text", (16,), bytes_per_token=4.0)
    assert objective.summary(math.log(256), spec) == pytest.approx({"perplexity": 256, "bits_per_byte": 2.0})


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
    assert output.outputs.dtype == torch.float64
    assert torch.allclose(output.outputs, raw.double() * spread + center, rtol=1e-12)
