"""Texts: cut into tokens once, by a tokenizer that is trained on the generic data or taken from a model."""

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
from warmstart.core.batch import Inputs
from warmstart.core.errors import UserError
from warmstart.core.ranges import Whole, between
from warmstart.core.spec import Vocabulary
from warmstart.data.duplicates.overlap import Overlap
from warmstart.data.duplicates.text import TextRows, find_shared_text
from warmstart.data.preprocess import spans, tagging, tokenizer_files, tokenizing
from warmstart.data.readers.columns import pick, to_texts
from warmstart.data.readers.files import read_lines, read_text, suffix_of
from warmstart.data.readers.folders import DOCUMENTS, TEXT_FILES, files_below
from warmstart.data.readers.table import Dialect, read_table
from warmstart.data.sources.text.xquad import read_squad
from warmstart.data.storage import cache
from warmstart.data.storage.ragged import Ragged

CHUNK = 2_000  # rows tokenised at a time
PARTS = ("values", "starts", "whole", "bytes", "types")
PLAIN = (".txt", ".text", "")  # files with a text on each line


class Preprocessor(protocols.Preprocessor):
    """Raw inputs are tables with a column `text`, and `pair` where a second text belongs to it.

    Args:
        model: wordpiece, bpe, unigram or characters.
        vocabulary: most tokens.
        context: most tokens of an example.
        stride: tokens that neighbouring windows of a long context share; None is a quarter of `context`.
        too_long: what is done about an example that is longer: truncate or error.
        columns: what `text` and `pair` are called in the user's files.
        dialect: how the user's tables are written.
        tokenizer: the fitted state, as the JSON of the `tokenizers` library.
        roles: the tokens that stand for padding, unknown, begin, end and mask.
        types: examples have the token types that the tokenizer gives.
        files: those of a tokenizer that was not trained here, by name.
    """

    abilities: ClassVar = frozenset({"decode", "overlap", "whole"})

    def __init__(
        self,
        model: Literal["wordpiece", "bpe", "unigram", "characters"] = "wordpiece",
        vocabulary: between(16, 2**20) = 8192,
        context: between(8, 2**20) = 128,
        stride: Whole | None = None,
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
        self.tokenizer, self.types = tokenizing.trained(self.model, self.size, lambda: self._texts(x)), False
        self.__dict__.pop("cutter", None)

    def adapted(self, own: Preprocessor) -> Preprocessor:
        """This tokenizer under the settings that say how another one's examples are cut."""
        state = {**self.state(), **{name: getattr(own, name) for name in ("context", "stride", "too_long", "columns")}}
        state["dialect"] = own.dialect.state()
        return Preprocessor(**{name: value for name, value in state.items() if name != "kind"})

    @property
    def names(self) -> list[str]:
        """The columns that a table must have."""
        return self.columns

    @functools.cached_property
    def cutter(self) -> Tokenizer:
        """The library's tokenizer, without padding or truncation."""
        cutter = Tokenizer.from_str(self.tokenizer)
        cutter.no_padding()
        cutter.no_truncation()
        return cutter

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """What a model must know of the tokens."""
        return tokenizing.vocabulary(self.cutter, self.roles)

    @functools.cached_property
    def suffix(self) -> tuple[int, ...]:
        """The special tokens that end an example."""
        found = self.cutter.encode("a")
        count = next((n for n, special in enumerate(found.special_tokens_mask[::-1]) if not special), 0)
        return tuple(found.ids[len(found.ids) - count :])

    def encode(self, x: pd.DataFrame) -> Ragged:
        """Rows of token numbers, cut off at the context, which is said.

        Raises:
            UserError: a row is longer than the context, and `too_long` is error.
        """
        rows = self._rows(x)
        longer = np.flatnonzero(rows.whole > self.context)
        if len(longer) and self.too_long == "error":
            start = " ".join(self._texts(x.iloc[longer[:1]])).strip()[:40]
            raise UserError(
                f"{len(longer):,} of {len(x):,} rows are longer than data.tokenizer.context={self.context} tokens, "
                f"the first begins {start!r}: raise it, or set data.tokenizer.too_long=truncate"
            )
        if len(longer):
            screen.say(
                f"{len(longer):,} of {len(x):,} rows are cut off at data.tokenizer.context={self.context} tokens"
            )
        return rows

    def align(self, x: pd.DataFrame, y: Sequence[Any] | None, target: str) -> tuple[Any, Any]:
        """Inputs, and targets that are places in them: answers in windows of contexts (`span`), or words (`tags`)."""
        return (spans.align if target == "span" else tagging.align)(self, x, y)

    def whole(self, x: pd.DataFrame) -> Ragged:
        """A row for every text with all its token numbers; second texts are rows of their own, after the first ones."""
        return self._rows(pd.concat([x[name] for name in x], ignore_index=True).to_frame("text"))

    def _rows(self, x: pd.DataFrame) -> Ragged:
        """Rows of token numbers, from the cache where the same tokenizer cut the same texts before."""
        digests = [cache.texts_digest(self._texts(x[[name]], "\x1f")) for name in x if name in ("text", "pair")]
        name = cache.key(self.tokenizer, f"types {self.context if 'pair' in x else ''}", *digests)
        values, starts, whole, size, types = cache.entry(
            "tokens", name, lambda folder: self._cut(x, folder), lambda folder: cache.arrays(folder, PARTS)
        )
        padding, types = self.vocabulary.padding, self.known_types(types)
        return Ragged(values, starts, whole, padding, self.context, self.suffix, int(size), types)

    def known_types(self, types: np.ndarray) -> np.ndarray | None:
        """Token types (V,) as a model is to see them; None where all are 0."""
        return types if self.types and types.any() else None

    def _cut(self, x: pd.DataFrame, folder: Path) -> None:
        """Write all rows' tokens, in the smallest type that holds the vocabulary."""
        kind = np.uint16 if self.vocabulary.size <= 2**16 else np.uint32
        cutter = Tokenizer.from_str(self.tokenizer)
        cutter.no_padding()
        cutter.no_truncation()
        if "pair" in x:
            cutter.enable_truncation(self.context, strategy="longest_first")
        words = len(x) > 0 and not isinstance(x["text"].iloc[0], str)
        rows = list(zip(x["text"], x["pair"])) if "pair" in x else list(x["text"])
        parts, lengths, whole, types = [], [], [], [np.zeros(0, np.uint8)]
        for start in range(0, len(rows), CHUNK):
            found = cutter.encode_batch_fast(rows[start : start + CHUNK], is_pretokenized=words)
            parts += [np.array(row.ids, dtype=kind) for row in found]
            types += [np.array(row.type_ids, dtype=np.uint8) for row in found]
            lengths += [len(row.ids) for row in found]
            whole += [sum(len(piece.ids) for piece in (row, *row.overflowing)) for row in found]
        np.save(folder / "values.npy", np.concatenate(parts) if parts else np.zeros(0, kind))
        np.save(folder / "starts.npy", np.cumsum([0, *lengths], dtype=np.int64))
        np.save(folder / "types.npy", np.concatenate(types))
        np.save(folder / "whole.npy", np.array(whole, dtype=np.int64))
        np.save(folder / "bytes.npy", sum(len(text.encode("utf-8", "surrogatepass")) for text in self._texts(x)))

    def __call__(self, x: Tensor) -> Tensor:
        """Unchanged: a backbone takes token numbers."""
        return x

    def flat(self, x: Ragged) -> csr_matrix:
        """What a linear model gets: log counts of the tokens, rows of length 1 (N, vocabulary)."""
        rows = np.repeat(np.arange(len(x)), np.diff(x.starts))
        counts = csr_matrix((np.ones(len(rows)), (rows, x.values)), shape=(len(x), self.vocabulary.size))
        return normalize(counts.log1p())

    def overlap(self, generic: pd.DataFrame, test: pd.DataFrame) -> Overlap | None:
        """Test rows of which a text is in the generic rows too; None where one of them holds no texts."""
        if "text" not in generic or "text" not in test:
            return None
        found = [find_shared_text(self._texts(generic), self._texts(test[[name]])) for name in test]
        exact = set().union(*(part.exact for part in found))
        return Overlap(sorted(exact), sorted(set().union(*(part.near for part in found)) - exact))

    def comparison(self) -> TextRows:
        """Return how rows of two parts are compared."""
        return TextRows()

    def decode(self, numbers: Sequence[int]) -> str:
        """Text, special tokens left out."""
        return self.cutter.decode(list(numbers), skip_special_tokens=True)

    def prompt(self, text: str) -> list[int]:
        """The tokens of a text that is to be gone on with; without any text, the token that begins one.

        Raises:
            UserError: it has characters that the tokenizer does not know.
        """
        found = self.cutter.encode(text, add_special_tokens=False)
        unknown = [
            text[slice(*place)] for number, place in zip(found.ids, found.offsets) if number == self.vocabulary.unknown
        ]
        if unknown:
            raise UserError(f"prompt: the model's tokenizer does not know {unknown[0]!r}: leave it out")
        start = self.vocabulary.begin if self.vocabulary.begin is not None else self.vocabulary.end
        return found.ids or [start or 0]

    def read(self, path: str) -> Inputs:
        """Read a text file with an example per line, a folder with one per file, or a table.

        A table has the columns of the training data.

        Raises:
            UserError: the file is missing, empty or broken, or has no such column.
        """
        if Path(path).is_dir() and len(self.columns) == 1:
            files = files_below(Path(path), TEXT_FILES, DOCUMENTS)
            if not files:
                raise UserError(f"{path} holds no .txt files")
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
        """Write the tokenizer as transformers reads it, beside a saved model."""
        tokenizer_files.write(folder, self.tokenizer, self.roles, self.context, self.files)

    def exported_inputs(self, folder: Path) -> Callable[[pd.DataFrame], dict[str, Tensor]]:
        """What makes padded inputs of raw rows by the exported files alone, as a user of transformers does."""
        return tokenizer_files.reader(folder)

    def probes(self, target: str | None) -> pd.DataFrame:
        """Rows to compare an exported model on: plain ones, and some that hold the tokenizer's special tokens."""
        return tokenizer_files.probes(self.roles, len(self.columns), target == "tags")

    def state(self) -> dict[str, Any]:
        """Plain JSON."""
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
        """Every text of every column; the words of one that comes in words are joined."""
        for name in x:
            for cell in x[name]:
                yield cell if isinstance(cell, str) else between.join(["", *cell])
