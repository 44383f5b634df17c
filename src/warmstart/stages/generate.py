"""stage=generate: go on with a prompt, token by token, with transformers' own generation and its key-value cache."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from warmstart.config.resolve import named
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder
from warmstart.run.identity import derive_seed
from warmstart.run.lineage import find
from warmstart.training.record import runs_folder
from warmstart.training.restore import exported

LEARNED = ("wpe", "position_embeddings", "embed_positions")  # what transformers calls embeddings of positions


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Write `samples` continuations of `prompt`, by the pretraining run that `run=` names.

    Raises:
        UserError: the run does not predict the next token.
    """
    settings = sampling(config)
    pretrained = find(config.run, Path(config.output_dir), "pretrain", config.experiment)
    theirs = pretrained.config(tuple(config.trust))
    screen.say(f"generating with {pretrained.path}")
    model, _, saved = exported(pretrained, theirs)
    if not model.can_generate():
        raise UserError(f"{pretrained.path} was not pretrained to predict what comes next: use objective=causal")
    preprocessor = rebuild(saved.preprocessor)
    prompt = "" if config.prompt is None else str(config.prompt)
    start = preprocessor.prompt(prompt)
    longest = len(start) + config.length
    if longest > (most := positions(model)):
        raise UserError(f"prompt and length come to {longest}, and the model has {most} positions: ask for less")
    if longest > (most := saved.spec.shape[0]):
        screen.say(
            f"warning: prompt and length come to {longest}, and the model has seen {most} at most", style="yellow"
        )
    run = opened or RunFolder.create(named(config, pretrained), runs_folder(config))
    with run.recording():
        run.update(parent={"id": pretrained.record["id"], "weights_sha256": saved.weights_sha256})
        torch.manual_seed(derive_seed(config.seed, "generate"))
        ids = torch.tensor([start] * config.samples)
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=config.length, **settings)
        answers = [preprocessor.decode(row[len(start) :]) for row in found.tolist()]
        lines = (json.dumps({"prompt": prompt, "continuation": answer}, ensure_ascii=False) for answer in answers)
        write_atomically(run.path / "generated.jsonl", "".join(f"{line}\n" for line in lines))
        for answer in answers:
            sys.stdout.write(screen.safe(f"{prompt}{answer}\n"))  # the file has the exact text
    screen.say(f"generated: {run.path / 'generated.jsonl'}")
    return run


def positions(model: Any) -> float:
    """How long a row can get: without end for a model of transformers that has no embedding of positions."""
    tables = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding))
    return model.config.max_position_embeddings if any(name.endswith(LEARNED) for name in tables) else math.inf


def sampling(config: DictConfig) -> dict[str, Any]:
    """Return the arguments that transformers' `generate` draws tokens by."""
    if config.temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": float(config.temperature),
        "top_k": config.top_k or 0,
        "top_p": 1.0 if config.top_p is None else float(config.top_p),
    }
