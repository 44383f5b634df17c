"""Normalization of texts before word error rates are computed (Radford et al. 2022, appendix C)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Normalizer = Literal["none", "basic", "english"]


def normalizer_of(name: Normalizer) -> Callable[[str], str]:
    """Return a function that normalizes a text.

    `basic` removes case, punctuation and text in brackets; `english` also spells out contractions and writes numbers as
    digits, without a table of British spellings, which transformers does not have.
    """
    if name == "none":
        return str
    from transformers.models.whisper import english_normalizer

    return (
        english_normalizer.EnglishTextNormalizer({}) if name == "english" else english_normalizer.BasicTextNormalizer()
    )
