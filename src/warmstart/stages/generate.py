"""stage=generate: continue prompts with a causal language model."""

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
from warmstart.training.generation import name_of, open_generator, to_line
from warmstart.training.record import runs_folder


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Write `samples` completions of `prompt`, or of each row of `input`, by the run or Hugging Face model `run=`.

    Raises:
        UserError: the model does not predict the next token, or a prompt is too long or cannot be read.
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
        completions = generator.generate([starts[row] for row in rows])
        lines = [to_line(prompts[row], completion) for row, completion in zip(rows, completions)]
        write_atomically(run.path / "generated.jsonl", "".join(lines))
        for row, completion in zip(rows, completions):
            start = prompts[row].given if "messages" not in generator.preprocessor.abilities else ""
            sys.stdout.write(screen.safe(f"{start}{completion}\n"))  # the file has the exact completion
    screen.say(f"generated: {run.path / 'generated.jsonl'}")
    return run


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
