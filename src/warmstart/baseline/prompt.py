"""The initial weights without training, given examples in their context."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from warmstart.baseline.zero_shot import Untouched
from warmstart.core.batch import Rows
from warmstart.core.protocols import Baseline, Preprocessor
from warmstart.core.ranges import PositiveInt


class Prompt(Baseline):
    """A language model with random training rows as examples before each row, as in Brown et al. (2020).

    All rows of a run have the same examples, in the same order, as many as fit into the context. The class of a row is
    that of the most likely label word.

    Args:
        examples: number of examples.
    """

    target_kinds: ClassVar = frozenset({"completion", "category"})
    start: ClassVar = "outputs"
    has_examples: ClassVar = True

    def __init__(self, examples: PositiveInt = 4):
        self.examples = examples

    def encoded(
        self, preprocessor: Preprocessor, rows: Rows, examples: Rows, seed: int, words: tuple[str, ...] | None
    ) -> tuple[Any, Any]:
        shown = examples.take(np.random.default_rng(seed).permutation(len(examples))[: self.examples])
        if words is None:
            return preprocessor.with_examples(rows.x, shown.x)
        return preprocessor.label_prompts(rows.x, shown.x, [words[number] for number in shown.y]), None

    def inputs(self, preprocessor: Preprocessor, raw: Any, encoded: Any) -> Any:
        """Return the outputs of the head (N, C)."""
        return encoded

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Untouched]:
        yield Untouched()
