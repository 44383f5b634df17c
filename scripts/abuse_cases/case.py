"""Cases: files, a command and the expected outcome; and checks of the observed outcome."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 700  # characters of "a line or two"


@dataclass
class Seen:
    """What a command did: its printed lines, its data where they were loaded, its predictions, its run folder."""

    text: str = ""
    refusal: str | None = None
    crash: str | None = None
    data: Any = None
    splits: Any = None
    answers: list[dict[str, Any]] = field(default_factory=list)
    run: Path | None = None
    status: int | None = None


Check = Callable[[Seen, Callable[["Case"], Seen]], "str | None"]
Files = Mapping[str, Any] | Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One command on odd files.

    Args:
        family: of the table that is printed.
        name: unique in the family.
        files: contents by path (text, bytes, or a function that writes the path), or a function that fills a folder.
        words: the command's overrides; `{folder}` stands for the folder of the files.
        right: says what is wrong with what came out, or None; without it, the command must be refused.
        refused: patterns that a refusal must contain; without them, the command must not be refused.
        door: load (the data, as finetuning encodes them), or run (the complete command).
        model: for stage=predict, the case whose run predicts.
        beside: the case among whose runs those of this one are put.
    """

    family: str
    name: str
    files: Files
    words: tuple[str, ...]
    right: Check | None = None
    refused: tuple[str, ...] | None = None
    door: str = "load"
    model: Case | None = None
    beside: Case | None = None

    def write(self, folder: Path) -> None:
        """Write the files."""
        folder.mkdir(parents=True, exist_ok=True)
        if callable(self.files):
            self.files(folder)
            return
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if callable(content):
                content(path)
            else:
                path.write_bytes(content.encode() if isinstance(content, str) else content)

    def judge(self, seen: Seen, other: Callable[[Case], Seen]) -> tuple[str, str]:
        """The kind of outcome (right, refused, defect), and what is wrong with a defect."""
        if seen.crash is not None:
            return "defect", f"crash: {seen.crash}"
        if seen.refusal is not None:
            problem = self._about(seen.refusal)
            return ("defect", f"{problem}: {seen.refusal}") if problem else ("refused", "")
        if self.right is None:
            return "defect", "accepted; printed: " + " | ".join(seen.text.strip().splitlines()[:4])
        problem = self.right(seen, other)
        return ("defect", problem) if problem else ("right", "")

    def expected(self) -> str:
        """The outcome in words."""
        ways = [] if self.right is None else [getattr(self.right, "words", "right")]
        ways += [] if self.refused is None else [f"refused, with {' and '.join(map(repr, self.refused)) or 'a reason'}"]
        return " or ".join(ways)

    def _about(self, message: str) -> str | None:
        if self.refused is None:
            return "refused"
        if len(message.strip().splitlines()) > 2 or len(message) > LONGEST:
            return "refused in more than two lines"
        missing = [part for part in self.refused if not re.search(part, message, re.IGNORECASE)]
        return f"refused without {' and '.join(map(repr, missing))}" if missing else None


def check(words: str) -> Callable[[Check], Check]:
    """Give a check the words that a list of defects describes it with."""

    def named(function: Check) -> Check:
        function.words = words
        return function

    return named


def every(*checks: Check) -> Check:
    """All of these hold."""

    @check(", ".join(one.words for one in checks) or "ends well")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        return next((problem for one in checks if (problem := one(seen, other))), None)

    return holds


def either(*checks: Check) -> Check:
    """One of these holds."""

    @check(" or ".join(one.words for one in checks))
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        problems = [one(seen, other) for one in checks]
        return None if None in problems else problems[0]

    return holds


def says(*patterns: str) -> Check:
    """Lines that must be printed."""

    @check(f"prints {' and '.join(map(repr, patterns))}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        missing = [pattern for pattern in patterns if not re.search(pattern, seen.text, re.IGNORECASE)]
        return (
            f"does not print {missing[0]!r}; printed: {' | '.join(seen.text.strip().splitlines())}" if missing else None
        )

    return holds


def silent(*patterns: str) -> Check:
    """Lines that must not be printed."""

    @check(f"does not print {' or '.join(map(repr, patterns))}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        found = [pattern for pattern in patterns if re.search(pattern, seen.text, re.IGNORECASE)]
        return f"prints {found[0]!r}: {' | '.join(seen.text.strip().splitlines())}" if found else None

    return holds


def labels(*names: str) -> Check:
    """The classes, in any order."""

    @check(f"classes {', '.join(map(repr, names))}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        found = seen.data.spec.labels
        return None if sorted(found) == sorted(names) else f"classes {', '.join(map(repr, found))}"

    return holds


def count(rows: int) -> Check:
    """Rows to train, validate and test on together."""

    @check(f"{rows} rows")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        found = sum(seen.data.rows[part] for part in ("train", "validation", "test"))
        return None if found == rows else f"{found} rows"

    return holds


def parts(**rows: int) -> Check:
    """Rows of each part."""

    @check(f"rows {rows}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        return None if all(seen.data.rows[name] == size for name, size in rows.items()) else f"rows {seen.data.rows}"

    return holds


def categories(column: str, *names: str) -> Check:
    """The names that the fitted preprocessor has for a column; where a name's only row is held out it may be absent."""

    @check(f"categories of {column}: {', '.join(map(repr, names))}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        found = next(one["values"] for one in seen.data.preprocessor.state()["columns"] if one["name"] == column)
        return None if sorted(found) == sorted(names) else f"categories of {column}: {', '.join(map(repr, found))}"

    return holds


def known(column: str, unseen: int = 0) -> Check:
    """At most `unseen` rows, over all parts, have a category that encodes to zeros."""

    @check(f"at most {unseen} rows of an unknown {column}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        zeros = sum(int((values.sum(1) == 0).sum()) for values in encoded(seen, column))
        return None if zeros <= unseen else f"{zeros} rows have a {column} that encodes to zeros"

    return holds


def encoded(seen: Seen, column: str) -> Iterator[np.ndarray]:
    """A table column's encoded values (N, F), part by part."""
    start = 0
    for one in seen.data.preprocessor.state()["columns"]:
        width = len(one["values"]) if "values" in one else 1
        if one["name"] == column:
            break
        start += width
    for part in ("train", "validation", "test"):
        yield seen.data.parts[part][0].numpy()[:, start : start + width]


def numbers(column: str, expected: list[float], relative: float = 1e-5) -> Check:
    """The numbers of a column over all parts, in any order, read back from their standardised values."""

    @check(f"the numbers of {column}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        one = next(one for one in seen.data.preprocessor.state()["columns"] if one["name"] == column)
        values = np.concatenate(list(encoded(seen, column)))[:, 0].astype(float) * one["std"] + one["mean"]
        wanted = np.sort(expected)
        if len(values) != len(wanted):
            return f"{len(values)} values of {column}"
        if np.allclose(np.sort(values), wanted, rtol=relative, atol=relative * max(1e-12, np.abs(wanted).max())):
            return None
        worst = int(np.abs(np.sort(values) - wanted).argmax())
        return f"{column} has {np.sort(values)[worst]:g} where {wanted[worst]:g} is right"

    return holds


@check("finite inputs and targets")
def finite(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
    """No input or target is infinite or not a number."""
    for part in ("train", "validation", "test"):
        x, y = seen.data.parts[part]
        for values in (x, y):
            if hasattr(values, "isfinite") and not values.isfinite().all():
                return f"a value of {part} is not finite"
    return None


def targets(distinct: int) -> Check:
    """How many different targets there are over all parts."""

    @check(f"{distinct} different targets")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        found = len(
            np.unique(np.concatenate([arrays(seen.data.parts[p][1])[0] for p in ("train", "validation", "test")]))
        )
        return None if found == distinct else f"{found} different targets"

    return holds


def arrays(values: Any) -> list[np.ndarray]:
    """A tensor, or rows of different lengths, as arrays."""
    if values is None:
        return []
    if hasattr(values, "starts"):
        return [np.asarray(values.values), np.asarray(values.starts)]
    return [np.asarray(values)]


def twin(case: Case) -> Check:
    """The same classes, rows, and encoded values as another case's."""

    @check(f"the same data as {case.name!r}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        model = other(case)
        if model.data is None:
            return f"the clean twin fails: {model.refusal or model.crash}"
        if seen.data.spec.labels != model.data.spec.labels:
            return f"classes {seen.data.spec.labels}, those of the twin {model.data.spec.labels}"
        if seen.data.rows != model.data.rows:
            return f"rows {seen.data.rows}, those of the twin {model.data.rows}"
        for part in ("train", "validation", "test"):
            for name, mine, its in zip("xy", seen.data.parts[part], model.data.parts[part]):
                for left, right in zip(arrays(mine), arrays(its), strict=True):
                    if left.shape != right.shape or not np.allclose(left, right, rtol=1e-5, atol=1e-6):
                        return f"{name} of {part} differs from the twin's"
        return None

    return holds


def texts(*expected: str) -> Check:
    """Texts that must be among the rows, letter by letter."""

    @check(f"texts {', '.join(text[:30] + '...' * (len(text) > 30) for text in map(repr, expected))}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        found = set().union(
            *(set(part.x["text"]) for part in (seen.splits.train, seen.splits.validation, seen.splits.test))
        )
        missing = [text for text in expected if text not in found]
        return f"no row is {missing[0][:60]!r}" if missing else None

    return holds


def answers(expected: int) -> Check:
    """How many predictions there are, each with a label or a value that is finite."""

    @check(f"{expected} predictions")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        return None if len(seen.answers) == expected else f"{len(seen.answers)} predictions"

    return holds


def row_numbers(*expected: int) -> Check:
    """The row numbers of the predictions."""

    @check(f"rows {', '.join(map(str, expected))}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        found = [answer.get("row") for answer in seen.answers]
        return None if found == list(expected) else f"rows {found}"

    return holds


def same_answers(case: Case, order: list[int] | None = None) -> Check:
    """The predictions of another case, those of its rows (from 0) in `order` where given."""

    @check(f"the predictions of {case.name!r}")
    def holds(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        model = other(case)
        if model.refusal or model.crash:
            return f"the clean twin fails: {model.refusal or model.crash}"
        wanted = model.answers if order is None else [model.answers[row] for row in order]
        if len(seen.answers) != len(wanted):
            return f"{len(seen.answers)} predictions where {len(wanted)} are right"
        for number, (mine, its) in enumerate(zip(seen.answers, wanted), 1):
            for key in its.keys() - {"row", "file"}:
                if isinstance(its[key], float):
                    if not np.isclose(mine.get(key, np.nan), its[key], rtol=1e-4, atol=2e-6):
                        return f"prediction {number}: {key} {mine.get(key)}, the twin's {its[key]}"
                elif mine.get(key) != its[key]:
                    return f"prediction {number}: {key} {mine.get(key)!r}, the twin's {its[key]!r}"
        return None

    return holds
