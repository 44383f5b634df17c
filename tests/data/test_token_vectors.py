"""Vectors of tokens: counts of neighbours within a text, positive information, and rows of another vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from warmstart.core.errors import UserError
from warmstart.data.preprocess import token_vectors
from warmstart.data.preprocess.token_vectors import cooccurrence, from_cooccurrence, positive_information, translate
from warmstart.data.preprocess.tokenizing import vocabulary

ROLES = {"unknown": "[UNK]"}


def wordpiece(*tokens: str) -> Tokenizer:
    """A tokenizer with these tokens, of which [UNK] is special."""
    names = {token: number for number, token in enumerate(("[UNK]", *tokens))}
    tokenizer = Tokenizer(models.WordPiece(names, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(["[UNK]"])
    return tokenizer


def test_pairs_are_counted_in_the_window_and_not_across_texts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(token_vectors, "BLOCK", 7)
    rng = np.random.default_rng(0)
    ids, texts = rng.integers(0, 5, 60), np.repeat(np.arange(6), [1, 19, 0, 20, 12, 8])
    expected = np.zeros((5, 5))
    for one in range(60):
        for other in range(60):
            if one != other and abs(one - other) <= 3 and texts[one] == texts[other]:
                expected[ids[one], ids[other]] += 1
    counts = cooccurrence(ids, texts, 5, window=3)
    assert np.array_equal(counts.toarray(), expected)
    with np.errstate(divide="ignore"):
        information = np.log(expected * expected.sum() / np.outer(expected.sum(0), expected.sum(0)))
    assert np.allclose(positive_information(counts).toarray(), np.maximum(information, 0))


def test_texts_of_one_token_have_no_pairs():
    tokenizer = wordpiece("film", "plot", "x")
    with pytest.raises(UserError, match="no generic text has two tokens"):
        from_cooccurrence(np.array([1, 2, 3, 1]), np.arange(5), vocabulary(tokenizer, ROLES), 2, 0)


def test_a_token_takes_the_mean_of_its_tokens_in_the_other_vocabulary():
    own, other = wordpiece("film", "filming", "x", "##ing", "##est"), wordpiece("est", "film", "##ing")
    table = np.diag([9.0, 1.0, 2.0, 4.0])
    found = translate(own, vocabulary(own, ROLES), table, other)
    film, ing, est = table[2], table[3], table[1]
    # [UNK] is special, x is unknown to the other, ##ing is in both, ##est is there as a word only
    assert np.array_equal(found, [0 * film, film, (film + ing) / 2, 0 * film, ing, est])
