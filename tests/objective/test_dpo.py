"""Preference optimization: log-probabilities, losses and measures against their formulas."""

import math

import pytest
import torch
from torch.nn import functional as F

from warmstart.backbone.transformer import Transformer
from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec, Vocabulary
from warmstart.objective.dpo import DPO, MEASURES, preference
from warmstart.objective.log_probabilities import NONE
from warmstart.training.components import build

SPEC = Spec("text", (12,), vocabulary=Vocabulary(30, padding=0, mask=4, special=(0, 1, 2, 3, 4)))
PROMPTS = [[5, 6, 7], [8, 9]]
CHOSEN, REJECTED = [[10, 11, 12, 13], [14]], [[15], [16, 17, 18]]


@pytest.fixture
def backbone(composed) -> Transformer:
    node = composed("stage=finetune", "experiment=preferences", "data.root=x", "backbone.width=16").backbone
    torch.manual_seed(0)
    return build(node, spec=SPEC).eval()


def dpo(backbone: Transformer, **settings) -> DPO:
    return DPO(backbone, SPEC, preference, **settings).eval()


def make_batch() -> Batch:
    """Return two pairs of conversations as padded rows: all preferred ones first."""
    rows = [prompt + completion for part in (CHOSEN, REJECTED) for prompt, completion in zip(PROMPTS, part)]
    x, y = torch.zeros(4, max(map(len, rows)), dtype=torch.long), torch.full((4, max(map(len, rows))), NONE)
    mask = torch.zeros(x.shape, dtype=torch.bool)
    for number, row in enumerate(rows):
        start = len(PROMPTS[number % 2])
        x[number, : len(row)], mask[number, : len(row)] = torch.tensor(row), True
        y[number, start : len(row)] = torch.tensor(row[start:])
    return Batch(x, y, mask)


@torch.no_grad()
def by_hand(objective: DPO, backbone: Transformer, prompt: list[int], completion: list[int]) -> float:
    """Return the log-probability of a completion, token by token, without padding."""
    total = 0.0
    for number, token in enumerate(completion):
        before = torch.tensor([prompt + completion[:number]])
        total += objective.head(backbone(before).tokens[0, -1]).log_softmax(0)[token].item()
    return total


def test_log_probabilities_are_sums_over_the_tokens_of_the_completion(backbone):
    objective = dpo(backbone)
    expected = [
        [by_hand(objective, backbone, prompt, completion) for prompt, completion in zip(PROMPTS, part)]
        for part in (CHOSEN, REJECTED)
    ]
    found = objective.reference(backbone, make_batch())
    assert found.T.tolist() == [pytest.approx(part, abs=1e-5) for part in expected]


def trl_loss(outputs: torch.Tensor, beta: float, loss_type: str, label_smoothing: float) -> torch.Tensor:
    """Return the losses as DPOTrainer.dpo_loss of trl computes them, with sums of log-probabilities for ipo too."""
    chosen_logps, rejected_logps, ref_chosen_logps, ref_rejected_logps = outputs.unbind(1)
    logits = (chosen_logps - rejected_logps) - (ref_chosen_logps - ref_rejected_logps)
    if loss_type == "ipo":
        return (logits - 1 / (2 * beta)) ** 2
    return -F.logsigmoid(beta * logits) * (1 - label_smoothing) - F.logsigmoid(-beta * logits) * label_smoothing


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo"])
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_losses_equal_those_of_trl(backbone, beta, loss_type, smoothing):
    settings = {"beta": beta, "loss_type": loss_type, "label_smoothing": smoothing}
    if loss_type == "ipo" and smoothing:
        with pytest.raises(UserError, match=r"objective.label_smoothing is for objective.loss_type=sigmoid"):
            dpo(backbone, **settings)
        return
    outputs = -20 * torch.rand(50, 4)
    torch.testing.assert_close(dpo(backbone, **settings).values(outputs, "loss"), trl_loss(outputs, **settings))


def test_measures_are_rewards_against_the_reference(backbone):
    objective = dpo(backbone, beta=0.5)
    outputs = torch.tensor([[-4.0, -3.0, -6.0, -2.0], [-5.0, -9.0, -5.0, -9.0]])
    expected = {
        "chosen_reward": [1.0, 0.0],
        "rejected_reward": [-0.5, 0.0],
        "margin": [1.5, 0.0],
        "accuracy": [1.0, 0.0],
        "ranking_accuracy": [0.0, 1.0],
    }
    metrics = objective.metrics()
    assert set(metrics) == set(MEASURES) == set(expected)
    for name, values in expected.items():
        assert objective.values(outputs, name).tolist() == values
        metrics[name].update(outputs, None)
        assert metrics[name].compute() == pytest.approx(sum(values) / 2)


def test_chunks_do_not_change_loss_and_gradients(backbone):
    found = []
    for chunk in (2, 100):
        torch.manual_seed(1)
        objective, batch = dpo(backbone, chunk=chunk), make_batch()
        batch.reference = torch.full((2, 2), -10.0)
        backbone.zero_grad()
        output = objective.step(backbone, batch)
        output.loss.backward()
        found.append([output.loss.detach(), *(value.grad.clone() for value in backbone.parameters())])
    torch.testing.assert_close(*found)


def test_loss_starts_at_log_2_and_falls(backbone):
    objective, batch = dpo(backbone), make_batch()
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
    assert losses[0] == pytest.approx(math.log(2), abs=1e-7)
    assert losses[-1] < 0.6
    assert output.measures["accuracy"] == 1
    assert output.measures["margin"] == output.measures["chosen_reward"] - output.measures["rejected_reward"]
