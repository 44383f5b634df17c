"""Kahneman-Tversky optimization: losses, reference point and measures against the formula of the paper."""

import math

import pytest
import torch
from tests.objective.test_dpo import CHOSEN, PROMPTS, REJECTED, SPEC, backbone, by_hand, make_batch  # noqa: F401

from warmstart.backbone.transformer import Transformer
from warmstart.core.batch import Batch
from warmstart.objective.kto import KTO, MEASURES, value_loss


def kto(backbone: Transformer, **settings) -> KTO:  # noqa: F811
    return KTO(backbone, SPEC, value_loss, **settings).eval()


def rated_batch() -> Batch:
    """Return two rated conversations, then their prompts with other completions."""
    batch = make_batch()
    batch.rating = torch.tensor([True, False])
    return batch


def by_formula(outputs: torch.Tensor, beta: float, desirable: float, undesirable: float) -> float:
    """Return the mean loss as in section 4 of the paper, row by row: weight minus value."""
    rows = outputs.tolist()
    point = max(0.0, sum(other - other_reference for _, other, _, _, other_reference in rows) / len(rows))
    total = 0.0
    for own, _, rating, reference, _ in rows:
        relative = beta * (own - reference - point)
        weight = desirable if rating else undesirable
        value = weight / (1 + math.exp(-relative if rating else relative))
        total += weight - value
    return total / len(rows)


@pytest.mark.parametrize("shift", [-3.0, 3.0])  # of the mismatched completions: the reference point is 0, or above
@pytest.mark.parametrize(("desirable", "undesirable"), [(1.0, 1.0), (1.5, 0.5)])
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_loss_equals_the_formula(backbone, beta, desirable, undesirable, shift):  # noqa: F811
    objective = kto(backbone, beta=beta, desirable_weight=desirable, undesirable_weight=undesirable)
    outputs = -20 * torch.rand(50, 5)
    outputs[:, 1], outputs[:, 2] = outputs[:, 4] + shift + torch.rand(50), torch.arange(50) % 3 == 0
    found = objective.measures.of(outputs, "loss").item()
    assert found == pytest.approx(by_formula(outputs, beta, desirable, undesirable), abs=1e-6)


def test_log_probabilities_of_own_and_mismatched_completions(backbone):  # noqa: F811
    objective = kto(backbone)
    expected = [
        [by_hand(objective, backbone, prompt, completion) for completion in both]
        for prompt, *both in zip(PROMPTS, CHOSEN, REJECTED)
    ]
    found = objective.reference(backbone, rated_batch())
    assert found.tolist() == [pytest.approx(row, abs=1e-5) for row in expected]


def test_the_reference_point_has_no_gradient(backbone):  # noqa: F811
    objective, batch = kto(backbone), rated_batch()
    batch.reference = torch.full((2, 2), -50.0)  # so that the point is above 0
    output = objective.step(backbone, batch)
    assert output.measures["reference_point"] > 0
    output.loss.backward()
    found = [value.grad.clone() for value in backbone.parameters()]
    backbone.zero_grad()
    point = output.measures["reference_point"]
    own = objective.log_probabilities(backbone, batch)[:, 0]
    relative = 0.1 * (own + 50) - point
    ((1 - torch.sigmoid(relative[0]) + 1 - torch.sigmoid(-relative[1])) / 2).backward()
    torch.testing.assert_close([value.grad for value in backbone.parameters()], found)


def test_measures_of_all_rows_do_not_depend_on_batches(backbone):  # noqa: F811
    outputs = -20 * torch.rand(30, 5)
    outputs[:, 1], outputs[:, 2] = outputs[:, 4] + 2 * torch.rand(30), torch.arange(30) < 10
    metrics = kto(backbone, beta=0.5).metrics()
    assert set(metrics) == {"loss", *MEASURES}
    for part in (outputs[:7], outputs[7:]):
        for metric in metrics.values():
            metric.update(part, None)
    rewards, point = 0.5 * (outputs[:, 0] - outputs[:, 3]), 0.5 * (outputs[:, 1] - outputs[:, 4]).mean()
    right = (rewards[:10] > point).sum() + (rewards[10:] < point).sum()
    expected = {
        "loss": by_formula(outputs, 0.5, 1, 1),
        "margin": (rewards[:10].mean() - rewards[10:].mean()).item(),
        "accuracy": right.item() / 30,
        "desirable_reward": rewards[:10].mean().item(),
        "undesirable_reward": rewards[10:].mean().item(),
        "reference_point": point.item(),
    }
    assert {name: metric.compute().item() for name, metric in metrics.items()} == pytest.approx(expected, abs=1e-5)


def test_loss_starts_at_a_half_and_falls(backbone):  # noqa: F811
    objective, batch = kto(backbone), rated_batch()
    with torch.no_grad():
        batch.reference = objective.reference(backbone, batch)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], lr=1e-2)
    losses = []
    for _ in range(10):
        output = objective.step(backbone, batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(output.loss.item())
    assert losses[0] == pytest.approx(0.5, abs=1e-7)
    assert losses[-1] < 0.47
    assert objective.measures.of(output.outputs.detach(), "margin") > 0
