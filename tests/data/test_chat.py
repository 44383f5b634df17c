"""Conversations: supervised tokens by chat template, packing, and refusals."""

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from warmstart.core.errors import UserError
from warmstart.data.preprocess.chat import NONE, Preprocessor
from warmstart.data.preprocess.chat_template import ChatTemplate
from warmstart.data.readers.chats import to_rows
from warmstart.data.storage.ragged import PackedRows, assign_blocks

SPECIAL = [
    *("<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "[INST]", "[/INST]"),
]
CHAT = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "It is Paris."},
    {"role": "user", "content": "And:\nof Peru?"},
    {"role": "assistant", "content": "Lima, of course."},
]

# The structure of public templates, and the supervised parts of CHAT, marked by hand; None if earlier messages change.
TEMPLATES = {
    "plain": (None, ["It is Paris.</s>", "Lima, of course.</s>"]),
    "qwen2": (
        "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}"
        "{%- else %}{{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}{%- endif %}"
        "{%- for message in messages %}{%- if not (loop.first and message.role == 'system') %}"
        "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        ["It is Paris.<|im_end|>", "Lima, of course.<|im_end|>"],
    ),
    "llama3": (
        "{{- bos_token }}{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + "
        "'<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}",
        ["It is Paris.<|eot_id|>", "Lima, of course.<|eot_id|>"],
    ),
    "mistral": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% if message['role'] == 'user' %}"
        "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}"
        "{% endif %}{% endfor %}",
        [" It is Paris.</s>", " Lima, of course.</s>"],
    ),
    "gemma": (
        "{{ bos_token }}{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else "
        "message['role'] %}{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        ["It is Paris.<end_of_turn>", "Lima, of course.<end_of_turn>"],
    ),
    "marked": (
        "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% if message['role'] == 'assistant' %}"
        "{% generation %}{{ message['content'] + '<|end|>' }}{% endgeneration %}{% else %}{{ message['content'] }}"
        "{% endif %}{% endfor %}",
        ["It is Paris.<|end|>", "Lima, of course.<|end|>"],
    ),
    "deepseek": (  # whose prompt has a token that a complete conversation has not
        "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}{{ '<|user|>' + message.content }}"
        "{% else %}{{ '<|assistant|>' + message.content + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|><think>\\n' }}{% endif %}",
        ["It is Paris.</s>", "Lima, of course.</s>"],
    ),
    "phi3": (  # ends a complete conversation with a further token
        "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}",
        None,
    ),
    "qwen3": (  # keeps the thinking of the last message only
        "{%- for message in messages %}{%- if message.role == 'assistant' and loop.last %}"
        "{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + message.content + '<|im_end|>\\n' }}{%- else %}"
        "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
        None,
    ),
}


@pytest.fixture(scope="module")
def tokenizer():
    """A byte-level tokenizer with the special tokens of all templates."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet, texts = pre_tokenizers.ByteLevel.alphabet(), [message["content"] for message in CHAT] * 3
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def preprocessor(tokenizer, template=None, context=512, **settings):
    """Return a preprocessor of conversations with this tokenizer."""
    roles = {"padding": "<pad>", "unknown": None, "begin": "<s>", "end": "</s>", "mask": None}
    return Preprocessor(template, tokenizer=tokenizer, roles=roles, context=context, **settings)


def supervised(processor, *conversations):
    """Return the supervised parts of each conversation as texts."""
    x, y = processor.align(to_rows(list(conversations)), None, "completion")
    assert ((y.values == NONE) | (y.values == x.values)).all()
    found = []
    for start, end in zip(x.starts, x.starts[1:]):
        ids, labels = x.values[start:end], y.values[start:end]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], labels != NONE, [0]])))
        pieces = [ids[a:b].tolist() for a, b in edges.reshape(-1, 2)]
        found.append([processor.backend_tokenizer.decode(piece, skip_special_tokens=False) for piece in pieces])
    return found


@pytest.mark.parametrize("name", TEMPLATES)
def test_supervised_tokens_equal_those_marked_by_hand(tokenizer, name):
    template, expected = TEMPLATES[name]
    last = supervised(preprocessor(tokenizer, template, supervise="last"), CHAT[:2], CHAT)
    if expected is None:
        with pytest.raises(UserError, match=r"set\s+data.supervise=last"):
            supervised(preprocessor(tokenizer, template), CHAT)
        assert [len(found) for found in last] == [1, 1]
        assert "It is Paris.<|" in last[0][0]
        assert "Lima, of course.<|" in last[1][0]
        assert "Peru" not in last[1][0]
        return
    assert supervised(preprocessor(tokenizer, template), CHAT, CHAT[:2]) == [expected, expected[:1]]
    assert last == [expected[:1], expected[1:]]


def test_all_supervises_everything_after_the_first_token(tokenizer):
    processor = preprocessor(tokenizer, supervise="all")
    (found,) = supervised(processor, CHAT[:2])
    assert found == ["User:\nWhat is the capital of France?\nAssistant:\nIt is Paris.</s>\n"]


def test_the_screen_shows_what_is_supervised(tokenizer, capsys):
    processor = preprocessor(tokenizer)
    x, y = processor.align(to_rows([CHAT[:2]]), None, "completion")
    count = int((y.values != NONE).sum())
    assert f"{count / len(x.values):.0%} of the {len(x.values)} tokens of 1 conversations are supervised" in (
        capsys.readouterr().err
    )
    shown = processor.marked(x.values.tolist(), y.values.tolist())
    assert shown == "<s>User:\nWhat is the capital of France?\nAssistant:\n[[It is Paris.</s>]]\n"


def test_white_space_and_stripping_end_tokens_are_supervised(tokenizer):
    state = Tokenizer.from_str(tokenizer)
    state.post_processor = processors.ByteLevel(trim_offsets=True)
    state.add_special_tokens([AddedToken("<|im_end|>", rstrip=True)])
    code = [{"role": "user", "content": "Code"}, {"role": "assistant", "content": "if x:\n\n    y"}]
    processor = preprocessor(state.to_str(), TEMPLATES["qwen2"][0])
    (found,) = supervised(processor, code)
    assert [part.rstrip() for part in found] == ["if x:\n\n    y<|im_end|>"]


def test_a_word_with_the_space_before_it_is_supervised(tokenizer):
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    paris = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Paris"}]
    assert supervised(preprocessor(tokenizer, template), paris) == [[" Paris</s>"]]


def test_truncated_completions_are_counted_and_missing_ones_refused(tokenizer, capsys):
    whole = preprocessor(tokenizer).align(to_rows([CHAT]), None, "completion")[0]
    short = preprocessor(tokenizer, context=len(whole.values) - 4)
    short.align(to_rows([CHAT]), None, "completion")
    assert "1 of 1 completions are truncated to data.tokenizer.context=" in capsys.readouterr().err
    long = [CHAT[0]] * 3 + CHAT[1:2]
    with pytest.raises(
        UserError, match=r"1 of 2 conversations have no supervised token, the first starts with 'User: What"
    ):
        preprocessor(tokenizer, context=40).align(to_rows([CHAT[2:], long]), None, "completion")


def test_template_that_drops_or_refuses_messages_is_refused(tokenizer):
    dropping = (
        "{% for message in messages %}{% if message.role != 'system' %}{{ message.content }}</s>{% endif %}{% endfor %}"
    )
    system = {"role": "system", "content": "us"}
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    with pytest.raises(UserError, match="drops the tool calls of message 2"):
        supervised(preprocessor(tokenizer), [CHAT[0], called, *CHAT])
    with pytest.raises(UserError, match=r"conversation 1, .* drops message 1, of system"):
        supervised(preprocessor(tokenizer, dropping), [system, *CHAT])
    with pytest.raises(UserError, match="does not support these messages: roles must alternate"):
        supervised(preprocessor(tokenizer, TEMPLATES["mistral"][0]), [CHAT[0], *CHAT])


def test_packed_rows_are_complete_and_separate(tokenizer):
    x, y = preprocessor(tokenizer).align(to_rows([CHAT[:2], CHAT, CHAT[2:], CHAT[:2]]), None, "completion")
    blocks = assign_blocks(x.lengths, int(x.lengths.max()) + 10)
    assert sorted(row for block in blocks for row in block) == [0, 1, 2, 3]
    assert len(blocks) < 4
    ids, documents = PackedRows(x, blocks).padded(slice(None))
    labels = PackedRows(y, blocks).index_select(0, slice(None))
    for number, block in enumerate(blocks):
        for document, row in enumerate(block, 1):
            inside = documents[number] == document
            assert ids[number][inside].tolist() == x.padded([row])[0][0].tolist()
            assert labels[number][inside].tolist() == y.padded([row])[0][0].tolist()
        assert (labels[number][documents[number] == 0] == NONE).all()


def test_examples_that_fit_precede_a_row_without_labels(tokenizer):
    processor = preprocessor(tokenizer)
    system = {"role": "system", "content": "Be brief."}
    x, y = processor.with_examples(to_rows([[system, *CHAT[2:]]]), to_rows([CHAT[:2], CHAT[:2]]))
    expected = processor.align(to_rows([[system, *CHAT[:2], *CHAT[:2], *CHAT[2:]]]), None, "completion")[0]
    assert x.values.tolist() == expected.values.tolist()
    assert processor.decode(y.values[y.values != NONE].tolist()) == "Lima, of course."
    short = preprocessor(tokenizer, context=len(x.values) - 1)
    assert len(short.with_examples(to_rows([[system, *CHAT[2:]]]), to_rows([CHAT[:2], CHAT[:2]]))[0].values) < len(
        x.values
    )


def test_a_message_may_have_several_marked_parts():
    part = "{% generation %}{{ word + ' ' }}{% endgeneration %},"
    of_assistant = "{% for word in message.content.split() %}" + part + "{% endfor %}"
    template = ChatTemplate(
        "{% for message in messages %}{{ message.role }}:{% if message.role == 'assistant' %}"
        + of_assistant
        + "{% else %}{{ message.content }}{% endif %};{% endfor %}",
        {},
    )
    messages = [
        {"role": role, "content": content}
        for role, content in (("user", "a"), ("assistant", "one two"), ("user", "b"), ("assistant", "three"))
    ]
    for supervise, start, expected in (
        ("assistant", 0, ["one ", "two ", "three "]),
        ("last", 0, ["three "]),
        ("assistant", 2, ["three "]),
    ):
        text, spans = template.spans(messages, supervise, start)
        assert [text[begin:end] for begin, end in spans] == expected
