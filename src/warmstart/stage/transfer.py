"""stage=transfer: pretrain once, then finetune every arm over label budgets and paired seeds, and compare."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from warmstart import screen
from warmstart.contracts import UserError
from warmstart.data.splits import labelled_subset
from warmstart.report.transfer import PLAN, read_plan, show, write_report
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
        check_plan(config)
        plan = make_plan(config)
        run = RunFolder.create(config, runs_folder(config))
        write_atomically(run.path / PLAN, json.dumps(plan, indent=2) + "\n")
    started = time.monotonic()
    with run.recording():
        run.update(status="running", error=None)
        base = finish(run.path / "runs" / "pretrain", config.pretrain, pretrain.run)
        if base.record["status"] != "done":
            raise UserError(f"the pretraining failed, so nothing can be compared ({base.path}): {base.record['error']}")
        screen.say(f"pretrained: {base.path} ({base.record['cost']['seconds']:.1f} s)")
        plan = read_plan(run.path)["runs"]
        for done, slot in enumerate(plan, start=1):
            part = arm_config(config, slot["arm"], str(base.path), slot["labels_per_class"], slot["seed"])
            result = finish(run.path / "runs" / slot["name"], part, finetune.run)
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


def arm_config(config: DictConfig, arm: str, pretrained: str, labels: int | float | str, seed: int) -> DictConfig:
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
    budget = budget_of(labels)
    part.data.labels_per_class, part.data.label_fraction = budget["per_class"], budget["fraction"]
    OmegaConf.set_struct(part, True)
    return part


def finish(path: Path, config: DictConfig, stage: Callable[..., RunFolder]) -> RunFolder:
    """The run at `path` if it has ended; else it goes on from its checkpoint, or starts.

    A run that fails is kept with its reason and does not stop the rest.
    """
    if (path / "run.json").exists() and RunFolder.open(path).record["status"] in ("done", "failed"):
        return RunFolder.open(path)
    resumable = (path / "checkpoints" / "last.ckpt").exists()
    if path.exists() and not resumable:
        shutil.rmtree(path)
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    config.resume = str(path) if resumable else None
    OmegaConf.set_struct(config, True)
    with screen.quiet():
        try:
            return stage(config, path.parent, path.name)
        except (UserError, RuntimeError):  # RuntimeError is also what running out of memory is
            if not (path / "run.json").exists():
                raise
            return RunFolder.open(path)


def check_plan(config: DictConfig) -> None:
    """Refuse what some arm could not do, before the pretraining is paid for.

    Raises:
        UserError: an arm, a budget or a part does not fit.
    """
    for name in ("arms", "labels"):
        values = config.transfer[name]
        if not isinstance(values, ListConfig) or not values or len(set(values)) < len(values):
            raise UserError(f"transfer.{name}={values}: give a list of different values, in brackets")
    parts.check_fit(config.pretrain)
    if config.backbone != config.pretrain.backbone:
        raise UserError("backbone and pretrain.backbone differ, so no weights could be transferred")
    for arm in config.transfer.arms:
        parts.check_fit(arm_config(config, arm, "scratch", "all", 0))
    splits = parts.build_source(config).load(parts.get_object(config.objective._target_).target)
    for budget in config.transfer.labels:
        labelled_subset(splits.train.y, splits.labels, 0, **budget_of(budget))


def budget_of(labels: int | float | str) -> dict[str, int | float | None]:
    """What an entry of transfer.labels means: a number of rows per class, a share below 1, or all.

    Raises:
        UserError: it is none of these.
    """
    if labels == "all":
        return {"per_class": None, "fraction": None}
    if isinstance(labels, int) and labels > 0:
        return {"per_class": labels, "fraction": None}
    if isinstance(labels, float) and 0 < labels < 1:
        return {"per_class": None, "fraction": labels}
    raise UserError(f"transfer.labels={labels}: give rows per class (1, 2, ...), a share (0.1), or all")
