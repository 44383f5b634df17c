"""stage=transfer: pretrain once, finetune every arm over label counts and paired seeds, and compare."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf

from warmstart.core import screen
from warmstart.core.batch import Splits
from warmstart.core.errors import Unmet, UserError
from warmstart.core.init import Init
from warmstart.core.protocols import monitored
from warmstart.data.datamodule import GenericDataModule
from warmstart.data.duplicates.overlap import parts_of, shared_rows
from warmstart.report.extrapolation import MIN_COUNTS
from warmstart.report.looks import AUTO, MAX_RATIO, SETTLED, looks_of, stop_reason
from warmstart.report.paired import MIN_UNITS
from warmstart.report.runs import read_transfer
from warmstart.report.transfer import show, write_report
from warmstart.report.verdicts import judge
from warmstart.run import cores
from warmstart.run.folder import RunFolder
from warmstart.run.identity import git_state
from warmstart.run.lineage import parent_run
from warmstart.run.manifest import MANIFEST, Job, Manifest, check_runs, record_runs
from warmstart.run.scores import save_clusters
from warmstart.stages.runner import StageRunner
from warmstart.sweep import launch
from warmstart.sweep.job import write_error
from warmstart.sweep.launch import check_settings as check_launcher
from warmstart.sweep.schedule import Rules
from warmstart.training import components
from warmstart.training.compatibility import check_compatibility, naming
from warmstart.training.length import with_min_steps
from warmstart.training.record import runs_folder
from warmstart.training.start import (
    build_objective,
    find_start,
    given_preprocessor,
    warn_of_other_splits,
    without_kept_head,
)
from warmstart.training.teacher import set_targets
from warmstart.transfer import start_selection, starts, tuning
from warmstart.transfer.arms import (
    BUDGETS,
    PRETRAINED,
    PRETRAINING,
    Sizes,
    arm_config,
    check_starts,
    check_strong,
    check_unlabelled,
    finetunings,
    has_pretraining,
    pretrainings,
    training_rows,
    with_start,
)
from warmstart.transfer.baselines import with_fitting_baselines
from warmstart.transfer.leakage import find_overlap, note_clusters, warn_of_shared_rows
from warmstart.transfer.strategies import with_strategies

GROUP_SIZE = 32  # as conf/hydra/launcher/vmap.yaml
MOST_WORKERS = 4  # processes on a CPU: for small models, more processes are faster than more threads
VERDICTS = ("helps", "hurts", "equivalent", "cannot tell")


def run(config: DictConfig, opened: RunFolder | None = None) -> RunFolder:
    """Run the missing jobs of the plan, then write the report.

    Args:
        config: a composed transfer config.
        opened: the run folder to resume; by default, a new one.

    Raises:
        Unmet: the headline verdict differs from `transfer.require`.
    """
    started, facts = time.monotonic(), {}
    if opened is not None and (opened.path / MANIFEST).exists():
        manifest = replace(Manifest.read(opened.path), trust=tuple(config.trust))
        manifest.check()
        check_runs(manifest, resumed=True)
    else:
        if opened is None:  # a saved config has its arms already
            config = with_strategies(with_start(starts.with_starts(config)))
        config, facts = check_plan(config)
        facts["bounds"] = components.get_object(config.objective._target_).bounds
    given = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    overrides = [word for word in given if not word.startswith("resume=")]  # compared with those of resume=auto
    run, required = opened or RunFolder.create(config, runs_folder(config), words=overrides), config.transfer.require
    with run.recording():
        if facts:
            save_clusters(run, facts.pop("clusters"))
            run.update(**facts)
            make_plan(config, run).write()
        work(run, config)
        seconds = (run.record["cost"] or {}).get("seconds", 0.0) + time.monotonic() - started
        run.update(cost={"seconds": seconds, "steps": None, "examples": None, "peak_memory_mb": None})
        report = write_report(run.path)
    show(report)
    screen.say(f"report: {run.path / 'report.html'} and report.md, report.json, runs.csv")
    screen.next_command(screen.command("tensorboard", "--logdir", str(run.path)))
    if required and report["headline"]["verdict"] != required:
        raise Unmet(f"transfer.require={required}, but the verdict is: {report['headline']['verdict'] or 'none'}")
    return run


def work(run: RunFolder, config: DictConfig) -> None:
    """Run all jobs of the plan; then plan and run the final jobs of tuned arms, and the further looks of seeds=auto.

    When a transfer is resumed, failed jobs are retried once.

    Raises:
        UserError: a pretraining is not done, or a tuning run is locked by another process.
        WriteError: a file of these runs could not be written.
    """
    manifest = Manifest.read(run.path)
    failures = launch.run(manifest, launcher(), Rules(retry_failed=True), StageRunner())
    check_pretrainings(manifest, failures)
    if not any("arm" in job.values for job in manifest.jobs):
        check_tuning(manifest, failures)
        if config.transfer.get("starts"):
            config = start_selection.select(config, run, manifest, execute)
            if tuning.is_tuned(config):
                execute(manifest, list(tuning.trials(config, run.path, sizes_of(run.record["sizes"]))))
        extend(manifest, run, config, tuning.choose(manifest))
    while config.transfer.seeds == AUTO and (seeds := next_look(run)) is not None:
        excluded = (run.record.get("starts") or {}).get("excluded", ())
        extend(manifest, run, start_selection.without_arms(config, excluded), tuning.planned_rates(manifest), seeds)
    record_runs(manifest)


def extend(
    manifest: Manifest, run: RunFolder, config: DictConfig, rates: tuning.Rates, seeds: range | None = None
) -> None:
    """Plan and run the finetunings with these learning rates; by default, those of the first look."""
    manifest.extend(finetunings(config, run.path, sizes_of(run.record["sizes"]), rates, seeds))
    launch.run(manifest, launcher(), Rules(), StageRunner())


def next_look(run: RunFolder) -> range | None:
    """Return the indices of the seeds of the next look; None if no further look is needed."""
    transfer = read_transfer(run.path)
    rows = judge(transfer)
    if stop_reason(transfer, rows) is not None:
        return None
    looks = looks_of(transfer)
    unsettled = sum(row["verdict"] not in SETTLED for row in rows)
    first, last = looks.planned[looks.made - 1 : looks.made + 1]
    screen.say(f"{unsettled} of {len(rows)} verdicts are not settled with {first} seeds: running {last}")
    return range(first, last)


def execute(manifest: Manifest, jobs: Sequence[Job]) -> None:
    """Add jobs of a selection to the plan, unless they are in it already, and run them.

    Raises:
        UserError: a job is locked by another process.
        WriteError: a file of a job could not be written.
    """
    manifest.extend([job for job in jobs if job.name not in manifest.by_name])
    rules = Rules(report=functools.partial(start_selection.remove_models, manifest))
    check_tuning(manifest, launch.run(manifest, launcher(), rules, StageRunner()))


def check_pretrainings(manifest: Manifest, failures: Mapping[str, str]) -> None:
    """Raise an error if a pretraining is not done."""
    for job in manifest.jobs:
        if job.name.startswith(PRETRAINING) and not job.values:
            record = manifest.record(job.name)
            if record is None or record["status"] != "done":
                reason = failures.get(job.name) or (record or {}).get("error") or "another process is running it"
                if (failure := write_error(reason)) is not None:
                    raise failure
                raise UserError(f"the pretraining is not done, so nothing can be compared: {reason}")


def check_tuning(manifest: Manifest, failures: Mapping[str, str]) -> None:
    """Raise an error if a run that tunes or selects is neither done nor failed."""
    for job in manifest.jobs:
        record = manifest.record(job.name) or {}
        if not {"tunes", "screens", "selects"} & set(job.values) or record.get("status") == "done":
            continue
        reason = failures.get(job.name) or record.get("error") or "another process is running it"
        if (failure := write_error(reason)) is not None:
            raise failure
        if record.get("status") != "failed":
            raise UserError(f"{job.name} is not done, so nothing can be selected: {reason}")


def launcher() -> dict[str, Any]:
    """Return the settings of the chosen launcher; by default, small models are trained in vmap groups.

    Without a command line or with a third-party launcher, jobs run in this process.
    """
    chosen = HydraConfig.get().launcher if HydraConfig.initialized() else {}
    if "workers" not in chosen:
        return {"workers": 0}
    is_explicit = any(word.startswith("hydra/launcher=") for word in HydraConfig.get().overrides.hydra)
    settings = OmegaConf.to_container(chosen)
    if is_explicit:
        return settings
    if settings["workers"] is None and not torch.cuda.is_available():
        settings["workers"] = min(MOST_WORKERS, len(cores.usable_cpus()))
    return {"together": GROUP_SIZE, **settings}


def make_plan(config: DictConfig, run: RunFolder) -> Manifest:
    """Return the plan with all pretrainings and finetunings, or with the runs that tune learning rates."""
    jobs = pretrainings(config)
    if config.transfer.get("starts"):
        jobs += start_selection.screens(config, run.path, run.record["starts"])
    elif tuning.is_tuned(config):
        jobs += tuning.trials(config, run.path, sizes_of(run.record["sizes"]))
    else:
        jobs += finetunings(config, run.path, sizes_of(run.record["sizes"]))
    metric, mode = monitored(components.get_object(config.objective._target_), config.objective)
    overrides = run.record.get("words", [])
    return Manifest(run.path, "transfer", config.experiment, overrides, metric, mode, git_state(), jobs)


def sizes_of(record: dict[str, Any]) -> Sizes:
    """Return the sizes in a transfer's record."""
    return Sizes({labels: rows for labels, rows in record["labelled"]}, record["examples"])


def check_plan(config: DictConfig) -> tuple[DictConfig, dict[str, Any]]:
    """Check all arms, before any pretraining.

    Returns:
        The config without the baselines that do not fit the data; and entries for the record: sizes that determine
        budgets; rows that generic data and test split share, None without a pretraining; rows that the splits of the
        task share; and the clusters of the test rows, for another file.
    Raises:
        UserError: an arm, a budget or a component is invalid.
    """
    check_settings(config)
    check_launcher(launcher())
    check_strong(config)
    if has_pretraining(config):
        with naming(config.pretrain, "pretrain."):
            check_compatibility(config.pretrain)
        if config.backbone != config.pretrain.backbone:
            raise UserError("backbone and pretrain.backbone differ, so no weights could be transferred")
    check_arms(config)
    source, target = components.build_source(config), components.get_object(config.objective._target_).target
    splits = source.load(target)
    config = with_fitting_baselines(config, splits)
    check_unlabelled(config, splits)
    labelled = [[budget, training_rows(config, splits, budget)] for budget in config.transfer.labels]
    more: dict[str, Any] = {"clusters": splits.test.cluster}
    if config.transfer.get("starts"):
        more["starts"] = start_selection.plan(config, source, splits, dict(labelled))
    shared = shared_rows(parts_of(splits), source.preprocessor(), target)
    warn_of_shared_rows(shared)
    more["data"] = {"overlap": shared, "clusters": note_clusters(splits)}
    if not has_pretraining(config):
        return config, {"sizes": {"labelled": labelled, "examples": 0}, "overlap": None, **more}
    overlap, examples = check_pretraining(config, splits)
    return config, {"sizes": {"labelled": labelled, "examples": examples}, "overlap": overlap, **more}


def check_pretrained_head(config: DictConfig, arm: str, finetuning: DictConfig) -> None:
    """Raise an error if an arm requires the head of the pretraining of this transfer, which trains another one.

    Raises:
        UserError: with both objectives.
    """
    if config.arm[arm].get("init") not in (PRETRAINED, "shuffled"):
        return
    needed, trained = (components.get_object(node.objective._target_) for node in (finetuning, config.pretrain))
    if needed.keeps_head and trained.task != needed.task:
        name = f"pretrain.objective={components.short_name(config.pretrain.objective)}"
        raise UserError(f"arm.{arm}: {without_kept_head(finetuning, name)}")


def check_unpacked(config: DictConfig, arm: str, finetuning: DictConfig) -> None:
    """Raise an error if the length of an arm is computed from its number of rows, but it trains on blocks of rows.

    Raises:
        UserError: with the setting of the length.
    """
    if not components.packs_rows(finetuning):
        return
    names = [
        f"transfer.budgets.{name}" for name, arms in config.transfer.budgets.items() if name != "steps" and arm in arms
    ]
    names += [f"arm.{arm}.length"] if config.arm[arm].get("length") is not None else []
    if names:
        raise UserError(
            f"{names[0]} counts rows, but data.pack=true makes blocks of them: set data.pack=false (arm {arm})"
        )


def check_arms(config: DictConfig) -> None:
    """Check the components of all arms that run, and the initial weights of all arms.

    Raises:
        UserError: a component or a setting is invalid.
    """
    for arm in config.transfer.arms:
        own = arm_config(config, arm, "scratch", "all", 0)
        if own.stage == "finetune":
            check_pretrained_head(config, arm, own)
            check_unpacked(config, arm, own)
            with naming(config.arm[arm], f"arm.{arm}."), starts.naming_start(config, arm):
                check_compatibility(own)
        if "init" in own:
            check_starts(config, arm, own)
        controls = config.arm[arm].get("against") or []
        for against in [controls] if isinstance(controls, str) else controls:
            if against not in config.arm:
                raise UserError(f"arm.{arm}.against={against}: no such arm; there are: {', '.join(config.arm)}")
    for arm in config.arm:
        if arm not in config.transfer.arms and config.arm[arm].get("init") not in (
            None,
            "scratch",
            PRETRAINED,
            "shuffled",
        ):
            check_starts(config, arm, arm_config(config, arm, "scratch", "all", 0))  # it does not run, but may be wrong


def check_pretraining(config: DictConfig, splits: Splits) -> tuple[dict[str, Any], int]:
    """Check data, initial weights, teacher and objective of the pretraining.

    Args:
        config: a composed transfer config.
        splits: those of the task.

    Returns:
        The rows that generic data and test split share, and the number of examples that the pretraining processes.
    Raises:
        UserError: a component is invalid.
    """
    start, parent = find_start(config.pretrain)
    generic = components.generic_data(config.pretrain, given_preprocessor(config.pretrain, start)).prepare()
    with naming(config.pretrain, "pretrain."):
        teacher = set_targets(config.pretrain, generic)
    for run in map(parent_run, (parent, teacher)):
        if run is not None:
            warn_of_other_splits(config, run)
    backbone = components.build_seeded(config.pretrain.backbone, config.pretrain.seed, "backbone", spec=generic.spec)
    build_objective(config.pretrain, backbone, generic)
    overlap = {**find_overlap(generic, splits), "generic": components.short_name(config.pretrain.data)}
    return overlap, examples_of(config, generic)


def check_settings(config: DictConfig) -> None:
    """Raise an error for invalid settings of `transfer`.

    Raises:
        UserError: with the setting.
    """
    chosen = config.transfer
    for name in ("arms", "labels"):
        values = chosen[name]
        if not isinstance(values, ListConfig) or not values or len(set(values)) < len(values):
            raise UserError(f"transfer.{name}={values}: give a list of different values, in brackets")
    check_budgets(config)
    if chosen.pretrain_seeds > 1 and not has_pretraining(config):
        raise UserError(f"transfer.pretrain_seeds={chosen.pretrain_seeds}: no arm uses a pretraining; remove it")
    check_looks(config)
    name = "looks" if chosen.seeds == AUTO else "seeds"
    if any(seeds % chosen.pretrain_seeds for seeds in (chosen.looks if chosen.seeds == AUTO else [chosen.seeds])):
        raise UserError(
            f"transfer.pretrain_seeds={chosen.pretrain_seeds} must divide transfer.{name}={chosen[name]}: "
            "the seeds are divided among the pretrainings"
        )
    price = chosen.get("price") or {}
    if None not in (price.get("label"), price.get("hour")) and config.pretrain.snapshots < MIN_COUNTS:
        raise UserError(f"transfer.price compares labels with pretraining: set pretrain.snapshots={MIN_COUNTS} or more")
    if chosen.require is not None and chosen.require not in VERDICTS:
        raise UserError(f"transfer.require={chosen.require}: give {', '.join(VERDICTS)}, or null")


def check_looks(config: DictConfig) -> None:
    """Raise an error for invalid `transfer.looks` if transfer.seeds=auto.

    Raises:
        UserError: with the setting.
    """
    looks, bases = list(config.transfer.looks), config.transfer.pretrain_seeds
    if config.transfer.seeds != AUTO:
        return
    if len(looks) < 2 or sorted(set(looks)) != looks or looks[0] < MIN_UNITS:
        raise UserError(f"transfer.looks={looks}: give two or more increasing numbers of seeds, from {MIN_UNITS}")
    if looks[-1] > MAX_RATIO * looks[0]:
        raise UserError(
            f"transfer.looks={looks}: the last look has more than {MAX_RATIO} times the seeds of the first one: give "
            "numbers of seeds that are closer"
        )
    if 1 < bases < MIN_UNITS:
        raise UserError(
            f"transfer.seeds=auto needs {MIN_UNITS} independent units, but transfer.pretrain_seeds={bases}: give 1, or "
            f"{MIN_UNITS} or more"
        )


def check_budgets(config: DictConfig) -> None:
    """Raise an error for invalid `transfer.budgets`.

    Raises:
        UserError: with the setting.
    """
    chosen = config.transfer
    for budget in chosen.budgets:
        if budget not in BUDGETS:
            raise UserError(f"transfer.budgets.{budget}: no such budget; there are: {', '.join(BUDGETS)}")
        arms = chosen.budgets[budget]
        if not isinstance(arms, ListConfig) or not set(arms) <= {*config.arm, *chosen.arms}:
            raise UserError(f"transfer.budgets.{budget}={arms}: give a list of arms: {', '.join(config.arm)}")
    has_no_steps = any(config.trainer[name] is not None for name in ("max_time", "max_tokens"))
    for arm in chosen.arms:
        own = [key for key in ("length", "tune") if key in config.arm.get(arm, {})]
        if own and "baseline" in config.arm[arm]:
            raise UserError(f"arm.{arm}.{own[0]}: a baseline is not trained in steps; remove it")
        if "length" in own and has_no_steps:
            raise UserError(f"arm.{arm}.length is a multiple of steps: set trainer.max_steps or max_epochs")
    if has_no_steps and any(arms for budget, arms in chosen.budgets.items() if budget != "steps"):
        raise UserError("transfer.budgets other than steps are multiples of steps: set trainer.max_steps or max_epochs")
    if chosen.budgets.get("total") and not has_pretraining(config):
        raise UserError("transfer.budgets.total includes the cost of a pretraining, but there is none: remove it")
    if config.pretrain.data.pack is not None and chosen.budgets.get("total"):
        raise UserError("transfer.budgets.total counts rows, but pretrain.data.pack makes blocks: remove it")


def examples_of(config: DictConfig, generic: GenericDataModule) -> int:
    """Return the number of examples that a pretraining processes, including repetitions.

    Raises:
        UserError: the number is unknown before the run ends.
    """
    if Init.parse(config.pretrain.init).kind == "static":
        return 0
    per_epoch, rows, unlimited = len(generic.train_loader), generic.rows["train"], float("inf")
    trainer = with_min_steps(config.pretrain.trainer, per_epoch)
    if trainer.max_time is not None:
        raise UserError(
            "a transfer requires a known number of examples: replace pretrain.trainer.max_time with max_tokens"
        )
    epochs = trainer.max_epochs if trainer.max_epochs > 0 else unlimited
    steps = trainer.max_steps * trainer.accumulate_grad_batches if trainer.max_steps > 0 else unlimited
    batches = (trainer.max_tokens or unlimited) / (generic.batch_tokens or generic.batch_size)
    return round(min(epochs * rows, steps / per_epoch * rows, batches / per_epoch * rows))
