"""A setting outside the type or range in its signature is refused with its name, value and valid range."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.utils import get_object

from warmstart.config.signature import check_settings
from warmstart.core.errors import UserError

COUNT, AMOUNT = "a whole number above 0", "a number, 0 or more"
TEXT, IMAGES = "data.preprocess.text.Preprocessor", "data.sources.image.image_table.ImageTable"


@pytest.mark.parametrize(
    ("component", "setting", "value", "expected"),
    [
        ("backbone.transformer.Transformer", "mlp", "relu", "gelu, geglu or swiglu"),
        ("backbone.transformer.Transformer", "norm", "batch", "layer or rms"),
        ("backbone.transformer.Transformer", "position", "sine", "learned or rotary"),
        ("backbone.transformer.Transformer", "pooling", "max", "cls, mean or last, or null"),
        ("backbone.transformer.Transformer", "window", 0, f"{COUNT}, or null"),
        ("backbone.mlp.MLP", "hidden", [], "a list of one or more whole numbers above 0"),
        ("backbone.speech_stem.FrameStem", "kernel_size", 4, "an odd whole number above 0"),
        ("huggingface.image.HuggingFaceImages", "pooling", "last", "cls, mean or pooler, or null"),
        ("huggingface.text.HuggingFace", "pooling", "max", "cls, mean or last, or null"),
        ("objective.ctc.CTC", "beam", 0, COUNT),
        ("objective.ctc.CTC", "ngram", -1, "a whole number, 0 or more"),
        ("objective.ctc.CTC", "ngram_weight", -1.0, AMOUNT),
        ("objective.multitask.MultiTask", "weights", {"a": -1.0}, f"settings by name, each {AMOUNT}"),
        ("objective.multitask.MultiTask", "weights", {"a": float("nan")}, f"settings by name, each {AMOUNT}"),
        ("objective.span_qa.SpanQA", "longest", 0, COUNT),
        ("data.sources.vectors.Vectors", "rows", 19, "a whole number, 20 or more"),
        ("data.sources.vectors.Vectors", "classes", 1, "a whole number, 2 or more"),
        ("data.sources.vectors.Vectors", "directions", 0, COUNT),
        (IMAGES, "on_error", "ignore", "raise or skip"),
        (IMAGES, "channels", 2, "1 or 3"),
        (IMAGES, "memory_mb", -1, AMOUNT),
        (IMAGES, "separator", ";;", "one character"),
        (TEXT, "too_long", "cut", "truncate or error"),
        (TEXT, "model", "words", "wordpiece, bpe, unigram or characters"),
        (TEXT, "context", 4, "a whole number from 8 to"),
        ("data.sources.text.text_files.TextFiles", "rows", "word", "document, paragraph or line"),
        ("training.schedule.cosine", "warmup", 1.5, "a number from 0 to 1"),
        ("training.muon.Muon", "adam_scale", 0.0, "a number above 0"),
    ],
)
def test_a_setting_outside_its_range_is_refused(component: str, setting: str, value: Any, expected: str):
    function = get_object(f"warmstart.{component}")
    with pytest.raises(UserError) as refused:
        check_settings(function, {setting: value}, "group", is_complete=False)
    assert str(refused.value).startswith(f"group.{setting}={value}: must be {expected}")
