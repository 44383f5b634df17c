"""Scores of entities equal those of seqeval, and their variance is that of a bootstrap of the sentences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import MetricCollection

from warmstart.core.batch import Features
from warmstart.core.spec import Spec
from warmstart.core.tags import first_invalid, repaired, scheme_of
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.token_classification import NONE, TokenClassification
from warmstart.report.paired import bootstrap_weights, summary
from warmstart.run.scores import linearized

SCHEMES = {
    scheme: ("O", *(f"{letter}-{kind}" for letter in letters for kind in ("LOC", "ORG", "a-b")))
    for scheme, letters in (("BIO", "BI"), ("BIOES", "BIES"))
}


class Width:
    """What a head needs of a backbone."""

    width = 4

    def head(self, task: str, outputs: int) -> None:
        return None

    def __call__(self, x: Tensor, mask: Tensor | None = None) -> Features:
        return Features(x, x)


def objective(labels: tuple[str, ...]) -> TokenClassification:
    return TokenClassification(Width(), Spec("text", (8,), labels), cross_entropy)


def random_case(labels: tuple[str, ...], rng: np.random.Generator, count: int = 4) -> tuple[Tensor, Tensor]:
    """Return the logits and the targets of sentences with random tags, of which most sequences are invalid."""
    y = rng.integers(len(labels), size=(count, 12))
    y[np.arange(12) >= rng.integers(1, 13, size=(count, 1))] = NONE
    copied = rng.random(y.shape) < 0.7
    predicted = np.where(copied & (y != NONE), y, rng.integers(len(labels), size=y.shape))
    return torch.eye(len(labels))[torch.from_numpy(predicted)], torch.from_numpy(y)


def test_entity_scores_equal_seqeval_on_random_tags():
    seqeval = pytest.importorskip("seqeval.metrics", reason="seqeval is not installed")
    rng, invalid = np.random.default_rng(0), 0
    for number in range(200):
        labels = SCHEMES["BIO" if number % 2 else "BIOES"]
        task = objective(labels)
        outputs, y = random_case(labels, rng)
        predicted, true = task.words(outputs.argmax(-1), y), task.words(y, y)
        invalid += sum(first_invalid(tags, scheme_of(labels)) is not None for tags in true)
        report = seqeval.classification_report(true, predicted, output_dict=True, zero_division=0)
        expected = {"accuracy": seqeval.accuracy_score(true, predicted)}
        for name, column in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score")):
            expected[name] = report["micro avg"][column]
            expected |= {f"{name}_{kind}": report[kind][column] if kind in report else 0 for kind in task.types}
        found = MetricCollection(task.metrics(), compute_groups=False)(outputs, y)
        assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, abs=1e-6)
        assert linearized(task.scores(outputs, y).numpy()).mean() == pytest.approx(expected["f1"])
    assert invalid > 300


def test_repaired_tags_are_valid_and_have_the_same_entities():
    labelling = pytest.importorskip("seqeval.metrics.sequence_labeling", reason="seqeval is not installed")
    rng = np.random.default_rng(1)
    for scheme, labels in SCHEMES.items():
        for _ in range(100):
            tags = rng.choice(labels, size=rng.integers(1, 12)).tolist()
            valid = repaired(tags, scheme)
            assert first_invalid(valid, scheme) is None
            assert labelling.get_entities(valid) == labelling.get_entities(tags)
            assert repaired(valid, scheme) == valid


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (("B-X", "I-X", "O"), "BIO"),
        (("I-X", "O"), "BIO"),
        (("B-X", "E-X", "O", "S-X"), "BIOES"),
        (("O",), None),
        (("B-X", "I-X", "U-X", "O"), None),
        (("NOUN", "ADJ"), None),
        (("B", "I", "O"), None),
        (("IN", "O"), None),
    ],
)
def test_schemes(labels: tuple[str, ...], scheme: str | None):
    assert scheme_of(labels) == scheme


def test_the_standard_error_of_f1_is_that_of_a_bootstrap_of_the_sentences():
    rng, labels = np.random.default_rng(2), SCHEMES["BIO"]
    task = objective(labels)
    y = random_case(labels, rng, 600)[1]
    arms = [
        [random_case(labels, np.random.default_rng(10 * seed + arm), 600)[0] for seed in range(2)] for arm in (0, 1)
    ]
    parts = np.stack([np.stack([task.scores(outputs, y).numpy() for outputs in arm]) for arm in arms]).astype(float)
    weights = bootstrap_weights(2, 600, 1000)[1].astype(float)
    sums = np.einsum("dn,asnk->dask", weights, parts).mean(2)
    drawn = sums[..., 0] / sums[..., 1]
    scores = np.stack([[linearized(run) for run in arm] for arm in parts])
    assert scores.mean((1, 2)) == pytest.approx((parts[..., 0].sum(-1) / parts[..., 1].sum(-1)).mean(1))
    expected = np.std(drawn[:, 1] - drawn[:, 0])
    by_example = (scores[1] - scores[0]).mean(0)
    assert by_example.std(ddof=1) / np.sqrt(600) == pytest.approx(expected, rel=0.1)
    assert summary(scores[1] - scores[0]).difference == pytest.approx(np.diff(scores.mean((1, 2)))[0])
