"""stage=transfer: pretrain once, then finetune every arm over label budgets and paired seeds, and compare."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from warmstart import screen
from warmstart.contracts import UserError
from warmstart.data.splits import labelled_subset
from warmstart.report.transfer import show, write_report
from warmstart.run.folder import RunFolder
from warmstart.run.identity import git_state
from warmstart.run.manifest import MANIFEST, RUNS, Job, Manifest
from warmstart.stage import parts
from warmstart.stage.train import runs_folder
from warmstart.sweep import launch
from warmstart.sweep.schedule import Rules

OWN_KEYS = ("pretrain", "transfer", "arm")
TOGETHER = 32  # as conf/hydra/launcher/vmap.yaml
PRETRAINING = "pretrain"  # the name of the job that the finetunings need


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Run what is missing of the plan, then report.

    Args:
        config: a composed transfer config.
        opened: the folder to run in, if not a new one.
    """
    if config.resume:
        run = RunFolder.open(Path(config.resume))
        if run.record["stage"] != "transfer":
            raise UserError(f"resume={config.resume} is a {run.record['stage']} run, not a transfer")
        replace(Manifest.read(run.path), trust=tuple(config.trust)).check()
    else:
        check_plan(config)
        run = opened or RunFolder.create(config, runs_folder(config))
        if not (run.path / MANIFEST).exists():
            make_plan(config, run.path).write()
    started = time.monotonic()
    with run.recording():
        run.update(status="running", error=None)
        manifest = Manifest.read(run.path)
        launch.run(manifest, launcher(), Rules())
        base = manifest.record(PRETRAINING)
        if base is None or base["status"] != "done":
            why = (base or {}).get("error") or "another process is at work on it"
            raise UserError(f"the pretraining is not done, so nothing can be compared: {why}")
        seconds = (run.record["cost"] or {}).get("seconds", 0.0) + time.monotonic() - started
        run.update(cost={"seconds": seconds, "steps": None, "examples": None, "peak_memory_mb": None})
        report = write_report(run.path)
    show(report)
    screen.say(f"report: {run.path / 'report.md'} and report.png, report.json")
    screen.next_command(f"tensorboard --logdir {run.path}")
    return run


def launcher() -> dict[str, Any]:
    """The launcher of the command line; where none was asked for, small models of an arm are trained together.

    In this process where there is no command line, or the launcher is of another maker.
    """
    chosen = HydraConfig.get().launcher if HydraConfig.initialized() else {}
    if "workers" not in chosen:
        return {"workers": 0}
    asked = any(word.startswith("hydra/launcher=") for word in HydraConfig.get().overrides.hydra)
    settings = OmegaConf.to_container(chosen)
    return settings if asked else {"together": TOGETHER, **settings}


def make_plan(config: DictConfig, folder: Path) -> Manifest:
    """The pretraining and every finetuning of the transfer, frozen before the first one starts."""
    whole = OmegaConf.to_container(config, resolve=True)
    jobs = [Job(PRETRAINING, {}, whole["pretrain"])]
    for labels, index, arm in itertools.product(
        config.transfer.labels, range(config.transfer.seeds), config.transfer.arms
    ):
        seed = config.seed + index
        own = arm_config(config, arm, str(folder / RUNS / PRETRAINING), labels, seed)
        needs = PRETRAINING if config.arm[arm].init == "pretrained" else None
        values = {"arm": arm, "labels_per_class": labels, "seed": seed}
        jobs.append(Job(f"{arm}-{labels}-seed{seed}", values, OmegaConf.to_container(own, resolve=True), needs))
    metric, mode = parts.get_object(config.objective._target_).monitor
    words = list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []
    return Manifest(folder, "transfer", config.experiment, words, metric, mode, git_state(), jobs)


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
