"""XQuAD (Artetxe et al. 2020) and other data sets in the format of SQuAD."""

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
from warmstart.data.clusters import short
from warmstart.data.readers.columns import pick, to_texts
from warmstart.data.readers.files import read_text
from warmstart.data.readers.records import to_frame
from warmstart.data.readers.splits import describe, read_splits

SHARE = 0.15


class XQuAD(Source):
    """Questions in the column `text` and contexts in `pair`; the cluster of a question is its article.

    Without titles of articles, the cluster is the context. Splits keep clusters whole, so that no context is in two.
    Missing validation rows are split off from train; a validation split without a test split, as in SQuAD, is used as
    test split. A single split is divided into three.

    Args:
        tokenizer: constructor of the preprocessor.
        root: a hub name, a local folder with the layout of the hub, or a JSON file in the format of SQuAD.
        config: configuration of a hub data set.
        split_seed: seed of the split.
    """

    modality: ClassVar = "text"
    target_kinds: ClassVar = frozenset({"span", "sequence"})

    def __init__(
        self,
        tokenizer: Callable[..., Preprocessor],
        root: Location = "google/xquad",
        config: str | None = "xquad.en",
        split_seed: Seed = 0,
    ):
        self.tokenizer, self.root, self.config, self.split_seed = tokenizer, root, config, split_seed

    def load(self, target: str | None) -> Splits:
        """Return questions with contexts, and lists of (answer, start character), empty for questions without answer.

        For sequence to sequence, targets are lists of answers, of which the first is trained on, and questions without
        answer are left out.

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
            train, test = self._split_off(next(iter(tables.values())))
            train, validation = self._split_off(train)
        elif validation is not None and test is not None:
            train = tables["train"]
        else:
            train, validation, test = *self._split_off(tables["train"]), validation if test is None else test
        return Splits(*(as_rows(table, target) for table in (train, validation, test)))

    def preprocessor(self) -> Preprocessor:
        return self.tokenizer(columns=["question", "context"])

    def _table(self, frame: pd.DataFrame, where: str, target: str | None) -> pd.DataFrame:
        names = {"text": "question", "pair": "context"}
        table = pd.DataFrame({to: to_texts(pick(frame, name, where), where) for to, name in names.items()})
        title = frame.get("title", frame["context"])
        article = title.where(title.notna(), frame["context"]).astype(str).map(short).to_numpy()
        table["article"] = table.assign(article=article).groupby("pair").article.transform("first")
        if target is not None:
            table["answers"] = locate_answers(table.pair, pick(frame, "answers", where), where)
        if target == "sequence":
            has_answer = table.answers.map(len) > 0
            if not has_answer.all():
                screen.say(f"{where}: {(~has_answer).sum():,} questions have no answer: they are left out")
            table = table[has_answer].reset_index(drop=True)
            table["answers"] = table.answers.map(lambda answers: [text for text, _ in answers])
        return table

    def _split_off(self, table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Split rows into two parts with different articles; the second has 15 % of the articles."""
        if table.article.nunique() < 2:
            raise UserError(f"data.root={self.root}: all questions are about one text; two are needed for a split")
        splitter = GroupShuffleSplit(1, test_size=SHARE, random_state=self.split_seed)
        kept, held = next(splitter.split(table, groups=table.article))
        return table.iloc[kept], table.iloc[held]


def as_rows(table: pd.DataFrame, target: str | None) -> Rows:
    """Return questions, contexts, articles and, with a target, answers."""
    x = table[["text", "pair"]].reset_index(drop=True)
    return Rows(x, None if target is None else table.answers.to_numpy(), table.article.to_numpy(dtype=object))


def read_squad(path: Path) -> pd.DataFrame | None:
    """Read a JSON file in the format of SQuAD; return None if it has another format.

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
        raise UserError(f"{path} does not have the format of SQuAD: {error} is missing") from error
    if not rows:
        raise UserError(f"{path} has no questions")
    return to_frame(dict(enumerate(rows, 1)), path)


def locate_answers(contexts: pd.Series, answers: pd.Series, where: str) -> pd.Series:
    """Return answers as lists of (text, start); a wrong start is corrected if the text occurs once in the context.

    Raises:
        UserError: an answer is not in its context, occurs several times, or has an invalid format.
    """
    rows, wrong, moved = [], [], 0
    for number, (context, cell) in enumerate(zip(contexts, answers), 1):
        pairs = []
        try:
            found = as_pairs(cell)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{where}, row {number}: every answer needs a text and an answer_start, an integer ({error!r})"
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
            f"{where}, row {row}: the answer {text[:60]!r} is not in its context at character {start}, and does not "
            f"occur once elsewhere; {count:,} of {len(rows):,} rows are like this: correct or remove them"
        )
    if moved:
        screen.say(f"{where}: {moved:,} answers had a wrong start character, which was corrected")
    return pd.Series(rows, dtype=object)


def as_pairs(cell: Any) -> list[tuple[str, int]]:
    """Convert a list of records or a record of lists to pairs (text, start)."""
    if cell is None or isinstance(cell, float):
        return []
    if isinstance(cell, dict):
        return [(str(text), int(start)) for text, start in zip(cell["text"], cell["answer_start"])]
    return [(str(answer["text"]), int(answer["answer_start"])) for answer in cell]
