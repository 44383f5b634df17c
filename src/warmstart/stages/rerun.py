"""stage=rerun: run a finished run's config again, and compare the numbers."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import finished
from warmstart.training.start import same_start

NEAR = 1e-3


def run(config: DictConfig) -> RunFolder:
    """Make a new run from the run folder that `run=` names; the record says whether it came out equal."""
    original = finished(Path(config.run))
    stage = original.record["stage"]
    if stage not in ("pretrain", "finetune"):
        raise UserError(f"{original.path} is of stage={stage}; only pretraining and finetuning runs can be run again")
    theirs = original.config(tuple(config.trust))
    parent = original.record["parent"]
    if parent is not None:
        theirs.init = same_start(theirs, parent)
    theirs.output_dir = config.output_dir
    screen.say(f"running {original.path} again")
    with screen.quiet():
        again = importlib.import_module(f"warmstart.stages.{stage}").run(theirs)
    verdict = compare(original.record, again.record)
    again.update(rerun={"of": original.record["id"], "verdict": verdict})
    rows = [
        (name, screen.number(value, 6), screen.number(again.record["metrics"].get(name), 6))
        for name, value in sorted(original.record["metrics"].items())
    ]
    screen.table(f"rerun of {original.record['id']}: {verdict}", ("metric", "then", "now"), rows)
    for line in differences(original.record, again.record):
        screen.say(f"differs: {line}")
    screen.say(f"run folder: {again.path}")
    return again


def compare(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Equal: the same weights, head and preprocessor to the bit. Near: each metric within a thousandth of its size."""
    if then["model_sha256"] == now["model_sha256"]:
        return "equal"
    pairs = [(value, now["metrics"].get(name, math.nan)) for name, value in then["metrics"].items()]
    return "near" if all(abs(a - b) <= NEAR * abs(a) for a, b in pairs) else "different"


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is not as it was: data, code, start weights, versions."""
    places = [
        ("data", then["data"]["fingerprint"], now["data"]["fingerprint"]),
        ("commit", then["git"]["commit"], now["git"]["commit"]),
        ("parent", *((record["parent"] or {}).get("weights_sha256") for record in (then, now))),
        *((key, value, now["environment"].get(key)) for key, value in then["environment"].items()),
    ]
    return [f"{name} was {before}, is {after}" for name, before, after in places if before != after]
