"""The user's own text files: one folder per class, or such folders for each split; a file is one text."""

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
from warmstart.data.sources.class_folders import cut, find_classes
from warmstart.data.splits import reset_index


class TextFolder(Source):
    """Texts as they stand in their files, which are UTF-8.

    Args:
        tokenizer: makes the preprocessor.
        root: the folder; each folder in it is a class, or a split (train, validation, test) with a folder per class.
            Splits that are missing are cut from the training texts. What is left out is printed.
        split_seed: fixes which texts train, validate and test.
    """

    modality: ClassVar = "text"
    offers: ClassVar = frozenset({"category"})

    def __init__(self, tokenizer: Callable[..., Preprocessor], root: Location, split_seed: Seed = 0):
        self.tokenizer, self.root, self.split_seed = tokenizer, Path(root), split_seed

    def load(self, target: str | None) -> Splits:
        """Texts, stratified by class where they are cut here.

        Raises:
            UserError: the folder is laid out in another way, or a file is empty, binary or not UTF-8.
        """
        found = find_classes(FolderFiles(self.root, TEXT_FILES, DOCUMENTS), "texts", "data=text_table")
        splits = cut(found, self.root, self.split_seed)
        x = pd.DataFrame({"text": [read_text(path) for path in found.files]})
        for rows in (splits.train, splits.validation, splits.test, *splits.shifts.values()):
            rows.x = x.iloc[rows.x]
        return reset_index(splits)

    def preprocessor(self) -> Preprocessor:
        """As the tokenizer is configured."""
        return self.tokenizer(columns=["text"])
