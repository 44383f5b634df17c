"""CTC decoding: prefix beam search, n-gram language model, and word times."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tests.objective.test_ctc import SPEC, Given, saying
from torch import nn

from warmstart.core.batch import Batch
from warmstart.core.errors import UserError
from warmstart.loss.ctc import ctc
from warmstart.objective.beam import NGram, search
from warmstart.objective.ctc import CTC, align
from warmstart.run.saved import load_weights

TEXTS = torch.tensor([[0, 1, 1, 2], [0, 1, 2, -1], [0, 2, -1, -1], [0, 1, 1, 1]])


def lattices(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, 5, 4, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def alignments(lattice: torch.Tensor) -> dict[tuple[int, ...], list[float]]:
    """The log-probabilities of all paths (T, C + 1), by label sequence."""
    values_by_labels: dict[tuple[int, ...], list[float]] = {}
    for path in itertools.product(range(lattice.shape[1]), repeat=len(lattice)):
        labels = tuple(label for label, _ in itertools.groupby(path) if label != lattice.shape[1] - 1)
        value = sum(float(lattice[place, label]) for place, label in enumerate(path))
        values_by_labels.setdefault(labels, []).append(value)
    return values_by_labels


def log_sum(values: list[float]) -> float:
    return math.log(sum(map(math.exp, values)))


def fitted(order: int, texts: torch.Tensor = TEXTS) -> NGram:
    ngram = NGram(order, 3)
    ngram.fit(texts)
    return ngram


def log_probability(ngram: NGram, labels: tuple[int, ...]) -> float:
    state, total = int(ngram.following[0, 3]), 0.0
    for label in (*labels, 3):
        total, state = total + float(ngram.logs[state, label]), int(ngram.following[state, label])
    return total


@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_wide_beam_finds_the_most_probable_labels_over_all_alignments(order: int):
    ngram = fitted(order) if order else None
    outputs = lattices(12)
    found = search(outputs, 400, ngram, 0.7)
    for lattice, labels in zip(outputs, found):
        totals = {text: log_sum(paths) for text, paths in alignments(lattice).items()}
        if ngram is not None:
            totals = {text: total + 0.7 * log_probability(ngram, text) for text, total in totals.items()}
        assert totals[tuple(labels)] == pytest.approx(max(totals.values()), abs=1e-4)


def test_a_narrow_beam_reads_what_the_best_path_misses():
    lattice = torch.tensor([[[0.4, 0.0, 0.0, 0.6]] * 2]).clamp(min=1e-6).log()
    assert made().decode(lattice) == [""]  # 0.36
    assert search(lattice, 2) == [[0]]  # 0.64


def test_a_batch_is_read_as_each_of_its_rows_alone():
    outputs = lattices(7)
    ngram = fitted(2)
    assert search(outputs, 4, ngram, 0.5) == [search(row[None], 4, ngram, 0.5)[0] for row in outputs]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_probabilities_of_an_ngram_sum_to_one_and_know_the_texts(order: int):
    ngram = fitted(order)
    torch.testing.assert_close(ngram.logs.exp().sum(1), torch.ones(len(ngram.logs)))
    if order > 1:
        assert log_probability(ngram, (0, 1, 2)) > log_probability(ngram, (2, 1, 0)) + 1


def test_an_ngram_is_smoothed_as_witten_and_bell_say():
    ngram = fitted(2, torch.tensor([[0, 1], [0, 0]]))  # after 0: 0, 1 and the boundary, once each
    unigram = [(3 + 3 / 4) / 9, (1 + 3 / 4) / 9, (0 + 3 / 4) / 9, (2 + 3 / 4) / 9]
    state = int(ngram.following[int(ngram.following[0, 3]), 0])
    expected = [(count + 3 * share) / 6 for count, share in zip([1, 1, 0, 1], unigram)]
    torch.testing.assert_close(ngram.logs[state].exp(), torch.tensor(expected))


def test_labels_are_placed_on_the_best_path_that_says_them():
    outputs = lattices(12, seed=2)
    texts = [[0, 0], [1, 2], [2], [], [0, 1, 0], [1, 1, 1]] * 2
    for lattice, text, spans in zip(outputs, texts, align(outputs, texts)):
        assert [label for label, *_ in spans] == text
        path = [3] * 5
        for label, first, last, _ in spans:
            path[first : last + 1] = [label] * (last + 1 - first)
        value = sum(float(lattice[place, label]) for place, label in enumerate(path))
        assert value == pytest.approx(max(alignments(lattice)[tuple(text)]), abs=1e-5)
        for label, first, last, mean in spans:
            assert mean == pytest.approx(float(lattice[first : last + 1, label].mean()), abs=1e-5)


def made(**settings: float) -> CTC:
    objective = CTC(Given(), SPEC, ctc, **settings)
    objective.head = nn.Identity()
    return objective


def test_the_training_texts_decide_between_what_sounds_alike_also_after_reload():
    scores = saying("▁a-▁b-")
    scores[0, 1] = scores[0, 4] = torch.tensor([0.0, 10.0, 10.2, 0.0])  # a or b, rather b
    batch = Batch(scores)
    alone, helped = made(beam=5), made(beam=5, ngram=3)
    helped.fit(torch.tensor([[0, 1, 0, 1]] * 5 + [[0, 1, 0, 2]]))
    outputs = helped.predict(Given(), batch)
    assert alone.decode(outputs) == ["b b"]
    assert helped.decode(outputs) == ["a a"]
    restored = made(beam=5, ngram=3)
    load_weights(restored, helped.state_dict(), "a run")
    assert restored.decode(outputs) == ["a a"]
    (answer,) = restored.to_records(outputs, batch, SPEC)
    assert answer["words"] == [{"word": "a", "start": 0.0, "end": 1.0}, {"word": "a", "start": 1.5, "end": 2.5}]
    assert 0 < answer["confidence"] < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ngram": 3}, "set objective.beam too"),
        ({"beam": 2, "ngram": 9}, "the longest training text has 4 labels; give at most 5"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], message: str):
    with pytest.raises(UserError, match=message):
        made(**settings).fit(TEXTS)
