"""Preprocessor of texts: a tokenizer that is trained on the generic data or comes with a pretrained model."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix
from sklearn.preprocessing import normalize
from tokenizers import Tokenizer
from torch import Tensor

from warmstart.core import protocols, screen
from warmstart.core.batch import Inputs, Prompt
from warmstart.core.errors import UserError
from warmstart.core.ranges import NonNegativeInt, between
from warmstart.core.spec import Vocabulary
from warmstart.data.duplicates.comparison import Overlap
from warmstart.data.duplicates.text import TextRows, find_shared_text
from warmstart.data.preprocess import label_words, spans, tagging, target_texts, token_vectors, tokenizing
from warmstart.data.readers.columns import is_listed, pick, to_texts
from warmstart.data.readers.files import read_lines, read_text, suffix_of
from warmstart.data.readers.folders import DOCUMENTS, TEXT_FILES, files_below
from warmstart.data.readers.table import Dialect, read_table
from warmstart.data.sources.text.xquad import read_squad
from warmstart.data.storage import cache
from warmstart.data.storage.ragged import Ragged

CHUNK = 2_000  # rows tokenized at a time
PARTS = ("values", "starts", "whole", "bytes", "types")
FITTED = ("model", "vocabulary", "tokenizer", "roles", "types", "files")  # in the state of a fitted preprocessor
PLAIN = (".txt", ".text", "")  # extensions of files with one text per line


class Preprocessor(protocols.Preprocessor):
    """Raw inputs are tables with a column `text` and, for text pairs, a column `pair`.

    Args:
        model: wordpiece, bpe, unigram or characters.
        vocabulary: maximum vocabulary size.
        context: maximum number of tokens of an example.
        stride: overlap in tokens of adjacent windows of a long context; None for a quarter of `context`.
        too_long: truncate, or error to refuse longer examples.
        columns: names of `text` and `pair` in the files.
        dialect: format of the tables.
        tokenizer: fitted state, as JSON of the `tokenizers` library.
        roles: tokens for padding, unknown, begin, end and mask.
        types: whether the model uses the token types of the tokenizer.
        files: files of a pretrained tokenizer, by name.
    """

    abilities: ClassVar = frozenset({"decode", "label_words", "locate", "overlap", "prompts", "untruncated", "vectors"})

    def __init__(
        self,
        model: Literal["wordpiece", "bpe", "unigram", "characters"] = "wordpiece",
        vocabulary: between(16, 2**20) = 8192,
        context: between(8, 2**20) = 128,
        stride: NonNegativeInt | None = None,
        too_long: Literal["truncate", "error"] = "truncate",
        columns: Sequence[str] = ("text",),
        dialect: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        roles: dict[str, str | None] | None = None,
        types: bool = True,
        files: dict[str, str] | None = None,
    ):
        stride = context // 4 if stride is None else stride
        if stride > context // 2:
            raise UserError(f"data.tokenizer.stride={stride}: must be at most half of context={context}")
        self.model, self.size = model, vocabulary
        self.context, self.stride, self.too_long = context, stride, too_long
        self.columns, self.dialect = list(columns), Dialect(**(dialect or {}))
        self.tokenizer, self.roles = tokenizer, dict(roles or tokenizing.ROLES)
        self.types, self.files = types, files

    def fit(self, x: pd.DataFrame) -> None:
        """Train the tokenizer."""
        self.tokenizer, self.types = tokenizing.train(self.model, self.size, lambda: self._texts(x)), False
        self.__dict__.pop("backend_tokenizer", None)

    def adapted(self, own: Preprocessor) -> Preprocessor:
        """Return this tokenizer with the context, columns and table format of another preprocessor, `own`."""
        own_state = own.state()
        kept = {name: value for name, value in self.state().items() if name in FITTED}
        return type(own)(**{name: value for name, value in {**own_state, **kept}.items() if name != "kind"})

    @property
    def names(self) -> list[str]:
        """Columns that a table must have."""
        return self.columns

    @functools.cached_property
    def backend_tokenizer(self) -> Tokenizer:
        """Tokenizer of the `tokenizers` library, without padding and truncation."""
        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """Size of the vocabulary and ids of special tokens."""
        return tokenizing.vocabulary(self.backend_tokenizer, self.roles)

    @functools.cached_property
    def suffix(self) -> tuple[int, ...]:
        """Ids of the special tokens at the end of an example."""
        found = self.backend_tokenizer.encode("a")
        count = next((n for n, special in enumerate(found.special_tokens_mask[::-1]) if not special), 0)
        return tuple(found.ids[len(found.ids) - count :])

    def encode(self, x: pd.DataFrame) -> Ragged:
        """Return token ids; longer rows are truncated to the context in batches, with a message.

        Raises:
            UserError: a row is longer than the context, and `too_long` is error.
        """
        rows = self._rows(x)
        longer = np.flatnonzero(rows.full_lengths > self.context)
        if len(longer) and self.too_long == "error":
            start = " ".join(self._texts(x.iloc[longer[:1]])).strip()[:40]
            raise UserError(
                f"{len(longer):,} of {len(x):,} rows are longer than data.tokenizer.context={self.context} tokens, "
                f"the first starts with {start!r}: raise it, or set data.tokenizer.too_long=truncate"
            )
        if len(longer):
            screen.say(
                f"{len(longer):,} of {len(x):,} rows are truncated to data.tokenizer.context={self.context} tokens"
            )
        return rows

    def align(self, x: pd.DataFrame, y: Sequence[Any] | None, target: str) -> tuple[Any, Any]:
        """Return inputs, and targets: answers in windows (`span`), classes of words (`tags`), tokens (`sequence`)."""
        if target == "sequence":
            return self.encode(x), None if y is None else target_texts.encode(self, y)
        return (spans.align if target == "span" else tagging.align)(self, x, y)

    def locate(self, x: pd.DataFrame, records: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield records with the text and the characters of their entities."""
        return tagging.locate(x, records)

    def untruncated(self, x: pd.DataFrame) -> Ragged:
        """Return all token ids, with one row per text; the texts of `pair` are separate rows after those of `text`."""
        return self._rows(pd.concat([x[name] for name in x], ignore_index=True).to_frame("text"))

    def _rows(self, x: pd.DataFrame) -> Ragged:
        """Return token ids of the texts, which are cached."""
        digests = [cache.texts_digest(self._texts(x[[name]], "\x1f")) for name in x if name in ("text", "pair")]
        name = cache.key(self.tokenizer, f"types {self.context if 'pair' in x else ''}", *digests)
        values, starts, full_lengths, size, types = cache.entry(
            "tokens", name, lambda folder: self._write_tokens(x, folder), lambda folder: cache.arrays(folder, PARTS)
        )
        padding, types = self.vocabulary.padding, self.model_types(types)
        return Ragged(values, starts, full_lengths, padding, self.context, self.suffix, int(size), types)

    def model_types(self, types: np.ndarray) -> np.ndarray | None:
        """Return the token types (V,) for the model; None if all are 0 or the model has none."""
        return types if self.types and types.any() else None

    def _write_tokens(self, x: pd.DataFrame, folder: Path) -> None:
        """Tokenize all rows and write their tokens, with the smallest integer dtype."""
        dtype = np.uint16 if self.vocabulary.size <= 2**16 else np.uint32
        tokenizer = Tokenizer.from_str(self.tokenizer)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        if "pair" in x:
            tokenizer.enable_truncation(self.context, strategy="longest_first")
        is_split = len(x) > 0 and not isinstance(x["text"].iloc[0], str)
        rows = list(zip(x["text"], x["pair"])) if "pair" in x else list(x["text"])
        values, lengths, full_lengths, types = [], [], [], [np.zeros(0, np.uint8)]
        for start in range(0, len(rows), CHUNK):
            found = tokenizer.encode_batch_fast(rows[start : start + CHUNK], is_pretokenized=is_split)
            values += [np.array(row.ids, dtype=dtype) for row in found]
            types += [np.array(row.type_ids, dtype=np.uint8) for row in found]
            lengths += [len(row.ids) for row in found]
            full_lengths += [sum(len(piece.ids) for piece in (row, *row.overflowing)) for row in found]
        np.save(folder / "values.npy", np.concatenate(values) if values else np.zeros(0, dtype))
        np.save(folder / "starts.npy", np.cumsum([0, *lengths], dtype=np.int64))
        np.save(folder / "types.npy", np.concatenate(types))
        np.save(folder / "whole.npy", np.array(full_lengths, dtype=np.int64))
        np.save(folder / "bytes.npy", sum(len(text.encode("utf-8", "surrogatepass")) for text in self._texts(x)))

    def __call__(self, x: Tensor) -> Tensor:
        """Return x: a backbone takes token ids."""
        return x

    def flat(self, x: Ragged) -> csr_matrix:
        """Return L2-normalized log counts of the tokens (N, vocabulary), for a linear model."""
        rows = np.repeat(np.arange(len(x)), np.diff(x.starts))
        counts = csr_matrix((np.ones(len(rows)), (rows, x.values)), shape=(len(x), self.vocabulary.size))
        return normalize(counts.log1p())

    def overlap(self, generic: pd.DataFrame, test: pd.DataFrame) -> Overlap | None:
        """Return the test rows with a text that is also in the generic rows; None if there are no texts."""
        if "text" not in generic or "text" not in test:
            return None
        found = [find_shared_text(self._texts(generic), self._texts(test[[name]])) for name in test]
        exact = set().union(*(part.exact for part in found))
        return Overlap(sorted(exact), sorted(set().union(*(part.near for part in found)) - exact))

    def comparison(self) -> TextRows:
        """Return a comparison of rows by their texts."""
        return TextRows()

    def decode(self, numbers: Sequence[int]) -> str:
        """Return the text of token ids, without special tokens."""
        return self.backend_tokenizer.decode(list(numbers), skip_special_tokens=True)

    def cooccurrence_vectors(self, x: pd.DataFrame, width: int, seed: int) -> np.ndarray:
        """Return a vector per token (V, width) from the texts in x; 0 for special tokens and for tokens not in x.

        Raises:
            UserError: the texts have fewer different tokens than `width`.
        """
        rows = self.untruncated(x)
        return token_vectors.from_cooccurrence(rows.values, rows.starts, self.vocabulary, width, seed)

    def translated(self, table: np.ndarray, other: Preprocessor) -> np.ndarray:
        """Return a vector per token (V, D): the mean of the rows of `table` for its tokens in another vocabulary."""
        return token_vectors.translate(self.backend_tokenizer, self.vocabulary, table, other.backend_tokenizer)

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids of the tokens after which a generated text ends."""
        return () if self.vocabulary.end is None else (self.vocabulary.end,)

    def read_prompts(self, path: str) -> list[Prompt]:
        """Read a text file with one prompt per line, or a table with the columns `prompt` and, optional, `completion`.

        Raises:
            UserError: the file is missing, empty or broken, or has no such column.
        """
        if suffix_of(Path(path)) in PLAIN:
            return [Prompt(line, row) for row, line in read_lines(path).items()]
        frame = read_table(path)
        prompts = pick(frame, "prompt", path)
        texts = to_texts(prompts, path)
        if is_listed(prompts):
            raise UserError(f"{path}: the prompts are lists, but this model continues texts: it has no chat template")
        known = [cell if isinstance(cell, str) else None for cell in frame.get("completion", [None] * len(frame))]
        return [Prompt(*values) for values in zip(texts, frame.index.tolist(), known)]

    def input_tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of inputs of an encoder, truncated to the context.

        Raises:
            UserError: a text is longer than the context, and `too_long` is error.
        """
        rows = self.encode(pd.DataFrame({"text": list(texts)}))
        return [rows[[row]][0].tolist() for row in range(len(rows))]

    def prompt(self, text: str) -> list[int]:
        """Return the token ids of a prompt; for an empty prompt, the begin token.

        Raises:
            UserError: the prompt has unknown characters.
        """
        found = self.backend_tokenizer.encode(text, add_special_tokens=False)
        unknown = [
            text[slice(*span)] for number, span in zip(found.ids, found.offsets) if number == self.vocabulary.unknown
        ]
        if unknown:
            raise UserError(f"prompt: {unknown[0]!r} is unknown to the tokenizer of the model: remove it")
        start = self.vocabulary.begin if self.vocabulary.begin is not None else self.vocabulary.end
        return found.ids or [start or 0]

    def label_numbers(self, words: Sequence[str]) -> tuple[int, ...]:
        """Return the token number of the word of each class; raise UserError if one is no single token."""
        return label_words.word_numbers(self, words)

    def label_prompts(self, x: pd.DataFrame, examples: pd.DataFrame | None = None, words: Sequence[str] = ()) -> Ragged:
        """Return token ids of prompts that end before the word of a class, after examples with their words."""
        return label_words.prompts(self, x, examples, words)

    def read(self, path: str) -> Inputs:
        """Read a text file with one example per line, a folder with one per file, or a table with the training columns.

        Raises:
            UserError: the file is missing, empty or broken, or has no such column.
        """
        if Path(path).is_dir() and len(self.columns) == 1:
            files = files_below(Path(path), TEXT_FILES, DOCUMENTS)
            if not files:
                raise UserError(f"{path} has no .txt files")
            texts = pd.DataFrame({"text": list(map(read_text, files))})
            return Inputs(texts, list(range(1, len(files) + 1)), list(map(str, files)))
        if suffix_of(Path(path)) in PLAIN and len(self.columns) == 1:
            lines = read_lines(path)
            return Inputs(lines.to_frame("text").reset_index(drop=True), lines.index.tolist())
        squad = read_squad(Path(path)) if self.columns == ["question", "context"] else None
        frame = read_table(path, self.dialect) if squad is None else squad
        texts = {to: to_texts(pick(frame, name, path), path) for to, name in zip(("text", "pair"), self.columns)}
        return Inputs(pd.DataFrame(texts), frame.index.tolist())

    def export(self, folder: Path) -> None:
        """Write the files of a tokenizer of transformers to the folder of a saved model."""
        tokenizing.write(folder, self.tokenizer, self.roles, self.context, self.files)

    def exported_inputs(self, folder: Path) -> Callable[[pd.DataFrame], dict[str, Tensor]]:
        """Return a function that tokenizes raw rows with the exported files and transformers only."""
        return tokenizing.reader(folder)

    def probes(self, target: str | None) -> pd.DataFrame:
        """Return rows to verify an exported model with, some with special tokens."""
        return tokenizing.probes(self.roles, len(self.columns), target == "tags")

    def state(self) -> dict[str, Any]:
        return {
            "kind": "text",
            "model": self.model,
            "vocabulary": self.size,
            "context": self.context,
            "stride": self.stride,
            "too_long": self.too_long,
            "columns": self.columns,
            "dialect": self.dialect.state(),
            "tokenizer": self.tokenizer,
            "roles": self.roles,
            "types": self.types,
            **({"files": self.files} if self.files else {}),
        }

    @staticmethod
    def _texts(x: pd.DataFrame, between: str = " ") -> Iterator[str]:
        """Yield every text of every column; lists of words are joined."""
        for name in x:
            for cell in x[name]:
                yield cell if isinstance(cell, str) else between.join(["", *cell])
