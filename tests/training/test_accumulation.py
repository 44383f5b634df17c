"""Accumulated batches give the step of one large batch, for losses that are means over examples."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from tests.objective import test_span_qa as questions
from tests.objective.test_objectives import OBJECTIVES, TOKENS, class_of, compose_backbone, set_up
from torch import Tensor, nn

from warmstart.core import protocols
from warmstart.core.batch import Batch, Features
from warmstart.core.spec import Spec, Vocabulary
from warmstart.data.loader import GatherLoader, take
from warmstart.data.transforms.augment import Augment
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.main import CONF
from warmstart.objective.classification import Classification
from warmstart.objective.token_classification import NONE
from warmstart.strategy.full import Full
from warmstart.strategy.l2_sp import L2SP
from warmstart.training.callbacks.curves import Curves
from warmstart.training.components import build
from warmstart.training.modules import FinetuneModule, PretrainModule
from warmstart.training.schedule import constant

# An example's loss depends on the others of its batch, which a batch half as large has fewer of.
OF_BATCHES = ("byol", "contrastive", "emp_ssl", "supervised_contrastive", "vicreg")
SIZE = 4  # examples of an accumulated batch, two of which are a step
RATE = 0.05
Take = Callable[[slice], Batch]


class Loader:
    """The examples in order, in batches of one size, of which the last may be smaller."""

    def __init__(self, pick: Take, rows: int, size: int):
        self.pick, self.rows, self.size = pick, rows, size

    def __len__(self) -> int:
        return -(-self.rows // self.size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.rows, self.size):
            yield self.pick(slice(start, min(start + self.size, self.rows)))


def example(name: str) -> tuple[nn.Module, nn.Module, Take, int]:
    """Backbone, objective and a number of examples, which are of different lengths where they are made of tokens."""
    if name == "span_qa":
        asked = [("Who came?", "Ada Brook came.", ["Ada Brook"]), *questions.ROWS]  # in one window, and in several
        backbone, objective, _ = questions.set_up(asked)
        preprocessor = questions.Preprocessor("wordpiece", 400, 36, 8)
        x = pd.DataFrame({"text": [row[0] for row in asked], "pair": [row[1] for row in asked]})
        preprocessor.fit(x)
        y = pd.Series([[(gold, row[1].index(gold)) for gold in row[2]] for row in asked]).to_numpy()
        inputs, targets = preprocessor.align(x, y, "span")
        return backbone, objective, lambda rows: take(inputs, targets, rows), len(x)
    if name == "token_classification":
        torch.manual_seed(0)
        vocabulary = Vocabulary(30, padding=0, mask=4, special=(0, 1, 2, 3, 4))
        spec = Spec("text", (16,), ("a", "b", "c"), vocabulary=vocabulary)
        backbone = build(compose_backbone("tiny"), spec=spec)
        node = OmegaConf.load(CONF / "objective" / f"{name}.yaml")
        objective = build(node, backbone=backbone, spec=spec, loss=cross_entropy)
    else:
        backbone, objective, _ = set_up(name)
    rows = 18
    generator = torch.Generator().manual_seed(1)
    if name in TOKENS or name == "token_classification":
        x = torch.randint(5, 30, (rows, 16), generator=generator)
        mask = torch.arange(16) < torch.randint(4, 17, (rows, 1), generator=generator)
        x = x.masked_fill(~mask, 0)
    else:
        x, mask = torch.randn(rows, 1, 8, 8, generator=generator), None
    y = {
        None: None
        if objective.teacher_output is None
        else torch.randn(rows, *((17,) if name in TOKENS else ()), 3, generator=generator),
        "category": torch.arange(rows) % 3,
        "categories": torch.randint(0, 2, (rows, 3), generator=generator).float(),
        "value": torch.randn(rows, 3, generator=generator, dtype=torch.float64),
        "text": torch.arange(rows)[:, None] % 3,
        "tags": torch.randint(0, 3, (rows, 16), generator=generator),
    }[objective.target]
    if name == "token_classification":
        y = y.masked_fill(torch.rand(y.shape, generator=generator) < 0.5, NONE).masked_fill(~mask, NONE)

    def pick(part: slice) -> Batch:
        return Batch(x[part], None if y is None else y[part], None if mask is None else mask[part])

    return backbone, objective, pick, rows


def module_of(backbone: nn.Module, objective: nn.Module, strategy: object = None) -> pl.LightningModule:
    optimizer = functools.partial(torch.optim.SGD, lr=RATE)
    own = {
        "optimizer": optimizer,
        "scheduler": constant,
        "augment": Augment(protocols.Preprocessor()),
        "seed": 0,
    }
    if objective.monitor is not None:
        strategy = strategy or Full()
        strategy.prepare(backbone)
        return FinetuneModule(backbone, objective, strategy, **own)
    return PretrainModule(backbone, objective, **own)


class Steps(pl.Callback):
    """The weights and the loss after each optimizer step."""

    def __init__(self) -> None:
        self.weights: list[Tensor] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args) -> None:
        if trainer.global_step > len(self.weights):
            self.note(pl_module, pl_module.step_loss)

    def note(self, module: nn.Module, loss: Tensor | float) -> None:
        trained = (value for _, value in sorted(module.named_parameters()) if value.requires_grad)
        self.weights.append(torch.cat([value.detach().flatten() for value in trained]))
        self.losses.append(float(loss))


def trained(module: pl.LightningModule, loader: object, accumulate: int, **settings) -> Steps:
    steps = Steps()
    trainer = pl.Trainer(
        max_epochs=1,
        accumulate_grad_batches=accumulate,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[steps],
        **settings,
    )
    trainer.fit(module, loader)
    return steps


@pytest.fixture
def not_random(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Noise and masks are functions of the position in an example, so that batches of any size have the same ones."""

    def rand(*shape, **settings) -> Tensor:
        size = shape[0] if isinstance(shape[0], (tuple, torch.Size)) else shape
        return ((torch.arange(size[-1]) * 7 + 3) % size[-1] / size[-1]).expand(size).clone()

    monkeypatch.setattr(torch, "rand", rand)
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.arange(x[0].numel()).view(x[0].shape).sin().expand_as(x))
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


def same(one: Steps, other: Steps) -> None:
    assert len(one.weights) == len(other.weights) > 1
    for ours, theirs in zip(one.weights, other.weights):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=2e-6)
    assert one.losses == pytest.approx(other.losses, rel=1e-4)


@pytest.mark.parametrize("name", [*OBJECTIVES, "span_qa", "token_classification"])
def test_every_objective(name: str, not_random):
    small, count = (1, 4) if name == "span_qa" else (SIZE, 2)
    backbone, objective, pick, rows = example(name)
    views = module_of(backbone, objective).views
    counts = {objective.step(backbone, views(batch)).count for batch in Loader(pick, rows, small)}
    counts_tokens = name in (*TOKENS, "token_classification") and objective.teacher_output is None
    assert len(counts) > (2 if counts_tokens else 1)

    def run(size: int, accumulate: int) -> Steps:
        backbone, objective, pick, rows = example(name)
        objective.swap = objective.keep = 0.0  # which positions are swapped with which depends on the batch
        return trained(module_of(backbone, objective), Loader(pick, rows, size), accumulate)

    accumulated = run(small, count)
    same(accumulated, by_hand(name) if name in OF_BATCHES else run(small * count, 1))


def by_hand(name: str) -> Steps:
    """Two batches a step, and the mean of their losses over all their examples."""
    backbone, objective, pick, rows = example(name)
    module, found = module_of(backbone, objective), Steps()
    optimizer = torch.optim.SGD((value for value in module.parameters() if value.requires_grad), lr=RATE)
    batches = [module.views(batch) for batch in Loader(pick, rows, SIZE)]
    for group in (batches[:2], batches[2:4], batches[4:]):
        objective.on_step_start(backbone)
        outputs = [objective.step(backbone, batch) for batch in group]
        loss = sum(output.loss * output.count for output in outputs) / sum(output.count for output in outputs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.note(module, loss)
    return found


class Line(protocols.Backbone, nn.Module):
    """One layer."""

    width = 6

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 6)

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        return Features(x[:, None], self.layer(x).tanh())

    def depths(self) -> dict[str, int]:
        return {"layer": 0}


def rows_of(size: int, accumulate: int, strategy: object = None, rows: int = 84, **settings) -> Steps:
    """84 rows in the order of one seed, which does not depend on the size of a batch."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(rows, 5, generator=generator), torch.arange(rows) % 3
    backbone = Line()
    objective = Classification(backbone, Spec("vector", (5,), ("a", "b", "c")), cross_entropy)
    return trained(module_of(backbone, objective, strategy), GatherLoader(x, y, size, 3), accumulate, **settings)


@pytest.mark.parametrize("rows", [84, 81, 89, 97, 7])
def test_the_last_step_is_as_large_as_that_of_a_large_batch(rows: int):
    ours, theirs = rows_of(8, 2, rows=rows), rows_of(16, 1, rows=rows)
    assert len(ours.weights) == -(-rows // 16) - (rows % 16 == 1)
    for one, other in zip(ours.weights, theirs.weights):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
    if rows == 84:
        lengths = [(steps.weights[5] - steps.weights[4]).norm().item() for steps in (ours, theirs)]
        assert lengths[0] == pytest.approx(lengths[1], rel=1e-4)  # half as long where 4 rows count as 8


@pytest.mark.parametrize(
    ("settings", "strategy"),
    [
        ({"gradient_clip_val": 0.05}, None),
        ({}, lambda: L2SP(alpha=0.5, beta=0.5)),
        ({"precision": "64-true"}, None),
        ({"precision": "bf16-mixed"}, None),
    ],
    ids=["clipped", "l2_sp", "64-true", "bf16-mixed"],
)
def test_what_else_acts_on_a_step(settings: dict, strategy: Callable | None, monkeypatch: pytest.MonkeyPatch):
    ours, theirs = (rows_of(size, count, strategy and strategy(), 84, **settings) for size, count in ((4, 4), (16, 1)))
    tolerance = 2e-3 if settings.get("precision") == "bf16-mixed" else 1e-5
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        assert torch.allclose(one, other, rtol=tolerance, atol=tolerance)
    assert ours.losses == pytest.approx(theirs.losses, rel=10 * tolerance)


def test_curves_hold_one_loss_for_each_step(monkeypatch: pytest.MonkeyPatch):
    logged: list[tuple[int, float]] = []

    class Logger:
        def log_metrics(self, values: dict, step: int) -> None:
            logged.append((step, values["train/loss_step"]))

    monkeypatch.setattr(pl.Trainer, "logger", property(lambda self: Logger()))
    curves = Curves(2)
    monkeypatch.setattr(Steps, "on_train_batch_end", curves.on_train_batch_end)
    monkeypatch.setattr(Steps, "on_train_start", curves.on_train_start)
    rows_of(8, 2)
    accumulated = list(logged)
    logged.clear()
    curves.step = 0
    rows_of(16, 1)
    assert [step for step, _ in accumulated] == [2, 4, 6]
    assert [loss for _, loss in accumulated] == pytest.approx([loss for _, loss in logged], rel=1e-5)


def test_a_batch_without_values_adds_nothing():
    backbone, objective, _, _ = example("quantized")
    hidden_nowhere = Batch(torch.randn(2, 1, 8, 8))
    backbone.maskable = lambda x: torch.zeros(2, 4, dtype=torch.bool)
    output = objective.step(backbone, hidden_nowhere)
    assert (output.loss.item(), output.count) == (0.0, 0)


def test_all_objectives_are_in_this_test():
    for path in (CONF / "objective").glob("*.yaml"):
        assert path.stem in (
            *OBJECTIVES,
            "span_qa",
            "token_classification",
            "completion",
            "dpo",
            "kto",
            "seq2seq",
            "transcription",
        ), class_of(path.stem)
