"""Render conversations by the chat template of a tokenizer, and find the text of the assistant."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from warmstart.core.errors import UserError

Supervise = Literal["assistant", "last", "all"]
Span = tuple[int, int]  # start and end character

# Templates of this project, by name, for tokenizers without one. The model ends its turn with the end token.
NAMED = {
    "plain": (
        "{{ bos_token }}{% for message in messages %}{{ message.role | capitalize + ':\\n' }}"
        "{% if message.role == 'assistant' %}"
        "{% generation %}{{ (message.content or '') | trim + eos_token }}{% endgeneration %}"
        "{% else %}{{ (message.content or '') | trim }}{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
    ),
    "chatml": (
        "{% for message in messages %}{{ '<|im_start|>' + message.role + '\\n' }}"
        "{% if message.role == 'assistant' %}"
        "{% generation %}{{ (message.content or '') | trim + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ (message.content or '') | trim + '<|im_end|>' }}{% endif %}{{ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
}
NEEDED = {
    "plain": None,
    "chatml": "<|im_end|>",
}  # the token that ends a message; None for the end token of the tokenizer
DATE = "26 Jul 2024"  # for templates that print today's date, so that a run does not depend on it
MARKER = "\u2060{}\u2060"  # a content that no template contains
GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")  # the first that has a template


def own_template(files: Mapping[str, str]) -> str | None:
    """Return the chat template in the files of a tokenizer; None if there is none.

    Of several templates, it is the one called default.
    """
    for name in FILES:
        if name not in files:
            continue
        found = files[name] if name.endswith(".jinja") else json.loads(files[name]).get("chat_template")
        if isinstance(found, list):
            named = {one["name"]: one["template"] for one in found}
            found = named.get("default", next(iter(named.values()), None))
        if found:
            return found
    return None


class ChatTemplate:
    """A chat template with the special tokens that it may use.

    Args:
        text: the template, in the dialect of Jinja that transformers uses.
        tokens: special tokens by their names in transformers, such as eos_token.
    """

    def __init__(self, text: str, tokens: Mapping[str, str]):
        self.text, self.tokens = text, dict(tokens)
        self.has_marks = bool(GENERATION.search(text))

    def render(self, messages: Sequence[dict[str, Any]], is_prompt: bool = False) -> str:
        """Return the text of a conversation; of a prompt, with the start of the next message of the assistant.

        Raises:
            UserError: the template does not support the messages.
        """
        return self._render(messages, is_prompt, False)[0]

    def spans(self, messages: Sequence[dict[str, Any]], supervise: Supervise, start: int = 0) -> tuple[str, list[Span]]:
        """Return the text of a conversation, and its supervised spans: messages with their end-of-turn tokens.

        The spans are those that the template marks with `generation`. Without marks, a message begins where the text
        of the messages before it ends, with the start of a message of the assistant.

        Args:
            supervise: assistant for all of its messages, last for its last one, all for the complete text.
            start: index of the first message to supervise.

        Raises:
            UserError: the template does not support the messages, drops one, or changes earlier ones.
        """
        text, spans = self._render(messages, False, self.has_marks and supervise != "all")
        self._check_complete(messages, text)
        if supervise == "all":
            return text, [(_common(self.render(messages[:start]), text) if start else 0, len(text))]
        numbers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        chosen = [number for number in numbers if number >= start] if supervise == "assistant" else numbers[-1:]
        if not self.has_marks:
            return text, [self._span(messages, number, text) for number in chosen]
        if len(spans) == len(numbers):
            return text, spans[len(spans) - len(chosen) :]
        return text, spans if len(chosen) == len(numbers) else spans[self._marks_before(messages, chosen, spans) :]

    def _marks_before(self, messages: Sequence[dict[str, Any]], chosen: Sequence[int], spans: Sequence[Span]) -> int:
        """Return the number of marked spans before the first of the chosen messages; a message may have several.

        Raises:
            UserError: the template marks the messages before it in another way if others follow.
        """
        if not chosen:
            return len(spans)
        count = len(self._render(messages[: chosen[0]], False, True)[1])
        start = len(self.render(messages[: chosen[0]]))
        if any(end > start for _, end in spans[:count]) or any(begin < start for begin, _ in spans[count:]):
            raise UserError(
                f"the chat template marks earlier messages differently if others follow, so the parts of message "
                f"{chosen[0] + 1} cannot be found: set data.supervise=assistant"
            )
        return count

    def _render(self, messages: Sequence[dict[str, Any]], is_prompt: bool, marks: bool) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        settings = {"add_generation_prompt": is_prompt, "return_assistant_tokens_mask": marks, **self.tokens}
        if "strftime_now" in self.text:
            settings["date_string"] = DATE
        try:
            texts, spans = render_jinja_template([list(messages)], chat_template=self.text, **settings)
        except Exception as error:  # templates raise many classes of errors
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"the chat template does not support these messages: {reason}") from error
        return texts[0], [tuple(span) for span in spans[0]] if marks else []

    def _check_complete(self, messages: Sequence[dict[str, Any]], text: str) -> None:
        """Raise UserError if the content or the tool calls of a message are not in the text."""
        marked = [{**message, "content": MARKER.format(number)} for number, message in enumerate(messages)]
        found = self.render(marked)
        for number, message in enumerate(messages):
            if MARKER.format(number) not in found and (message.get("content") or "").strip():
                raise UserError(
                    f"the chat template drops message {number + 1}, of {message['role']}: set data.template=plain, or "
                    "remove the message"
                )
            if message.get("tool_calls"):
                without = [*messages[:number], {**message, "tool_calls": None}, *messages[number + 1 :]]
                if self.render(without) == text:
                    raise UserError(f"the chat template drops the tool calls of message {number + 1}: remove them")

    def _span(self, messages: Sequence[dict[str, Any]], number: int, text: str) -> Span:
        """Return the span of a message of the assistant in the text of the conversation."""
        prompt, earlier = self.render(messages[:number], True), self.render(messages[:number])
        first = len(prompt)
        if not text.startswith(prompt):  # the prompt has what a complete conversation has not, such as thinking
            size = _common(prompt, text)
            line = prompt.rfind("\n", 0, size) + 1
            first = line if text.startswith(earlier) and line > len(earlier) else size
        is_last = number + 1 == len(messages)
        after = text if is_last else self.render(messages[: number + 1])
        if not text.startswith(after) or len(after) <= first:
            raise UserError(
                f"the chat template changes message {number + 1} if others follow, so its text cannot be found: set "
                "data.supervise=last"
            )
        return first, first + self._length(after[first:])

    def _length(self, message: str) -> int:
        """Return the length of a message without the white space after its end-of-turn token."""
        stripped = message.rstrip()
        return len(stripped) if stripped.endswith(self._ends) else len(message)

    @functools.cached_property
    def _ends(self) -> tuple[str, ...]:
        return (*filter(None, self.tokens.values()), "|>", "</s>", "_turn>")


def _common(one: str, other: str) -> int:
    """Return the length of the common start of two texts."""
    return next((n for n, pair in enumerate(zip(one, other)) if pair[0] != pair[1]), min(len(one), len(other)))
