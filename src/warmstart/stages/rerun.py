"""stage=rerun: repeat a finished run and compare the results."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from warmstart.config.rewrite import changed, from_parent
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import finished

NEAR = 1e-3


def run(config: DictConfig) -> RunFolder:
    """Repeat the run `run=` in a new folder; the record has the verdict of the comparison."""
    original = finished(Path(config.run))
    stage = original.record["stage"]
    if stage not in ("pretrain", "finetune"):
        raise UserError(f"{original.path} is of stage={stage}; only pretraining and finetuning runs can be rerun")
    original_config = from_parent(
        changed(original.config(tuple(config.trust)), {"output_dir": config.output_dir}),
        original.record["parent"],
        original.record.get("teacher"),
    )
    screen.say(f"rerunning {original.path}")
    with screen.quiet():
        again = importlib.import_module(f"warmstart.stages.{stage}").run(original_config)
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
    """Return equal (same weights, head and preprocessor, bitwise), near (metrics within 0.1%) or different."""
    if then["model_sha256"] == now["model_sha256"]:
        return "equal"
    pairs = [(value, now["metrics"].get(name, math.nan)) for name, value in then["metrics"].items()]
    return "near" if pairs and all(abs(a - b) <= NEAR * abs(a) for a, b in pairs) else "different"


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Return the changes of data, code, initial weights, teacher and versions."""
    values = [
        ("data", then["data"]["fingerprint"], now["data"]["fingerprint"]),
        ("commit", then["git"]["commit"], now["git"]["commit"]),
        ("parent", *((record["parent"] or {}).get("weights_sha256") for record in (then, now))),
        ("teacher", *((record.get("teacher") or {}).get("model_sha256") for record in (then, now))),
        *((key, value, now["environment"].get(key)) for key, value in then["environment"].items()),
    ]
    return [f"{name} was {before}, is {after}" for name, before, after in values if before != after]
