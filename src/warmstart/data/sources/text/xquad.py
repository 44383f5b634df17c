"""XQuAD, and all that is laid out as SQuAD: questions whose answer is a piece of a text (Artetxe et al. 2020)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from sklearn.model_selection import GroupShuffleSplit

from warmstart.core import screen
from warmstart.core.batch import Rows, Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor, Source
from warmstart.core.ranges import Location, Seed
from warmstart.core.reading import parse_json
from warmstart.data.readers.columns import pick, to_texts
from warmstart.data.readers.files import read_text
from warmstart.data.readers.records import to_frame
from warmstart.data.readers.splits import describe, read_splits

SHARE = 0.15


class XQuAD(Source):
    """`text` is the question and `pair` the context.

    Parts are whole articles, or whole contexts where the articles have no title, so that no context is in two of them.
    The validation part is cut from the train split; with a validation but no test split, as SQuAD has, the former
    tests. A single split is cut into all three.

    Args:
        tokenizer: makes the preprocessor.
        root: a hub name, a local folder in the hub's layout, or a JSON file as SQuAD publishes them.
        config: of a hub name that has several.
        split_seed: fixes the parts that are cut.
    """

    modality: ClassVar = "text"
    offers: ClassVar = frozenset({"span"})

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location = "google/xquad",
        config: str | None = "xquad.en",
        split_seed: Seed = 0,
    ):
        self.tokenizer, self.root, self.config, self.split_seed = tokenizer, root, config, split_seed

    def load(self, target: str | None) -> Splits:
        """Questions with contexts, and lists of (answer, start character); an empty list is a question without answer.

        Raises:
            UserError: a column is missing, a text is empty, or an answer cannot be found in its context.
        """
        squad = read_squad(Path(self.root))
        frames = read_splits(self.root, self.config) if squad is None else {"all": squad}
        if len(frames) > 1 and "train" not in frames:
            raise UserError(f"data.root={self.root} has no split train: it has {', '.join(frames)}")
        tables = {name: self._table(frame, describe(self.root, name, frames), target) for name, frame in frames.items()}
        validation, test = tables.get("validation"), tables.get("test")
        if len(tables) == 1:
            train, test = self._cut(next(iter(tables.values())))
            train, validation = self._cut(train)
        elif validation is not None and test is not None:
            train = tables["train"]
        else:
            train, validation, test = *self._cut(tables["train"]), validation if test is None else test
        return Splits(*(as_rows(table, target) for table in (train, validation, test)))

    def preprocessor(self) -> Preprocessor:
        """As the tokenizer is configured."""
        return self.tokenizer(columns=["question", "context"])

    def _table(self, frame: pd.DataFrame, where: str, target: str | None) -> pd.DataFrame:
        names = {"text": "question", "pair": "context"}
        table = pd.DataFrame({to: to_texts(pick(frame, name, where), where) for to, name in names.items()})
        article = frame.get("title", frame["context"]).to_numpy()
        table["article"] = table.assign(article=article).groupby("pair").article.transform("first")
        if target is not None:
            table["answers"] = found_answers(table.pair, pick(frame, "answers", where), where)
        return table

    def _cut(self, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """All but some articles, and those."""
        if table.article.nunique() < 2:
            raise UserError(
                f"data.root={self.root}: all questions are about one text; two are needed to cut off a part"
            )
        if self.split_seed < 0:
            raise UserError(f"data.split_seed={self.split_seed}: must be 0 or more")
        splitter = GroupShuffleSplit(1, test_size=SHARE, random_state=self.split_seed)
        kept, held = next(splitter.split(table, groups=table.article))
        return table.iloc[kept], table.iloc[held]


def as_rows(table: pd.DataFrame, target: str | None) -> Rows:
    """Questions, contexts and, where they are wanted, answers."""
    x = table[["text", "pair"]].reset_index(drop=True)
    return Rows(x, None if target is None else table.answers.to_numpy())


def read_squad(path: Path) -> pd.DataFrame | None:
    """A JSON file as SQuAD publishes them; None where it is something else.

    Raises:
        UserError: it has no questions in its paragraphs, or a text cannot be encoded.
    """
    if not (path.is_file() and path.suffix.lower() == ".json"):
        return None
    try:
        content = parse_json(read_text(path))
        articles = content["data"]
    except (ValueError, TypeError, KeyError) as error:
        if isinstance(error, ValueError) and "surrogate" in str(error):
            raise UserError(f"{path}: {error}: remove it") from error
        return None
    try:
        rows = [
            {"title": article.get("title", number), "context": paragraph["context"], **question}
            for number, article in enumerate(articles)
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} is not laid out as SQuAD: {error} is missing") from error
    if not rows:
        raise UserError(f"{path} has no questions")
    return to_frame(dict(enumerate(rows, 1)), path)


def found_answers(contexts: pd.Series, answers: pd.Series, where: str) -> pd.Series:
    """Answers as lists of (text, start); one that is not where it should be is taken from where it is, if there is one.

    Raises:
        UserError: it is nowhere, or in several places; the first such row is named, and all are counted. Or it is not
            laid out as an answer.
    """
    rows, wrong, moved = [], [], 0
    for number, (context, cell) in enumerate(zip(contexts, answers), 1):
        pairs = []
        try:
            found = as_pairs(cell)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where}, row {number}: every answer needs a text and an answer_start, a whole number ({error!r})"
            ) from error
        for text, start in found:
            if not text or context[start : start + len(text)] != text:
                if not text or context.count(text) != 1:
                    wrong.append((number, text, start))
                    continue
                moved += 1
                start = context.index(text)
            pairs.append((text, start))
        rows.append(pairs)
    if wrong:
        row, text, start = wrong[0]
        count = len({number for number, *_ in wrong})
        raise UserError(
            f"{where}, row {row}: the answer {text[:60]!r} is not in its context at character {start}, nor at one "
            f"other place; {count:,} of {len(rows):,} rows are like this: mend or remove them"
        )
    if moved:
        screen.say(f"{where}: {moved:,} answers were found at another character than is stated")
    return pd.Series(rows, dtype=object)


def as_pairs(cell: Any) -> list[tuple[str, int]]:
    """(text, start) from a list of records, or from a record of lists."""
    if cell is None or isinstance(cell, float):
        return []
    if isinstance(cell, dict):
        return [(str(text), int(start)) for text, start in zip(cell["text"], cell["answer_start"])]
    return [(str(answer["text"]), int(answer["answer_start"])) for answer in cell]
