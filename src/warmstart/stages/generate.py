"""stage=generate: continue a prompt with a causal language model and transformers' generation."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from warmstart.config.resolve import with_run
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.preprocess import rebuild
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder
from warmstart.run.identity import derive_seed
from warmstart.run.lineage import find
from warmstart.training.record import runs_folder
from warmstart.training.restore import exported

POSITION_EMBEDDINGS = ("wpe", "position_embeddings", "embed_positions")  # names in transformers


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Write `samples` continuations of `prompt` by the pretraining run `run=`.

    Raises:
        UserError: the run does not predict the next token, or the prompt and `length` exceed its positions.
    """
    settings = sampling(config)
    pretrained = find(config.run, Path(config.output_dir), "pretrain", config.experiment)
    pretrained_config = pretrained.config(tuple(config.trust))
    screen.say(f"generating with {pretrained.path}")
    model, _, saved = exported(pretrained, pretrained_config)
    if not model.can_generate():
        raise UserError(f"{pretrained.path} was not pretrained to predict the next token: use objective=causal")
    preprocessor = rebuild(saved.preprocessor)
    prompt = "" if config.prompt is None else str(config.prompt)
    start = preprocessor.prompt(prompt)
    longest = len(start) + config.length
    if longest > (most := positions(model)):
        raise UserError(f"prompt and length have {longest} tokens, but the model has {most} positions: decrease length")
    if longest > (most := saved.spec.shape[0]):
        screen.say(
            f"warning: prompt and length have {longest} tokens; the model was trained on at most {most}", style="yellow"
        )
    run = opened or RunFolder.create(with_run(config, pretrained), runs_folder(config))
    with run.recording():
        run.update(parent={"id": pretrained.record["id"], "weights_sha256": saved.weights_sha256})
        torch.manual_seed(derive_seed(config.seed, "generate"))
        ids = torch.tensor([start] * config.samples)
        found = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=config.length, **settings)
        continuations = [preprocessor.decode(row[len(start) :]) for row in found.tolist()]
        records = ({"prompt": prompt, "continuation": continuation} for continuation in continuations)
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        write_atomically(run.path / "generated.jsonl", "".join(f"{line}\n" for line in lines))
        for continuation in continuations:
            sys.stdout.write(screen.safe(f"{prompt}{continuation}\n"))  # the file has the exact text
    screen.say(f"generated: {run.path / 'generated.jsonl'}")
    return run


def positions(model: Any) -> float:
    """Return the maximum length of a row; infinite for a transformers model without position embeddings."""
    tables = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Embedding))
    has_limit = any(name.endswith(POSITION_EMBEDDINGS) for name in tables)
    return model.config.max_position_embeddings if has_limit else math.inf


def sampling(config: DictConfig) -> dict[str, Any]:
    """Return the sampling arguments of transformers' `generate`."""
    if config.temperature == 0:
        return {"do_sample": False}
    return {
        "do_sample": True,
        "temperature": float(config.temperature),
        "top_k": config.top_k or 0,
        "top_p": 1.0 if config.top_p is None else float(config.top_p),
    }
