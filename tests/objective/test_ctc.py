"""CTC: the loss, greedy decoding, and error rates."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from warmstart.core import protocols
from warmstart.core.batch import Batch, Features
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec
from warmstart.loss.ctc import ctc
from warmstart.objective.ctc import CTC
from warmstart.objective.scores import edits

SPEC = Spec("speech", (9, 2, 4), labels=("▁", "a", "b"), seconds=0.5)


class Given(protocols.Backbone, nn.Module):
    """A backbone whose features are its inputs."""

    width = 4

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> Features:
        return Features(x, x.mean(1))


def made() -> CTC:
    objective = CTC(Given(), SPEC, ctc)
    objective.head = nn.Identity()
    return objective


def saying(labels: str) -> torch.Tensor:
    """Features (1, T, 4) that all but say ▁, a, b, or the blank (-)."""
    return 20.0 * torch.eye(4)[["▁ab-".index(label) for label in labels]][None]


def test_the_loss_is_the_sum_over_all_alignments():
    torch.manual_seed(0)
    outputs = torch.randn(1, 4, 3).log_softmax(-1)
    target = [0, 1]
    total = 0.0
    for path in itertools.product(range(3), repeat=4):
        read = [label for label, _ in itertools.groupby(path) if label != 2]
        if read == target:
            total += float(sum(outputs[0, place, label] for place, label in enumerate(path)).exp())
    found = ctc(outputs, torch.tensor([[*target, -1]]))
    torch.testing.assert_close(found, -torch.tensor([total]).log() / 2)


def test_padding_changes_neither_the_loss_nor_the_text():
    objective = made()
    short = torch.randn(1, 5, 4)
    padded = torch.cat([short, 50 * torch.randn(1, 4, 4)], 1)
    mask = torch.arange(9)[None] < 5
    y = torch.tensor([[1, 2]])
    alone, together = objective.step(Given(), Batch(short, y)), objective.step(Given(), Batch(padded, y, mask))
    torch.testing.assert_close(alone.loss, together.loss)
    assert objective.decode(alone.outputs) == objective.decode(together.outputs)


def test_a_text_is_read_with_its_words_in_time():
    objective = made()
    outputs = objective.predict(Given(), Batch(saying("▁aa-a-▁b-")))
    assert objective.decode(outputs) == ["aa b"]
    (answer,) = objective.to_records(outputs, Batch(saying("▁aa-a-▁b-")), SPEC)
    assert answer["words"] == [{"word": "aa", "start": 0.0, "end": 2.5}, {"word": "b", "start": 3.0, "end": 4.0}]
    assert answer["confidence"] > 0.99
    (silence,) = objective.to_records(objective.predict(Given(), Batch(saying("---"))), Batch(saying("---")), SPEC)
    assert silence == {"text": "", "confidence": 0.0, "words": []}


def test_errors_are_counted_by_kind_over_all_words():
    objective = made()
    errors = objective.metrics()["errors"]
    outputs = objective.predict(Given(), Batch(saying("▁a▁a▁b-")))
    errors.update(outputs, torch.tensor([[0, 1, 0, 2, -1]]))  # a b
    found = {name: float(value) for name, value in errors.compute().items()}
    assert found == pytest.approx({"wer": 0.5, "cer": 2 / 3, "substitutions": 0, "deletions": 0, "insertions": 0.5})
    assert edits(["one", "two", "three"], ["one", "too"]) == (1, 1, 0)
    assert edits([], ["a"]) == (0, 0, 1)


def test_a_trained_head_is_taken_over_label_by_label_in_either_case_or_left_alone():
    theirs = nn.Linear(4, 6)
    head = {f"head.{name}": value for name, value in theirs.state_dict().items()}
    objective = CTC(Given(), SPEC, ctc)
    assert objective.load_head(head, ("B", "c", "<unk>", "▁", "A"))
    x = torch.randn(2, 3, 4)
    assert torch.allclose(objective.head(x), theirs(x)[..., [3, 4, 0, 5]])
    before = objective.head.weight.clone()
    for labels in (("B", "c", "<unk>", "▁", "x"), ("a", "b", "▁"), ()):
        assert not objective.load_head(head, labels)
    assert torch.equal(objective.head.weight, before)
    both = CTC(Given(), Spec("speech", (9,), labels=("A", "a", "▁")), ctc)
    assert not both.load_head(head, ("A", "b", "c", "▁", "d"))  # one row cannot stand for two labels


def test_labels_are_read_by_transformers_and_pieces_of_words_are_not_written(tmp_path: Path):
    from transformers import Wav2Vec2CTCTokenizer

    objective = made()
    objective.export(tmp_path)
    tokenizer = Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    outputs = objective.predict(Given(), Batch(saying("▁aa-ab--▁▁b")))
    assert tokenizer.decode(outputs[0].argmax(-1)) == objective.decode(outputs)[0] == "aab b"
    with pytest.raises(UserError, match=r"data\.pieces=null"):
        CTC(Given(), Spec("speech", (9,), labels=("▁", "a", "▁a")), ctc).export(tmp_path)
