"""`init=` is parsed into a value and formatted back to the same text."""

from __future__ import annotations

import pytest

from warmstart.core.errors import UserError
from warmstart.core.init import Init

WORDS = {
    "scratch": Init("scratch"),
    "latest": Init("latest"),
    "shuffled:latest": Init("latest", shuffled=True),
    "outputs/pretrain/x/1": Init("folder", "outputs/pretrain/x/1"),
    "./scratch": Init("folder", "./scratch"),
    "shuffled:outputs/x": Init("folder", "outputs/x", shuffled=True),
    "hf:": Init("hub"),
    "hf:google/vit": Init("hub", "google/vit"),
    "shuffled:hf:../vit": Init("hub", "../vit", shuffled=True),
    "random:hf:vit": Init("hub", "vit", random=True),
    "static:pmi": Init("static", "pmi"),
    "static:hf:bert": Init("static", "hf:bert"),
    "static:patches": Init("static", "patches"),
    "shuffled:random:hf:vit": Init("hub", "vit", shuffled=True, random=True),
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_read_and_written_back(word: str):
    assert Init.parse(word) == WORDS[word]
    assert str(Init.parse(word)) == word


@pytest.mark.parametrize("word", ["random:scratch", "random:outputs/x", "random:shuffled:hf:vit", "random:"])
def test_only_a_model_of_the_hub_can_be_random(word: str):
    with pytest.raises(UserError, match=f"^init={word}: random: goes before hf:NAME_OR_DIR$"):
        Init.parse(word)


def test_what_is_opened_and_whether_its_weights_are_used():
    assert str(Init.parse("shuffled:random:hf:vit").source) == "hf:vit"
    cold = [word for word in WORDS if Init.parse(word).is_scratch]
    assert cold == [
        "scratch",
        "random:hf:vit",
        "shuffled:random:hf:vit",
    ]
