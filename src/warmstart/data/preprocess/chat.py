"""Preprocessor of conversations: texts by a chat template, with the tokens that are supervised."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from tokenizers import Tokenizer
from torch import Tensor

from warmstart.core import screen
from warmstart.core.batch import Inputs, Prompt
from warmstart.core.errors import UserError
from warmstart.data.duplicates.comparison import Overlap
from warmstart.data.duplicates.text import TextRows
from warmstart.data.preprocess import rated, text, tokenizing
from warmstart.data.preprocess.chat_template import NAMED, NEEDED, ChatTemplate, Supervise, own_template
from warmstart.data.readers.chats import Message, as_prompt, plain, to_conversations, to_prompts, to_rows, user
from warmstart.data.readers.files import read_lines, suffix_of
from warmstart.data.readers.preferences import completion_start, pairs_to_rows, to_pairs
from warmstart.data.readers.table import read_table
from warmstart.data.storage import cache
from warmstart.data.storage.ragged import Pairs, Ragged

CHUNK = 2_000  # conversations tokenized at a time
NONE = -100  # label of tokens that are not supervised, as in transformers
PARTS = ("values", "starts", "labels")


class Preprocessor(text.Preprocessor):
    """Raw inputs are tables with the columns `text` and `messages` (data.readers.chats.to_rows).

    Pairs of conversations also have a column `rejected` (data.readers.preferences.pairs_to_rows), rated conversations
    columns `label` and `first` (data.readers.ratings.rated_to_rows).

    Args:
        template: a named template, or a template in the dialect of Jinja; None for that of the tokenizer.
        supervise: assistant, last or all; see `ChatTemplate.spans`.
        **settings: those of a preprocessor of texts.
    """

    abilities: ClassVar = text.Preprocessor.abilities | {"marked", "messages"}

    def __init__(self, template: str | None = None, supervise: Supervise = "assistant", **settings: Any):
        super().__init__(**settings)
        self.template, self.supervise = template, supervise

    @classmethod
    def of(cls, own: text.Preprocessor, template: str | None, supervise: Supervise) -> Preprocessor:
        """Return a preprocessor of conversations with the settings of one of texts."""
        settings = {name: value for name, value in own.state().items() if name != "kind"}
        return cls(template, supervise, **settings)

    def fit(self, x: pd.DataFrame) -> None:
        """Train the tokenizer on the conversations as plain text."""
        super().fit(x[["text"]])

    @property
    def names(self) -> None:
        """None: the format of the conversations is detected."""

    @functools.cached_property
    def chat_template(self) -> ChatTemplate:
        """The template with the special tokens of the tokenizer.

        Raises:
            UserError: a tokenizer of a pretrained model has no template.
        """
        own = own_template(self.files or {})
        if self.template is None and own is None and self.files:
            raise UserError(
                f"the tokenizer of this model has no chat template: set data.template to {' or '.join(NAMED)}"
            )
        tokens = self._special_tokens()
        if self.template is None and own is not None:
            return ChatTemplate(own, tokens)
        name = "plain" if self.template is None else self.template
        if name in NAMED and self.backend_tokenizer.token_to_id(end := NEEDED[name] or tokens["eos_token"]) is None:
            raise UserError(
                f"data.template={name} ends messages with the token {end or 'eos_token'}, which the tokenizer does not "
                "have: set another one"
            )
        return ChatTemplate(NAMED.get(name, name), tokens)

    def adapted(self, own: text.Preprocessor) -> text.Preprocessor:
        """Return this tokenizer with the settings of another preprocessor, and this template unless it has one."""
        found = super().adapted(own)
        if isinstance(found, Preprocessor) and found.template is None:
            found.template = self.template
        return found

    @functools.cached_property
    def offset_tokenizer(self) -> Tokenizer:
        """The tokenizer without a post-processor, which may trim white space from the offsets of tokens."""
        state = json.loads(self.backend_tokenizer.to_str())
        return Tokenizer.from_str(json.dumps({**state, "post_processor": None}))

    def _special_tokens(self) -> dict[str, str]:
        """Return the special tokens by their names in transformers, which templates use."""
        roles = {"bos_token": "begin", "eos_token": "end", "pad_token": "padding", "unk_token": "unknown"}
        found = {name: self.roles.get(role) or "" for name, role in roles.items()}
        settings = json.loads((self.files or {}).get(tokenizing.SETTINGS, "{}"))
        for name, token in settings.items():
            token = token.get("content") if isinstance(token, dict) else token
            if name.endswith("_token") and isinstance(token, str):
                found[name] = token
        return found

    def encode(self, x: pd.DataFrame) -> Ragged:
        """Return token ids; longer conversations are truncated to the context in batches."""
        return self.untruncated(x)

    def untruncated(self, x: pd.DataFrame) -> Ragged:
        """Return all token ids, with one row per conversation."""
        values, starts, _ = self._tokens(x)
        return Ragged(values, starts, np.diff(starts), self.vocabulary.padding, self.context)

    def align(self, x: pd.DataFrame, y: Any, target: str) -> tuple[Any, Any]:
        """Return token ids, and labels of the same lengths: the id of a supervised token, -100 elsewhere.

        Prints the share of supervised tokens, and how many rows are truncated. For pairs, both are `Pairs`, and only
        what follows the common start of both conversations is supervised. For rated conversations: `rated.align`.

        Raises:
            UserError: the template does not support a conversation, a row has no supervised token, or the
                conversations of a pair do not differ.
        """
        if target == "pairs":
            return self._pairs(x)
        if target == "rated":
            return rated.align(self, x)
        tokens, labels = self.untruncated(x), self.labels(x)
        self._check_supervised(x, tokens, labels.values)
        return tokens, labels

    def labels(self, x: pd.DataFrame) -> Ragged:
        """Return the labels of all tokens, with one row per conversation."""
        _, starts, labels = self._tokens(x)
        return Ragged(labels, starts, np.diff(starts), NONE, self.context)

    def _pairs(self, x: pd.DataFrame) -> tuple[Pairs, Pairs]:
        """Return token ids and labels of the conversations in `messages` and in `rejected`."""
        both = [[json.loads(messages) for messages in x[name]] for name in ("messages", "rejected")]
        first = [completion_start(*pair) for pair in zip(*both)]
        parts = [to_rows(conversations).set_index(x.index).assign(first=first) for conversations in both]
        rows = pd.concat(parts)
        tokens, labels = self.align(rows, None, "completion")
        equal = np.flatnonzero([self._are_equal(tokens, row, row + len(x)) for row in range(len(x))])
        if len(equal):
            raise UserError(
                f"the tokens of {len(equal):,} of {len(x):,} pairs do not differ, the first starts with "
                f"{_start(rows, int(equal[0]))!r}: remove them, or raise data.tokenizer.context={self.context} if they "
                "are truncated"
            )
        return Pairs(tokens), Pairs(labels)

    @staticmethod
    def _are_equal(tokens: Ragged, one: int, other: int) -> bool:
        """Return whether two rows are equal up to the context."""
        starts, lengths = tokens.starts, tokens.lengths
        first, second = (tokens.values[starts[row] : starts[row] + lengths[row]] for row in (one, other))
        return np.array_equal(first, second)

    def _tokens(self, x: pd.DataFrame) -> list[np.ndarray]:
        """Return the token ids of all rows (V,), the start of each row (N + 1,), and labels (V,), which are cached."""
        name = cache.key(
            self.tokenizer,
            json.dumps([self.chat_template.text, self.chat_template.tokens, self.supervise]),
            cache.texts_digest(x["messages"]),
            *([json.dumps(x["first"].tolist())] if "first" in x else []),
        )
        return cache.entry(
            "conversations", name, lambda folder: self._write(x, folder), lambda folder: cache.arrays(folder, PARTS)
        )

    def _write(self, x: pd.DataFrame, folder: Path) -> None:
        """Render and tokenize all conversations, and write tokens and labels."""
        values, labels = [np.zeros(0, np.int32)], [np.zeros(0, np.int32)]
        firsts = x["first"].tolist() if "first" in x else []
        for start in range(0, len(x), CHUNK):
            chunk = slice(start, start + CHUNK)
            for ids, own in self._encoded(map(json.loads, x["messages"].iloc[chunk]), firsts[chunk], start):
                values.append(ids)
                labels.append(own)
        np.save(folder / "values.npy", np.concatenate(values))
        np.save(folder / "labels.npy", np.concatenate(labels))
        np.save(folder / "starts.npy", np.cumsum([0, *map(len, values[1:])], dtype=np.int64))

    def _encoded(
        self, conversations: Iterable[list[Message]], firsts: Sequence[int] = (), start: int = 0
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the token ids (T,) and the labels (T,) of conversations.

        A token is supervised if a part of it is, such as a word with the space before it.

        Args:
            firsts: index of the first message with labels, by conversation; none for 0.
            start: number of conversations before the first one, for messages.

        Raises:
            UserError: the template does not support a conversation.
        """
        rendered = []
        for row, messages in enumerate(conversations):
            number = start + row + 1
            try:
                rendered.append(self.chat_template.spans(messages, self.supervise, firsts[row] if firsts else 0))
            except UserError as error:
                first = " ".join(plain(messages[0]).split())[:40]
                raise UserError(f"conversation {number}, which starts with {first!r}: {error}") from error
        encodings = self.offset_tokenizer.encode_batch([text for text, _ in rendered], add_special_tokens=False)
        found = []
        for encoding, (_, spans) in zip(encodings, rendered):
            ids = np.array(encoding.ids, dtype=np.int32)
            begin, end = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2).T
            is_supervised = np.zeros(len(ids), dtype=bool)
            for first, last in spans:
                is_supervised |= (begin < last) & (end > first)
            is_supervised[:1] = False  # nothing precedes it
            found.append((ids, np.where(is_supervised, ids, NONE).astype(np.int32)))
        return found

    def with_examples(self, x: pd.DataFrame, examples: pd.DataFrame) -> tuple[Ragged, Ragged]:
        """Return token ids and labels of conversations, each after as many examples as fit into the context.

        The examples are messages before those of the row, after its system message, and have no labels.
        """
        shown = [_without_system(json.loads(messages)) for messages in examples["messages"]]
        sizes = [len(self._encoded([example])[0][0]) for example in shown]
        rows = [json.loads(messages) for messages in x["messages"]]
        own = [len(ids) for ids, _ in self._encoded(rows)]
        counts = [int(np.searchsorted(np.cumsum(sizes), self.context - size, side="right")) for size in own]
        given = [[message for example in shown[:count] for message in example] for count in counts]
        both = [[*_system(row), *before, *_without_system(row)] for row, before in zip(rows, given)]
        screen.say(f"examples in the context: {np.mean(counts):.1f} of {len(shown)} on average")
        firsts = [len(_system(row)) + len(before) for row, before in zip(rows, given)]
        found = self._encoded(both, firsts)
        starts = np.cumsum([0, *(len(ids) for ids, _ in found)], dtype=np.int64)
        values, labels = (np.concatenate(parts) for parts in zip(*found))
        lengths, padding = np.diff(starts), self.vocabulary.padding
        tokens = Ragged(values, starts, lengths, padding, self.context)
        return tokens, Ragged(labels, starts, lengths, NONE, self.context)

    def _check_supervised(self, x: pd.DataFrame, tokens: Ragged, labels: np.ndarray) -> None:
        """Print the share of supervised tokens, and the numbers of truncated rows.

        Raises:
            UserError: a row has no supervised token, or is too long, and `too_long` is error.
        """
        if not len(x):
            return
        row = np.repeat(np.arange(len(tokens)), tokens.full_lengths)
        is_supervised = labels != NONE
        is_inside = np.arange(len(labels)) - tokens.starts[row] < tokens.context
        total, kept = (
            np.bincount(row[chosen], minlength=len(x)) for chosen in (is_supervised, is_supervised & is_inside)
        )
        longer, shorter = tokens.full_lengths > self.context, kept < total
        longest, empty = int(tokens.full_lengths.max()), np.flatnonzero(kept == 0)
        if longer.any() and self.too_long == "error":
            first = int(longer.argmax())
            raise UserError(
                f"{longer.sum():,} of {len(x):,} conversations are longer than data.tokenizer.context={self.context} "
                f"tokens (up to {longest}), the first starts with {_start(x, first)!r}: raise it, or set "
                "data.tokenizer.too_long=truncate"
            )
        if len(empty):
            reason = (
                f"truncated to data.tokenizer.context={self.context} tokens (of up to {longest}), they end before the "
                "completion: raise it, or remove them"
                if total[empty[0]]
                else "their completions have no tokens: remove them"
            )
            raise UserError(
                f"{len(empty):,} of {len(x):,} conversations have no supervised token, the first starts with "
                f"{_start(x, int(empty[0]))!r}: {reason}"
            )
        share = kept.sum() / tokens.tokens
        screen.say(f"{share:.0%} of the {tokens.tokens:,} tokens of {len(x):,} conversations are supervised")
        unknown = self.vocabulary.unknown
        if unknown is not None and (count := int((labels == unknown).sum())):
            screen.say(f"warning: {count:,} supervised tokens are unknown to the tokenizer", style="yellow")
        if shorter.any():
            screen.say(
                f"warning: {shorter.sum():,} of {len(x):,} completions are truncated to data.tokenizer.context="
                f"{self.context} tokens (of up to {longest})",
                style="yellow",
            )

    def marked(self, tokens: Sequence[int], labels: Sequence[int]) -> str:
        """Return the text of a row with its special tokens, and with its supervised parts in double brackets."""
        pieces, begin = [], 0
        ids, is_supervised = list(tokens), [label != NONE for label in labels]
        for end in range(1, len(ids) + 1):
            if end == len(ids) or is_supervised[end] != is_supervised[begin]:
                piece = self.backend_tokenizer.decode(ids[begin:end], skip_special_tokens=False)
                pieces.append(f"[[{piece}]]" if is_supervised[begin] else piece)
                begin = end
        return "".join(pieces)

    def prompt(self, given: str | Sequence[Message]) -> list[int]:
        """Return the token ids of a prompt: a conversation, or the message of a user.

        Raises:
            UserError: the message is empty, or the template does not support the conversation.
        """
        if isinstance(given, str) and not given.strip():
            raise UserError("prompt: this model answers messages: give one, or input=FILE")
        messages = user(given) if isinstance(given, str) else given
        rendered = self.chat_template.render(messages, is_prompt=True)
        return self.backend_tokenizer.encode(rendered, add_special_tokens=False).ids

    @functools.cached_property
    def ends(self) -> tuple[int, ...]:
        """Ids of the tokens after which a message of the assistant ends: that of the template and that of a text.

        The template ends a message with a token that is the same for different messages, and that no text contains.
        """
        last = set()
        for answer in ("Yes.", "No"):
            messages = [{"role": "user", "content": "Yes or no?"}, {"role": "assistant", "content": answer}]
            rendered, spans = self.chat_template.spans(messages, "last")
            begin, end = spans[-1]
            ids = self.backend_tokenizer.encode(rendered[begin:end].rstrip(), add_special_tokens=False).ids
            last.add(ids[-1] if ids else None)
        added = self.backend_tokenizer.get_added_tokens_decoder()
        own = [number for number in last if len(last) == 1 and number in added]
        return tuple(dict.fromkeys([*own, *super().ends]))

    def read_prompts(self, path: str) -> list[Prompt]:
        """Read a text file with one message of a user per line, or a table of conversations.

        Raises:
            UserError: the file is missing, empty or broken, or a row is no conversation.
        """
        if suffix_of(Path(path)) in text.PLAIN:
            return [Prompt(user(line), row) for row, line in read_lines(path).items()]
        return to_prompts(read_table(path), path)

    def to_prompts(self, x: pd.DataFrame) -> list[Prompt]:
        """Return raw rows as prompts, with their completions as references."""
        return [as_prompt(json.loads(messages)) for messages in x["messages"]]

    def overlap(self, generic: pd.DataFrame, test: pd.DataFrame) -> Overlap | None:
        """Return the test rows with a text that is also in the generic rows; None if there are no texts."""
        names = [name for name in ("text", "pair") if name in generic]
        return super().overlap(generic[names], test[["text"]])

    def comparison(self) -> TextRows:
        """Return a comparison of rows by their texts."""
        return TextRows(("text",))

    def read(self, path: str) -> Inputs:
        """Read conversations, or pairs of them, from a user's file."""
        frame = read_table(path, self.dialect)
        is_paired = {"chosen", "rejected"} <= set(frame)
        x = pairs_to_rows(to_pairs(frame, path)) if is_paired else to_rows(to_conversations(frame, path))
        return Inputs(x, frame.index.tolist())

    def export(self, folder: Path) -> None:
        """Write the tokenizer with the chat template, and the tokens that end a message for `generate`."""
        super().export(folder)
        tokenizing.write_chat_template(folder, self.chat_template.text)
        tokenizing.write_ends(folder, self.ends)

    def exported_inputs(self, folder: Path) -> Callable[[pd.DataFrame], dict[str, Tensor]]:
        """Return a function that renders and tokenizes rows with the exported files and transformers only."""
        tokenizer = tokenizing.load(folder)
        settings = {"padding": True, "truncation": True, "return_tensors": "pt", "return_dict": True}
        tokenizer.padding_side = "right"

        def encode(x: pd.DataFrame) -> dict[str, Tensor]:
            return dict(tokenizer.apply_chat_template(list(map(json.loads, x["messages"])), **settings))

        return encode

    def probes(self, target: str | None) -> pd.DataFrame:
        """Return conversations to verify an exported model with, some with special tokens."""
        texts = super().probes(None)["text"]
        return to_rows(
            [[*user(one), {"role": "assistant", "content": other}] for one, other in zip(texts, texts[::-1])]
        )

    def state(self) -> dict[str, Any]:
        return {**super().state(), "kind": "chat", "template": self.template, "supervise": self.supervise}


def _system(messages: list[Message]) -> list[Message]:
    """Return the system message at the start, if there is one."""
    return messages[:1] if messages[0]["role"] == "system" else []


def _without_system(messages: list[Message]) -> list[Message]:
    """Return the messages without a system message at the start."""
    return messages[len(_system(messages)) :]


def _start(x: pd.DataFrame, row: int) -> str:
    """Return the start of the text of a row, for a message."""
    return " ".join(x["text"].iloc[row].split())[:40]
