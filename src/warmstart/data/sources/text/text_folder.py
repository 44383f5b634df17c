"""Text files in one folder per class, with or without splits; a file is one text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pandas as pd

from warmstart.core.batch import Splits
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, Seed
from warmstart.data.readers.files import read_text
from warmstart.data.readers.folders import DOCUMENTS, TEXT_FILES, FolderFiles
from warmstart.data.sources.class_folders import find_classes, split
from warmstart.data.splits import reset_index


class TextFolder(Source):
    """Texts of UTF-8 files.

    Args:
        tokenizer: constructor of the preprocessor.
        root: folder with a folder per class, or with such folders in train, validation and test. Missing splits are
            taken from the training texts. Skipped files are reported.
        split_seed: seed of the split.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset({"category"})

    def __init__(self, tokenizer: Callable[..., Preprocessor], root: Location, split_seed: Seed = 0):
        self.tokenizer, self.root, self.split_seed = tokenizer, Path(root), split_seed

    def load(self, target: str | None) -> Splits:
        """Return texts, stratified by class if they are split here.

        Raises:
            UserError: the folder has another layout, or a file is empty, binary or not UTF-8.
        """
        found = find_classes(FolderFiles(self.root, TEXT_FILES, DOCUMENTS), "texts", "data=text_table")
        splits = split(found, self.root, self.split_seed)
        x = pd.DataFrame({"text": [read_text(path) for path in found.files]})
        for rows in (splits.train, splits.validation, splits.test, *splits.shifts.values()):
            rows.x = x.iloc[rows.x]
        return reset_index(splits)

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=["text"])
