"""The initial weights with their own head, without training."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from warmstart.core.batch import Rows
from warmstart.core.protocols import Baseline, Preprocessor


class ZeroShot(Baseline):
    """The outputs of the head of the initial weights, which must be for exactly these labels, or a language model's.

    A language model predicts completions, pairs of them, rated ones, or a class by the most likely of the label words.
    """

    target_kinds: ClassVar = frozenset({"category", "categories", "value", "completion", "pairs", "rated", "sequence"})
    start: ClassVar = "outputs"

    def encoded(
        self, preprocessor: Preprocessor, rows: Rows, examples: Rows, seed: int, words: tuple[str, ...] | None
    ) -> tuple[Any, Any]:
        return preprocessor.label_prompts(rows.x), None

    def inputs(self, preprocessor: Preprocessor, raw: Any, encoded: Any) -> Any:
        """Return the outputs of the head (N, C)."""
        return encoded

    def models(self, target: str, outputs: int, rows: int, seed: int) -> Iterator[Untouched]:
        yield Untouched()


class Untouched:
    """A model whose inputs are its outputs."""

    def outputs(self, x: np.ndarray) -> Tensor:
        """Return the inputs (N, C)."""
        return torch.from_numpy(x)
