"""stage=chat: talk to a model that was finetuned on conversations, in the terminal."""

from __future__ import annotations

import sys
from typing import Any

import torch
from omegaconf import DictConfig
from transformers import TextStreamer

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.run.identity import derive_seed
from warmstart.training.generation import Generator, name_of, open_generator

Conversation = list[dict[str, Any]]


def run(config: DictConfig) -> None:
    """Answer the lines of standard input by the model `run=`, until an empty line or the end of the input.

    Raises:
        UserError: the model has no chat template.
    """
    generator, _, trained = open_generator(config)
    name = name_of(trained)
    if "messages" not in generator.preprocessor.abilities:
        raise UserError(f"{name} was not finetuned on conversations, so it has no chat template: use stage=generate")
    screen.say(f"talking to {name}; an empty line or Ctrl-D ends the conversation")
    torch.manual_seed(derive_seed(config.seed, "chat"))
    messages: Conversation = []
    while line := read_line():
        messages.append({"role": "user", "content": line})
        start, messages = fitted(generator, messages)
        if start is None:
            continue
        length = min(generator.length, generator.context - len(start))
        (answer,) = generator.batch([start], Screen(generator.preprocessor, skip_prompt=True), length)
        messages.append({"role": "assistant", "content": answer})


def read_line() -> str:
    """Return a line from the terminal or from a pipe, without white space around it; empty at the end.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return (input("> ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    except EOFError:
        return ""
    except UnicodeDecodeError as error:
        raise UserError("standard input is not UTF-8 text") from error


def fitted(generator: Generator, messages: Conversation) -> tuple[list[int] | None, Conversation]:
    """Drop the oldest turns of a conversation until the context has room for an answer.

    That is `length` tokens, but at most half of the context.

    Returns:
        The token ids of the conversation, and its messages; None, and the messages without the last one, if that
        alone fills the context.
    """
    room = min(generator.length, generator.context / 2)
    kept = messages
    while len(start := generator.preprocessor.prompt(kept)) + room > generator.context and len(kept) > 1:
        kept = kept[2:]  # a message of the user and its answer
    if len(start) >= generator.context:
        size = f"the message has {len(start):,} tokens, but the context of the model has {generator.context:,}"
        screen.say(f"warning: {size}: shorten it", style="yellow")
        return None, messages[:-1]
    if len(kept) < len(messages):
        dropped = (len(messages) - len(kept)) // 2
        what = "turn is" if dropped == 1 else f"{dropped} turns are"
        screen.say(f"the context is full: the oldest {what} dropped", style="yellow")
    return start, kept


class Screen(TextStreamer):
    """Prints the answer to standard output while it is generated."""

    def on_finalized_text(self, piece: str, stream_end: bool = False) -> None:
        """Print a piece of the answer."""
        sys.stdout.write(screen.safe(piece) + ("\n" if stream_end else ""))
        sys.stdout.flush()
