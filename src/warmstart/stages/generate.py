"""stage=generate: continue prompts with a causal language model, or generate texts for input texts."""

from __future__ import annotations

import sys

import torch
from omegaconf import DictConfig

from warmstart.config.resolve import with_run
from warmstart.core import screen
from warmstart.core.batch import Prompt
from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder
from warmstart.run.identity import derive_seed
from warmstart.stages.chat import Screen
from warmstart.training.generation import Generator, name_of, open_generator, to_line
from warmstart.training.record import runs_folder
from warmstart.training.text_to_text import TextToText


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Write `samples` completions of `prompt`, or of each row of `input`, by the run or Hugging Face model `run=`.

    A single one is printed while it is generated, if standard output is a terminal.

    Raises:
        UserError: the model generates no texts, or a prompt is too long or cannot be read.
    """
    generator, parent, trained = open_generator(config)
    screen.say(f"generating with {name_of(trained)}")
    prompts = read_prompts(generator.preprocessor, config)
    starts = generator.starts(prompts)
    run = opened or RunFolder.create(with_run(config, trained), runs_folder(config))
    with run.recording():
        run.update(parent=parent)
        torch.manual_seed(derive_seed(config.seed, "generate"))
        rows = [row for row in range(len(prompts)) for _ in range(config.samples)]
        is_streamed = len(rows) == 1 and generator.streams and sys.stdout.isatty()
        if is_streamed:
            sys.stdout.write(screen.safe(shown(prompts[0], generator)))
            completions = generator.batch(starts, Screen(generator.preprocessor, skip_prompt=True))
        else:
            completions = generator.generate([starts[row] for row in rows])
        lines = [to_line(prompts[row], completion) for row, completion in zip(rows, completions)]
        write_atomically(run.path / "generated.jsonl", "".join(lines))
        for row, completion in [] if is_streamed else zip(rows, completions):
            line = f"{shown(prompts[row], generator)}{completion}\n"
            sys.stdout.write(screen.safe(line))  # the file has the exact completion
    screen.say(f"generated: {run.path / 'generated.jsonl'}")
    return run


def shown(prompt: Prompt, generator: Generator | TextToText) -> str:
    """Return what is printed before a completion: the text that it continues."""
    continues = isinstance(generator, Generator) and "messages" not in generator.preprocessor.abilities
    return str(prompt.given) if continues else ""


def read_prompts(preprocessor: Preprocessor, config: DictConfig) -> list[Prompt]:
    """Return the prompts in `input` or the one in `prompt`.

    Raises:
        UserError: both are given, or the file cannot be read.
    """
    given = "" if config.prompt is None else str(config.prompt)
    if config.input is None:
        return [Prompt(given)]
    if given:
        raise UserError("prompt= and input= are both given: remove one")
    return preprocessor.read_prompts(str(config.input))
