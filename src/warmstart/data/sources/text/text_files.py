"""Plain text files."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, OpenUnitInterval, Seed
from warmstart.data.readers.files import read_text
from warmstart.data.readers.folders import DOCUMENTS, files_below
from warmstart.data.splits import reset_index, split_rows

ENDS = {"document": re.compile(r"\Z"), "paragraph": re.compile(r"\n(?:[^\S\n]*\n)+"), "line": re.compile(r"\n")}


class TextFiles(Source):
    """Texts split at random; a single document is split in order.

    Args:
        tokenizer: constructor of the preprocessor.
        root: a file, a folder (all .txt files in it, recursively), or a pattern such as notes/**/*.md.
        rows: unit of a row: document (a file), paragraph (ended by an empty line) or line.
        validation: share of the rows.
        test: share of the rows.
        split_seed: seed of the split.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset()

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location,
        rows: Literal["document", "paragraph", "line"] = "document",
        validation: OpenUnitInterval = 0.05,
        test: OpenUnitInterval = 0.05,
        split_seed: Seed = 0,
    ):
        if validation + test >= 1:
            raise UserError(f"data.validation={validation}, test={test}: they leave nothing to train on")
        self.tokenizer, self.root, self.rows = tokenizer, root, rows
        self.validation, self.test, self.split_seed = validation, test, split_seed

    def load(self, target: str | None) -> Splits:
        """Return texts.

        Raises:
            UserError: there are no files, a file is empty, binary or not UTF-8, or there are too few rows.
        """
        documents = [read_text(path) for path in self._files()]
        if len(documents) == 1 and self.rows == "document":
            return self._in_order(documents[0])
        texts = [row for document in documents for row in ENDS[self.rows].split(document) if row.strip()]
        if len(texts) < 10:
            smaller = {"document": " or set data.rows=paragraph", "paragraph": " or set data.rows=line"}
            raise UserError(
                f"data.root={self.root}, data.rows={self.rows}: only {len(texts)} rows; at least 10 are needed to "
                f"split off validation and test: give more{smaller.get(self.rows, '')}"
            )
        rows = Rows(pd.DataFrame({"text": texts}))
        return reset_index(split_rows(rows, (), self.split_seed, None, self.validation, self.test))

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=["text"])

    def _files(self) -> list[Path]:
        root = Path(self.root)
        if root.is_file():
            return [root]
        folder = root.is_dir()
        if folder:
            files = files_below(root, frozenset({".txt"}), DOCUMENTS)
        else:
            files = sorted(path for path in map(Path, glob.glob(self.root, recursive=True)) if path.is_file())
        if not files:
            what = "no .txt file in this folder; a pattern such as folder/**/*.md finds others"
            raise UserError(f"data.root={self.root}: {what if folder else 'there is no such file or folder'}")
        return files

    def _in_order(self, text: str) -> Splits:
        """Split a text in order: train, validation, test."""
        cuts = [round(len(text) * (1 - self.validation - self.test)), round(len(text) * (1 - self.test))]
        parts = (text[: cuts[0]], text[cuts[0] : cuts[1]], text[cuts[1] :])
        if not all(part.strip() for part in parts):
            raise UserError(f"data.root={self.root}: {len(text)} characters are too few to validate and test on")
        return Splits(*(Rows(pd.DataFrame({"text": [part]})) for part in parts))
