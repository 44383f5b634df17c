"""Pairs of conversations: formats, supervised tokens and refusals."""

import pandas as pd
import pytest
from tests.data.test_chat import CHAT, TEMPLATES, preprocessor, tokenizer  # noqa: F401  a fixture

from warmstart.core.errors import UserError
from warmstart.data.preprocess.chat import NONE, Preprocessor
from warmstart.data.readers.preferences import pairs_to_rows, to_pairs

QUESTION, GOOD, BAD = "And of Peru?", "Lima, of course.", "Cusco."
USER, CHOSEN, REJECTED = (
    {"role": role, "content": text} for role, text in (("user", QUESTION), ("assistant", GOOD), ("assistant", BAD))
)
FORMATS = {
    "texts": {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD},
    "messages": {"prompt": [USER], "chosen": [CHOSEN], "rejected": [REJECTED]},
    "complete": {"chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
    "complete, with prompt": {"prompt": QUESTION, "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
}


@pytest.mark.parametrize("name", FORMATS)
def test_all_formats_give_the_same_pairs(name):
    pairs = to_pairs(pd.DataFrame([FORMATS[name]], dtype=object), "x")
    assert pairs == [([USER, CHOSEN], [USER, REJECTED])]


WRONG = {
    "no column": ({"prompt": "a", "chosen": "b"}, r"has no pairs: it needs columns chosen and rejected .* has prompt"),
    "empty": ({"prompt": "a", "chosen": "b", "rejected": " "}, r"row 0, column rejected, message 2: .* is empty"),
    "missing": ({"prompt": "a", "chosen": None, "rejected": "c"}, r"row 0, column chosen, message 2: .* is empty"),
    "no prompt": ({"chosen": "b", "rejected": "c"}, r"row 0: chosen is a text without a prompt: add a column prompt"),
    "other prompts": ({"chosen": CHAT[:2], "rejected": CHAT[2:]}, "row 0: chosen and rejected have no common prompt"),
    "no completion": ({"chosen": CHAT[:2], "rejected": CHAT}, "row 0: chosen has no completion"),
    "other question": (
        {"chosen": [*CHAT[:2], USER, CHOSEN], "rejected": [*CHAT[:2], {**USER, "content": "Why?"}, CHOSEN]},
        "message 3 of chosen is the first that differs, and it is of user",
    ),
    "unused prompt": (
        {"prompt": "x", "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
        "remove the column prom",
    ),
    "equal": (
        {"prompt": "a", "chosen": "b", "rejected": "b "},
        r"are equal in 1 of 2 rows, the first is row 0: remove",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_malformed_pairs_are_refused(name):
    row, message = WRONG[name]
    rows = [row, FORMATS["texts"]] if name == "equal" else [row]
    with pytest.raises(UserError, match=message):
        to_pairs(pd.DataFrame(rows, dtype=object), "x.jsonl")


def supervised(processor: Preprocessor, *pairs: tuple) -> list[list[str]]:
    """Return the supervised text of both conversations of each pair."""
    x, y = processor.align(pairs_to_rows(list(pairs)), None, "pairs")
    assert (len(x), len(y)) == (len(pairs), len(pairs))
    tokens, labels = x.padded(slice(None))[0], y.padded(slice(None))[0]
    assert ((labels == NONE) | (labels == tokens)).all()
    found = [row[own != NONE].tolist() for row, own in zip(tokens, labels)]
    texts = [processor.backend_tokenizer.decode(row, skip_special_tokens=False) for row in found]
    return [list(pair) for pair in zip(texts[: len(pairs)], texts[len(pairs) :])]


@pytest.mark.parametrize("name", ["plain", "llama3", "marked"])
def test_only_what_follows_the_common_start_is_supervised(tokenizer, name):  # noqa: F811
    template, expected = TEMPLATES[name]
    end = expected[1].removeprefix(GOOD)
    processor = preprocessor(tokenizer, template)
    pairs = ([*CHAT[:2], USER, CHOSEN], [*CHAT[:2], USER, REJECTED]), ([USER, CHOSEN], [USER, REJECTED])
    assert supervised(processor, *pairs) == [[GOOD + end, BAD + end]] * 2


def test_earlier_messages_of_a_prompt_may_change(tokenizer):  # noqa: F811
    processor = preprocessor(tokenizer, TEMPLATES["qwen3"][0])
    ((chosen, rejected),) = supervised(processor, ([*CHAT[:2], USER, CHOSEN], [*CHAT[:2], USER, REJECTED]))
    assert GOOD in chosen
    assert BAD in rejected
    assert "Paris" not in chosen + rejected


def test_pairs_that_are_equal_after_truncation_are_refused(tokenizer):  # noqa: F811
    pair = [USER, CHOSEN], [USER, {**CHOSEN, "content": f"{GOOD} No, Cusco."}]
    whole = preprocessor(tokenizer).align(pairs_to_rows([pair]), None, "pairs")[0]
    short = preprocessor(tokenizer, context=int(whole.lengths[0]) - 14)
    with pytest.raises(UserError, match=r"the tokens of 1 of 1 pairs do not differ, the first starts with 'User: And"):
        short.align(pairs_to_rows([pair]), None, "pairs")


def test_the_template_of_the_initial_weights_is_kept(tokenizer):  # noqa: F811
    start, own = preprocessor(tokenizer, "chatml"), preprocessor(tokenizer)
    assert start.adapted(own).template == "chatml"
    assert own.adapted(start).template == "chatml"
