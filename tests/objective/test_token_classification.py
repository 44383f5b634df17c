"""Token classification: alignment of words and tokens, and training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torchmetrics import MetricCollection

from warmstart.core import protocols
from warmstart.core.batch import Batch, Features
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec
from warmstart.data.loader import GatherLoader, take
from warmstart.data.preprocess.text import Preprocessor
from warmstart.data.preprocess.tokenizing import MODELS
from warmstart.data.storage.ragged import Ragged
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.loss.focal import focal
from warmstart.main import CONF
from warmstart.objective.token_classification import TokenClassification
from warmstart.training.components import build

LABELS = ("B-PER", "I-PER", "O")
SENTENCES = [
    (["Ada", "Brook", "came", "from", "Leeds", "."], [0, 1, 2, 2, 2, 2]),
    (["nobody", "saw", "Ada"], [2, 2, 0]),
    (["In", "Leeds", ",", "unforgettably", "Brook", "spoke"], [2, 2, 2, 2, 0, 2]),
    (["Brook"], [0]),
]


class Tiny(protocols.Backbone, nn.Module):
    """Attention over at most 64 tokens."""

    width = 32

    def __init__(self, vocabulary: int):
        super().__init__()
        self.embed, self.place = nn.Embedding(vocabulary, 32), nn.Embedding(64, 32)
        self.block = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True, norm_first=True)

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        tokens = self.embed(x) + self.place.weight[: x.shape[1]]
        tokens = self.block(tokens, src_key_padding_mask=None if mask is None else ~mask)
        return Features(tokens, tokens.mean(1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))


def frame(sentences: list[list[str]]) -> pd.DataFrame:
    return pd.DataFrame({"text": pd.Series(sentences, dtype=object)})


def fitted(model: str = "wordpiece", size: int = 60, context: int = 64) -> Preprocessor:
    preprocessor = Preprocessor(model, 300 if model == "bpe" else size, context, 0)
    preprocessor.fit(frame([words for words, _ in SENTENCES]))
    return preprocessor


def aligned(preprocessor: Preprocessor, sentences: list[tuple] = SENTENCES) -> tuple[Ragged, Ragged]:
    y = np.empty(len(sentences), dtype=object)
    y[:] = [tags for _, tags in sentences]
    return preprocessor.align(frame([words for words, _ in sentences]), y, "tags")


def set_up(loss=cross_entropy, labels: tuple[str, ...] = LABELS) -> tuple[nn.Module, TokenClassification, Batch]:
    torch.manual_seed(0)
    preprocessor = fitted()
    x, y = aligned(preprocessor)
    backbone = Tiny(preprocessor.vocabulary.size)
    node = OmegaConf.load(CONF / "objective" / "token_classification.yaml")
    objective = build(node, backbone=backbone, spec=Spec("text", (64,), labels), loss=loss)
    return backbone, objective, take(x, y, slice(0, len(SENTENCES)))


def measured(objective: TokenClassification, outputs: Tensor, y: Tensor) -> dict[str, float]:
    metrics = MetricCollection(objective.metrics(), compute_groups=False)
    return {name: value.item() for name, value in metrics(outputs, y).items()}


@pytest.mark.parametrize("model", sorted(MODELS))
def test_each_words_first_token_carries_its_class_and_nothing_else_does(model: str):
    preprocessor = fitted(model)
    x, y = aligned(preprocessor)
    batch = take(x, y, slice(0, len(SENTENCES)))
    assert batch.x.shape == batch.y.shape
    for row, (words, tags) in enumerate(SENTENCES):
        where = torch.where(batch.y[row] != -100)[0].tolist()
        assert batch.y[row, where].tolist() == tags
        end = batch.x[row].tolist().index(preprocessor.vocabulary.end)
        pieces = [batch.x[row, a:b].tolist() for a, b in zip(where, [*where[1:], end])]
        assert where[0] == 1
        assert [preprocessor.decode(piece).replace(" ", "").lower() for piece in pieces] == [w.lower() for w in words]


def test_byte_level_words_are_tokenized_as_in_running_text():
    preprocessor = fitted("bpe")
    words = pd.DataFrame({"text": [" ".join(words) for words, _ in SENTENCES]})
    running = preprocessor.encode(words)
    assert torch.equal(aligned(preprocessor)[0].padded(slice(0, 3))[0], running.padded(slice(0, 3))[0])


def test_a_word_that_the_tokenizer_drops_still_counts():
    sentences = [(["Ada", "\u200d\u200b", "came"], [0, 1, 2]), (["\u0007"], [1])]
    x, y = aligned(fitted(), sentences)
    batch = take(x, y, slice(0, 2))
    assert [row[row != -100].tolist() for row in batch.y] == [[0, 1, 2], [1]]
    without = fitted()
    without.roles = {**without.roles, "unknown": None}
    with pytest.raises(UserError, match=r"row 2: word 1 .* has no tokens"):
        aligned(without, [(["Ada"], [0]), (["\u0007"], [1])])


def test_rows_that_are_cut_off_keep_the_classes_of_the_words_that_are_left():
    preprocessor = fitted(context=8)
    long = (["Ada", "saw", "Brook"] * 10, [0, 2, 1] * 10)
    batch = take(*aligned(preprocessor, [long, *SENTENCES[3:]]), slice(0, 2))
    assert batch.x.shape == batch.y.shape == (2, 8)
    assert batch.x[0, -1] == preprocessor.vocabulary.end
    assert batch.y[0, 0] == batch.y[0, -1] == -100
    kept = batch.y[0][batch.y[0] != -100].tolist()
    assert kept == long[1][: len(kept)]
    assert kept
    assert batch.y[1][batch.y[1] != -100].tolist() == [0]


def test_classes_follow_their_words_through_a_shuffled_loader():
    x, y = aligned(fitted(), [(words, [len(word) for word in words]) for words, _ in SENTENCES] * 5)
    seen = []
    for batch in GatherLoader(x, y, 3, seed=1):
        assert batch.x.shape == batch.y.shape
        seen += [tuple(row[row != -100].tolist()) for row in batch.y]
    assert sorted(seen) == sorted([tuple(map(len, words)) for words, _ in SENTENCES] * 5)


def test_a_tiny_model_learns_the_sentences_and_labels_new_ones_word_by_word():
    backbone, objective, batch = set_up()
    optimizer = torch.optim.AdamW([*backbone.parameters(), *objective.parameters()], lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        objective.step(backbone, batch).loss.backward()
        optimizer.step()
    with torch.no_grad():
        outputs = objective.predict(backbone, batch)
    assert set(measured(objective, outputs, batch.y).values()) == {1.0}
    unlabelled = pd.DataFrame({"text": [" ".join(words) for words, _ in SENTENCES]})
    new = take(*fitted().align(unlabelled, None, "tags"), slice(0, len(SENTENCES)))
    with torch.no_grad():
        answers = objective.to_records(objective.predict(backbone, new), new, Spec("text", (64,), LABELS))
    assert [answer["labels"] for answer in answers] == [[LABELS[tag] for tag in tags] for _, tags in SENTENCES]
    for raw in (unlabelled, unlabelled.map(str.split)):
        located = [answer["entities"] for answer in fitted().locate(raw, answers)]
        assert located[0] == [{"text": "Ada Brook", "type": "PER", "start": 0, "end": 9}]
        assert located[1] == [{"text": "Ada", "type": "PER", "start": 11, "end": 14}]


def test_an_entity_counts_only_with_its_type_and_both_ends():
    objective = set_up()[1]
    # B-PER I-PER O as B-PER O O, and B-PER as B-PER: 3 of 4 words, and 1 of 2 entities
    y = torch.tensor([[-100, 0, 1, 2, -100], [-100, 0, -100, -100, -100]])
    outputs = torch.eye(3)[torch.tensor([[0, 0, 2, 2, 1], [1, 0, 0, 0, 0]])]
    found = measured(objective, outputs, y)
    assert objective.monitor == ("val/f1", "max")
    assert found.pop("accuracy") == 0.75
    assert found == dict.fromkeys(("precision", "recall", "f1", "precision_PER", "recall_PER", "f1_PER"), 0.5)
    assert objective.scores(outputs, y).tolist() == [[0, 2], [2, 2]]


def test_tags_that_mark_no_entities_are_measured_by_word():
    objective = set_up(labels=("ADJ", "NOUN", "VERB"))[1]
    y = torch.tensor([[-100, 0, 1, -100], [-100, 2, -100, -100]])
    outputs = torch.eye(3)[torch.tensor([[0, 0, 2, 1], [1, 2, 0, 0]])]
    found = measured(objective, outputs, y)
    assert found == pytest.approx({"accuracy": 2 / 3, "f1": 2 / 3, "macro_f1": (1 + 0 + 2 / 3) / 3})
    assert objective.scores(outputs, y).tolist() == [[1, 2], [1, 1]]
    assert "entities" not in objective.to_records(outputs, Batch(y, y), Spec("text", (4,)))[0]


@pytest.mark.parametrize("loss", [cross_entropy, focal])
def test_the_loss_is_over_words_alone(loss):
    backbone, objective, batch = set_up(loss)
    output = objective.step(backbone, batch)
    assert output.count == sum(len(words) for words, _ in SENTENCES)
    assert output.outputs.shape == (*batch.x.shape, 3)
    logits = objective.head(backbone(batch.x, batch.mask).tokens)
    at = batch.y != -100
    assert output.loss.item() == pytest.approx(loss(logits[at], batch.y[at]).mean().item(), rel=1e-5)
