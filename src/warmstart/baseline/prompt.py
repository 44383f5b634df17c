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

    All rows of a run have the same examples, in the same order, as many as fit into the context.

    Args:
        examples: number of examples.
    """

    target_kinds: ClassVar = frozenset({"completion"})
    start: ClassVar = "outputs"
    has_examples: ClassVar = True

    def __init__(self, examples: PositiveInt = 4):
        self.examples = examples

    def encoded(self, preprocessor: Preprocessor, rows: Rows, examples: Rows, seed: int) -> tuple[Any, Any]:
        chosen = np.random.default_rng(seed).permutation(len(examples))[: self.examples]
        return preprocessor.with_examples(rows.x, examples.take(chosen).x)

    def inputs(self, preprocessor: Preprocessor, raw: Any, encoded: Any) -> Any:
        """Return the outputs of the head (N, C)."""
        return encoded

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Untouched]:
        yield Untouched()
