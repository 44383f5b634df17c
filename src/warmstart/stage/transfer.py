"""stage=transfer: pretrain once, then finetune every arm over label budgets and paired seeds, and compare."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart import screen
from warmstart.contracts import UserError
from warmstart.report.transfer import PLAN, show, write_report
from warmstart.run.folder import RunFolder, write_atomically
from warmstart.stage import finetune, parts, pretrain
from warmstart.stage.train import runs_folder

OWN_KEYS = ("pretrain", "transfer", "arm")


def run(config: DictConfig) -> RunFolder:
    """Run what is missing of the plan, then report."""
    if config.resume:
        run = RunFolder.open(Path(config.resume))
        if run.record["stage"] != "transfer":
            raise UserError(f"resume={config.resume} is a {run.record['stage']} run, not a transfer")
        config = run.config(tuple(config.trust))
    else:
        for part in (arm_config(config, arm, "scratch", 1, 0) for arm in config.transfer.arms):
            parts.check_fit(part)
        parts.check_fit(config.pretrain)
        run = RunFolder.create(config, runs_folder(config))
        write_atomically(run.path / PLAN, json.dumps(make_plan(config), indent=2) + "\n")
    started = time.monotonic()
    with run.recording():
        run.update(status="running", error=None)
        base = finish(run.path / "runs" / "pretrain", lambda folder, name: pretrain.run(config.pretrain, folder, name))
        if base.record["status"] != "done":
            raise UserError(f"the pretraining failed, so nothing can be compared: {base.record['error']}")
        screen.say(f"pretrained: {base.path} ({base.record['cost']['seconds']:.1f} s)")
        plan = json.loads((run.path / PLAN).read_text())["runs"]
        for done, slot in enumerate(plan, start=1):
            part = arm_config(config, slot["arm"], str(base.path), slot["labels_per_class"], slot["seed"])
            result = finish(
                run.path / "runs" / slot["name"], lambda folder, name, part=part: finetune.run(part, folder, name)
            )
            if done % max(1, len(plan) // 10) == 0 or result.record["status"] != "done":
                screen.say(f"{done} of {len(plan)} finetunings, last: {slot['name']} {result.record['status']}")
        seconds = (run.record["cost"] or {}).get("seconds", 0.0) + time.monotonic() - started
        run.update(cost={"seconds": seconds, "steps": None, "examples": None, "peak_memory_mb": None})
        report = write_report(run.path)
    show(report)
    screen.say(f"report: {run.path / 'report.md'} and report.png, report.json")
    screen.next_command(f"tensorboard --logdir {run.path}")
    return run


def make_plan(config: DictConfig) -> dict[str, Any]:
    """Every finetuning of the transfer, named, before the first one starts."""
    monitor, mode = parts.get_object(config.objective._target_).monitor
    slots = itertools.product(config.transfer.labels, range(config.transfer.seeds), config.transfer.arms)
    return {
        "metric": monitor.replace("val/", "test/"),
        "mode": mode,
        "arms": list(config.transfer.arms),
        "runs": [
            {
                "name": f"{arm}-{labels}-seed{config.seed + index}",
                "arm": arm,
                "labels_per_class": labels,
                "seed": config.seed + index,
            }
            for labels, index, arm in slots
        ],
    }


def arm_config(config: DictConfig, arm: str, pretrained: str, labels: int | str, seed: int) -> DictConfig:
    """The finetuning config of one arm: the shared settings, and what the arm says differently."""
    if arm not in config.arm:
        raise UserError(f"transfer.arms: there is no arm {arm}; there are: {', '.join(config.arm)}")
    shared = OmegaConf.to_container(config, resolve=True)
    shared = {key: value for key, value in shared.items() if key not in OWN_KEYS}
    own = OmegaConf.to_container(config.arm[arm], resolve=True)
    if "strategy" in own:
        shared.pop("strategy")
    part = OmegaConf.merge(shared, own, {"stage": "finetune", "seed": seed})
    part.init = pretrained if own["init"] == "pretrained" else own["init"]
    part.data.labels_per_class = None if labels == "all" else labels
    OmegaConf.set_struct(part, True)
    return part


def finish(path: Path, start: Any) -> RunFolder:
    """The run at `path` if it is done; else a new attempt, whose failure is recorded and does not stop the rest."""
    if path.exists():
        with_record = (path / "run.json").exists()
        if with_record and RunFolder.open(path).record["status"] == "done":
            return RunFolder.open(path)
        shutil.rmtree(path)
    with screen.quiet():
        try:
            return start(path.parent, path.name)
        except UserError:
            if not (path / "run.json").exists():
                raise
            return RunFolder.open(path)
