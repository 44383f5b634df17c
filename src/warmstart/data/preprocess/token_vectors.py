"""A vector per token of a vocabulary: from co-occurrence in texts, or from the embedding of another vocabulary."""

from __future__ import annotations

import json

import numpy as np
from scipy.sparse import coo_array, csr_array
from sklearn.utils.extmath import randomized_svd
from tokenizers import Tokenizer

from warmstart.core.errors import UserError
from warmstart.core.spec import Vocabulary

WINDOW = 10  # tokens on each side
BLOCK = 1 << 22  # pairs counted at a time


def from_cooccurrence(
    values: np.ndarray, starts: np.ndarray, vocabulary: Vocabulary, width: int, seed: int
) -> np.ndarray:
    """Return a truncated singular value decomposition of the positive pointwise mutual information (V, width).

    As in Levy, Goldberg and Dagan 2015, "Improving Distributional Similarity with Lessons Learned from Word
    Embeddings", with the square roots of the singular values.

    Args:
        values: token ids of all texts (N,); special tokens are ignored.
        starts: start of each text in `values`, and the end of the last.
        vocabulary: describes the token ids.
        width: number of dimensions.
        seed: of the randomized decomposition.

    Raises:
        UserError: there are fewer different tokens than dimensions, or each text has one.
    """
    texts = np.repeat(np.arange(len(starts) - 1, dtype=np.int32), np.diff(starts))
    kept = ~np.isin(values, vocabulary.special)
    ids, texts = np.asarray(values[kept], dtype=np.int32), texts[kept]
    count = len(np.unique(ids))
    if count < width:
        raise UserError(
            f"the generic texts have {count:,} different tokens, fewer than backbone.width={width}: "
            "give more texts, or a smaller width"
        )
    counts = cooccurrence(ids, texts, vocabulary.size)
    if not counts.nnz:
        raise UserError("no generic text has two tokens, so none occur together: give longer texts, or another init")
    information = positive_information(counts)
    left, singular, _ = randomized_svd(information, width, random_state=seed)
    return left * np.sqrt(singular)


def cooccurrence(ids: np.ndarray, texts: np.ndarray, size: int, window: int = WINDOW) -> csr_array:
    """Return how often two tokens are at most `window` positions apart in the same text (V, V), symmetric.

    Args:
        ids: token ids (N,).
        texts: number of the text of each token (N,).
        size: V.
    """
    counts = csr_array((size, size), dtype=np.float64)
    for distance in range(1, window + 1):
        for start in range(0, len(ids) - distance, BLOCK):
            stop = min(start + BLOCK, len(ids) - distance)
            left, right = slice(start, stop), slice(start + distance, stop + distance)
            same = texts[left] == texts[right]
            pairs = (ids[left][same], ids[right][same])
            counts = counts + coo_array((np.ones(len(pairs[0])), pairs), shape=(size, size)).tocsr()
    return counts + counts.T


def positive_information(counts: csr_array) -> csr_array:
    """Return the positive pointwise mutual information of symmetric counts (V, V)."""
    sums, pairs = counts.sum(axis=0), counts.tocoo()
    row, column = pairs.coords
    information = np.log(pairs.data * sums.sum() / (sums[row] * sums[column]))
    positive = information > 0
    return csr_array((information[positive], (row[positive], column[positive])), shape=counts.shape)


def translate(tokenizer: Tokenizer, vocabulary: Vocabulary, table: np.ndarray, other: Tokenizer) -> np.ndarray:
    """Return, for each token, the mean of the rows of `table` for the tokens of its text in another vocabulary (V, D).

    A token that the other vocabulary has too, if both are of the same kind, takes the row of that token. Special tokens
    and those without a text in the other vocabulary have 0.

    Args:
        tokenizer: of the V tokens.
        vocabulary: describes them.
        table: a row for each token of the other vocabulary.
        other: its tokenizer.
    """
    numbers = np.setdiff1d(np.arange(vocabulary.size), vocabulary.special)
    names = [tokenizer.id_to_token(number) for number in numbers.tolist()]
    same = other.get_vocab() if kind(tokenizer) == kind(other) else {}
    found = other.encode_batch_fast(texts_of(tokenizer, vocabulary, numbers), add_special_tokens=False)
    ids = [[same[name]] if name in same else one.ids for name, one in zip(names, found)]
    lengths = np.array([len(one) for one in ids])
    flat = np.array([number for one in ids for number in one], dtype=np.int64)
    unknown = [number for number, token in other.get_added_tokens_decoder().items() if token.special]
    rows = np.repeat(numbers, lengths)
    weights = np.where(np.isin(flat, unknown), 0.0, 1.0)
    pairs = csr_array((weights, (rows, flat)), shape=(vocabulary.size, len(table)))
    return (pairs @ table) / np.maximum(pairs.sum(axis=1), 1)[:, None]


def kind(tokenizer: Tokenizer) -> tuple[str, str | None]:
    """Return the model of a tokenizer, and its prefix of tokens that continue a word."""
    model = json.loads(tokenizer.to_str())["model"]
    return model["type"], model.get("continuing_subword_prefix")


def texts_of(tokenizer: Tokenizer, vocabulary: Vocabulary, numbers: np.ndarray) -> list[str]:
    """Return the texts of tokens, with a space before those that start a word."""
    prefix, joined, texts = kind(tokenizer)[1] or "", set(vocabulary.joined), []
    for number in numbers.tolist():
        text = tokenizer.decode([number])
        if number in joined:
            texts.append(text.removeprefix(prefix))
        else:
            texts.append(text if text.startswith(" ") else f" {text}")
    return texts
