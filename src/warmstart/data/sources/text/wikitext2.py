"""WikiText-2: articles of Wikipedia (Merity et al. 2016)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pandas as pd

from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location
from warmstart.data.readers.columns import pick
from warmstart.data.readers.files import read_text
from warmstart.data.readers.splits import read_splits

FILES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}


class WikiText2(Source):
    """Articles in the official splits.

    Without a train split, the last tenth of the validation articles is for validation and the others for training, so
    that a small copy is sufficient.

    Args:
        tokenizer: constructor of the preprocessor.
        root: a hub name, or a local folder with valid.txt, test.txt and, optionally, train.txt.
        config: configuration of the hub data set.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset()

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location = "Salesforce/wikitext",
        config: str | None = "wikitext-2-raw-v1",
    ):
        self.tokenizer, self.root, self.config = tokenizer, root, config

    def load(self, target: str | None) -> Splits:
        """Return articles with their headings.

        Raises:
            UserError: the validation or test split is missing or has no article.
        """
        folder = Path(self.root)
        if (folder / FILES["validation"]).is_file():
            files = {name: folder / file for name, file in FILES.items() if (folder / file).is_file()}
            lines = {name: pd.Series(read_text(file).split("\n")) for name, file in files.items()}
        else:
            frames = read_splits(self.root, self.config)
            lines = {name: pick(frame, "text", f"data.root={self.root}").fillna("") for name, frame in frames.items()}
        missing = [name for name in ("validation", "test") if name not in lines]
        if missing:
            raise UserError(f"data.root={self.root} has no split {missing[0]} ({FILES[missing[0]]})")
        texts = {name: articles(part) for name, part in lines.items()}
        if "train" not in texts:
            cut = len(texts["validation"]) * 9 // 10
            texts["train"], texts["validation"] = texts["validation"][:cut], texts["validation"][cut:]
        for name, found in texts.items():
            if not found:
                raise UserError(f"data.root={self.root}, split {name}: no article (a line such as ' = Title = ')")
        return Splits(*(Rows(pd.DataFrame({"text": texts[name]})) for name in FILES))

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=["text"])


def articles(lines: pd.Series) -> list[str]:
    """Split lines into articles, before each ` = Title = ` between empty lines; sections have more equals signs."""
    lines = lines.str.removesuffix("\n")
    empty = lines.str.strip().eq("")
    titles = lines.str.fullmatch(r" = (?!= ).*(?<! =) = ?")
    titles &= empty.shift(1, fill_value=True) & empty.shift(-1, fill_value=True)
    numbers = titles.cumsum()
    return lines[numbers > 0].groupby(numbers).agg("\n".join).str.strip("\n").tolist()
