"""transfer.starts: an arm per possible start, a screen of their frozen features, and the selection of the best."""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from warmstart.config.options import is_given
from warmstart.config.resolve import saved_backbone
from warmstart.config.rewrite import changed, merged
from warmstart.core import screen
from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.init import HUB, Init
from warmstart.core.protocols import Source
from warmstart.data.loader import ALIGNED
from warmstart.data.splits import most_folds
from warmstart.report.starts import screen_ranks, selection, selection_table, selection_text
from warmstart.run.folder import RunFolder
from warmstart.run.manifest import RUNS, Job, Manifest
from warmstart.selection.successive_halving import (
    UNUSED_FOLDERS,
    affordable,
    length_of,
    short_run,
    training_rows,
)
from warmstart.strategy.auto import CONFIDENCE, MAX_FOLD_ROWS, MIN_JOB_STEPS, MIN_RUN_STEPS, lower_bound
from warmstart.training import components
from warmstart.transfer.arms import (
    PRETRAINED,
    Labels,
    arm_config,
    pretraining_name,
    pretraining_of,
    without_stale_budgets,
)
from warmstart.transfer.tuning import SEED_OFFSET, rate_count, trial_rates

CONTROL, OWN = "scratch", "own"  # entries of transfer.starts, and the names of their arms
KNN, LOGME = "screen/knn", "screen/logme"  # metrics of a screen
UNSPECIFIC = re.compile(r"model|weights|checkpoint|main|[0-9a-f]{16,}")  # names of folders that identify no model
NAME_LENGTH = 40
KEPT = 2  # starts that are always kept, besides the control
FOLDS = 5  # folds for evaluation, if each class has as many rows
Execute = Callable[[Manifest, list[Job]], None]
Record = dict[str, Any]


def with_starts(config: DictConfig) -> DictConfig:
    """Replace the arms of a transfer by one for each of transfer.starts; controls are kept.

    An arm is named after its start. It is compared with the starts before it, `scratch` being the first. Settings under
    `arm.NAME` override it. A list of transfer.budgets with an arm that does not exist is emptied.

    Raises:
        UserError: an entry is no start or occurs twice, or other settings contradict it.
    """
    if config.transfer.get("starts") is None:
        return config
    given = [str(entry) for entry in config.transfer.starts]
    if config.transfer.start != PRETRAINED:
        raise UserError(f"transfer.start={config.transfer.start} contradicts transfer.starts: remove one of them")
    if config.pretrain.snapshots:
        raise UserError(f"pretrain.snapshots={config.pretrain.snapshots}: transfer.starts uses no snapshots: remove it")
    inits = [parse(entry) for entry in given]
    if len({replace(init, path=os.path.realpath(init.path)) for init in inits}) < max(2, len(inits)):
        raise UserError(f"transfer.starts=[{','.join(given)}]: give two or more different starts")
    is_complete = {arm for arm, node in config.arm.items() if "init" in node or "baseline" in node}
    starts = dict(zip(names_of(inits, is_complete), inits))
    ordered = sorted(starts, key=lambda name: name != CONTROL)
    nodes = dict(config.arm)
    for number, name in enumerate(ordered):
        nodes[name] = start_arm(config, name, starts[name], ordered[:number], has_pretraining=OWN in starts)
    kept = controls(config, nodes, ordered)
    arms = {"arm": {**nodes, **kept}, "transfer.arms": [*ordered, *kept]}
    return without_stale_budgets(
        changed(config, {**arms, "transfer.starts": [word_of(starts[name]) for name in ordered]})
    )


def controls(config: DictConfig, nodes: Mapping[str, Any], starts: Sequence[str]) -> dict[str, Any]:
    """Return the arms of transfer.arms to keep: baselines, and arms with random weights and their own length.

    A baseline that uses initial weights becomes one arm per start, such as `knn_own`.

    Args:
        nodes: all arms, with those of the starts.
        starts: names of the starts.

    Raises:
        UserError: transfer.arms on the command line has another arm.
    """
    requested = config.transfer.arms
    listed = [requested] if isinstance(requested, str) else [str(arm) for arm in requested]
    found: dict[str, Any] = {}
    for arm in (arm for arm in listed if arm not in starts):
        node = config.arm.get(arm) or {}
        if "baseline" in node and node.get("init") == PRETRAINED:
            for name in (name for name in starts if name != CONTROL):
                own = {key: nodes[name][key] for key in ("init", "backbone", "preprocessor") if key in nodes[name]}
                found[f"{arm}_{name}"] = merged(OmegaConf.to_container(node, resolve=True), own)
        elif "baseline" in node:
            found[arm] = node
        elif node.get("init") == CONTROL and "length" in node:
            found[arm] = node if OWN in starts else merged(OmegaConf.to_container(node), {"preprocessor": None})
        elif is_given("transfer.arms"):
            raise UserError(f"transfer.arms: {arm} contradicts transfer.starts, which sets all arms but the controls")
    return found


def parse(entry: str) -> Init:
    """Return the initial weights of an entry of transfer.starts, with absolute paths.

    Raises:
        UserError: it is no start.
    """
    if entry == OWN:
        return Init("folder", PRETRAINED)
    init = Init.parse(entry)
    if init.kind == "hub":
        folder = Path(init.path).expanduser()
        return replace(init, path=os.path.abspath(folder)) if folder.is_dir() else init
    if init.kind == CONTROL and init == init.source:
        return init
    if not init.is_folder:
        raise UserError(
            f"transfer.starts: {entry} is no start: give {CONTROL}, {OWN} (the pretraining of this transfer), "
            f"{HUB}NAME_OR_DIR or a run folder"
        )
    return replace(init, path=os.path.abspath(init.path))


def word_of(init: Init) -> str:
    """Return the entry of transfer.starts for these initial weights."""
    return OWN if init.path == PRETRAINED else str(init)


def names_of(inits: Sequence[Init], taken: Collection[str]) -> list[str]:
    """Return a short name for each start, none of which is in `taken` or occurs twice."""
    names: list[str] = []
    for init in inits:
        if (word := word_of(init)) in (CONTROL, OWN):
            names.append(word)
            continue
        name, number = short_name(init), 2
        unique = name
        while unique in taken or unique in names or unique in (CONTROL, OWN):
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return names


def short_name(init: Init) -> str:
    """Return a name of letters, digits and underscores: that of the model's folder, or the experiment of a run."""
    path = Path(init.path)
    record = path / "run.json"
    parts = [RunFolder.open(path).record["experiment"]] if record.exists() else [*path.parts]
    specific = [part for part in parts if not UNSPECIFIC.fullmatch(part)] or parts
    name = re.sub(r"[^a-z0-9]+", "_", specific[-1].lower()).strip("_")[:NAME_LENGTH] or "start"
    suffix = ("_random" if init.random else "") + ("_shuffled" if init.shuffled else "")
    return ("start_" if name[0].isdigit() else "") + name + suffix


def start_arm(config: DictConfig, name: str, init: Init, against: list[str], has_pretraining: bool) -> DictConfig:
    """Return the arm of a start, with its own stem and preprocessor, and the overrides under `arm.NAME`.

    Args:
        config: a composed transfer config.
        name: of the arm.
        init: its initial weights.
        against: the arms that it is compared with.
        has_pretraining: whether the pretraining of this transfer is among the starts.

    Raises:
        UserError: `arm.NAME` has other initial weights.
    """
    overrides = OmegaConf.to_container(config.arm[name], resolve=True) if name in config.arm else {}
    base: dict[str, Any] = {"init": str(init)}
    if name == OWN:
        base = {**OmegaConf.to_container(config.arm[PRETRAINED], resolve=True), "init": PRETRAINED}
    elif init.kind == "folder" and (node := saved_backbone(Path(init.path), tuple(config.trust))) is not None:
        base["backbone"] = node
    if "baseline" in overrides or overrides.get("init", base["init"]) != base["init"]:
        raise UserError(f"arm.{name} contradicts transfer.starts, which makes an arm of this name: rename arm.{name}")
    if overrides.get("preprocessor") == PRETRAINED and not has_pretraining:
        overrides["preprocessor"] = None
    return merged({**base, "against": against}, {**overrides, "against": against})


@contextlib.contextmanager
def naming_start(config: DictConfig, arm: str) -> Iterator[None]:
    """Name the start of an arm in the message of a UserError that is raised in the context."""
    try:
        yield
    except UserError as error:
        if config.transfer.get("starts") is None or arm not in start_names(config):
            raise
        entry = config.transfer.starts[start_names(config).index(arm)]
        raise UserError(f"transfer.starts: {entry}: {error}") from error


def start_names(config: DictConfig) -> list[str]:
    """Return the names of the arms of transfer.starts, in order; they are the first of transfer.arms."""
    return list(config.transfer.arms)[: len(config.transfer.starts)]


def plan(config: DictConfig, source: Source, splits: Splits, sizes: Mapping[Labels, int]) -> Record:
    """Return the plan of screen and selection, for the entry `starts` of the record, before anything is trained.

    The selection uses the label count with the most rows, split into folds, and other seeds than the final runs.
    `why` is the reason for keeping all starts without a selection, if any.

    Args:
        config: a transfer config after `with_starts`.
        source: the data set of the task.
        splits: its splits; the test split is not used.
        sizes: number of training rows by entry of transfer.labels.

    Raises:
        UserError: the cost is too low, or a setting prevents a selection.
    """
    names = start_names(config)
    labels = max(sizes, key=sizes.__getitem__)
    candidates = [name for name in names if name != CONTROL]
    given = dict(zip(names, config.transfer.starts))
    record = {"given": given, "labels": labels, "screen": {}, "rungs": [], "kept": None, "excluded": {}}
    if len(candidates) <= KEPT:
        count = "one start" if len(candidates) == 1 else f"{len(candidates)} starts"
        others = f"{count} besides scratch" if CONTROL in names else count
        return {**record, "why": f"{others} {'is' if len(candidates) == 1 else 'are'} too few"}
    configs = {name: selection_config(config, name, "scratch", labels) for name in candidates}
    first = configs[candidates[0]]
    check_strategy(configs)
    rows = components.task_data(first, source=source).labelled_rows(splits)
    lengths = {name: length_of(own, len(rows), "transfer.starts") for name, own in configs.items()}
    most, _ = most_folds(rows, splits.labels, by_cluster=splits.keeps_clusters)
    folds = min(max(FOLDS, math.ceil(len(rows) / MAX_FOLD_ROWS)), most)
    if folds < 2:
        return {**record, "why": "a class has only one labelled row or cluster"}
    if min(steps for steps, _ in lengths.values()) < MIN_RUN_STEPS:
        return {**record, "why": f"runs of fewer than {MIN_RUN_STEPS} steps are too short"}
    evaluated = min(FOLDS, folds)
    rates = {name: rates_of(config, name, own) for name, own in configs.items()}
    batch = {name: own.data.batch_size * own.trainer.accumulate_grad_batches for name, own in configs.items()}
    record |= {
        "why": None,
        "rows": len(rows),
        "folds": folds,
        "training": list(training_rows(first, source, splits, folds, evaluated)),
        "rates": rates,
        "batch": batch,
        "steps": {name: steps for name, (steps, _) in lengths.items()},
        "examples": max(examples for _, examples in lengths.values()),
        "bound": config.transfer.cost,
        "rung_count": math.ceil(math.log2(len(candidates) / KEPT)),
    }
    steps = min(steps_of(record, candidates).values())
    if steps < MIN_JOB_STEPS:
        raise UserError(
            f"transfer.cost={config.transfer.cost} allows {max(steps, 0)} steps a run to compare {len(candidates)} "
            f"starts on {evaluated} folds, and {MIN_JOB_STEPS} are needed: raise it, or list fewer transfer.starts"
        )
    return record


def check_strategy(configs: Mapping[str, DictConfig]) -> None:
    """Raise an error if finetunings select a strategy, or use folds, themselves."""
    for name, own in configs.items():
        if components.selects_strategy(own):
            raise UserError(f"transfer.starts needs one strategy for arm {name}, not strategy=auto: choose another")
        if own.data.folds is not None:
            raise UserError("transfer.starts splits the labelled rows into folds itself: remove data.folds")


def rates_of(config: DictConfig, arm: str, finetuning: DictConfig) -> list[float]:
    """Return the learning rates of a start in the first rung: those that its tuning tries, or its own."""
    rate, count = finetuning.optimizer.lr, rate_count(config, arm)
    return trial_rates(rate, count) if count else [rate]


def selection_config(config: DictConfig, name: str, pretrained: str, labels: Labels) -> DictConfig:
    """Return the finetuning config of a start for screen and selection."""
    return arm_config(config, name, pretrained, labels, config.seed + SEED_OFFSET)


def screens(config: DictConfig, folder: Path, record: Record) -> Iterator[Job]:
    """Yield the job of each start that measures its frozen features; none if a target refers to positions."""
    if get_object(config.objective._target_).target in ALIGNED:
        return
    base = str(folder / RUNS / pretraining_name(config, 0))
    for name in start_names(config):
        own = changed(selection_config(config, name, base, record["labels"]), {"stage": "screen", "visualization": {}})
        needed = pretraining_of(config, name, config.seed)
        yield Job(f"screen-{name}", {"screens": name}, OmegaConf.to_container(own, resolve=True), needed)


def select(config: DictConfig, run: RunFolder, manifest: Manifest, execute: Execute) -> DictConfig:
    """Select starts, unless the selection is recorded already; return the config with the arms of the kept ones.

    Successive halving on folds of the labelled rows: after each rung, the two best starts are kept, and all that are
    not significantly worse than the best. Significant: the one-sided interval of the mean loss over folds, corrected
    for the overlap of training rows and for the number of comparisons of the selection, is above 0. The control is kept
    without being trained.

    Args:
        config: that of the transfer.
        run: its folder; every rung is recorded when it has ended.
        manifest: its plan, to which every rung adds its jobs.
        execute: runs jobs.
    """
    record = dict(run.record["starts"])
    if record["kept"] is None:
        record["screen"] = screened(manifest, list(record["given"]))
        while (names := left(record)) and record["why"] is None and len(record["rungs"]) < record["rung_count"]:
            if len(names) <= KEPT:
                break
            rung = measure(config, run, manifest, record, names, execute)
            record["rungs"] = [*record["rungs"], rung]
            record["excluded"] = {**record["excluded"], **decide(record, rung, manifest.mode)}
            run.update(starts=record)
        record["kept"] = left(record, with_control=True)
        run.update(starts=record)
    chosen = selection(record)
    screen.table("Screen and selection of the starts", *selection_table(record["given"], chosen))
    screen.say(selection_text(chosen))
    return without_arms(config, record["excluded"])


def left(record: Record, with_control: bool = False) -> list[str]:
    """Return the starts that are not excluded, those with the best screen first; with the control, in given order."""
    names = [name for name in record["given"] if name not in record["excluded"]]
    if with_control:
        return names
    order = screen_order(record)
    return sorted((name for name in names if name != CONTROL), key=order.index)


def screen_order(record: Record) -> list[str]:
    """Return the starts by the mean of their ranks in both measures of the screen; those without a screen last."""
    ranks = screen_ranks(record["screen"])
    return sorted(record["given"], key=lambda name: ranks.get(name, math.inf))


def screened(manifest: Manifest, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return k-NN score, LogME and seconds of each start whose screen is done."""
    found = {}
    for name in names:
        record = (manifest.record(f"screen-{name}") or {}) if f"screen-{name}" in manifest.by_name else {}
        if record.get("status") == "done":
            values = {"knn": record["metrics"][KNN], "logme": record["metrics"][LOGME]}
            found[name] = {**values, "seconds": record["cost"]["seconds"]}
    return found


def steps_of(record: Record, names: Sequence[str]) -> dict[str, int]:
    """Return the steps of a job of each start in the next rung: equal shares of the cost that is left."""
    rungs = record["rungs"]
    budget = record["bound"] * record["examples"] - sum(rung["examples"] for rung in rungs)
    jobs = sum(len(record["rates"][name]) for name in names) * len(record["training"])
    share = budget / (record["rung_count"] - len(rungs)) / jobs
    return {
        name: min(record["steps"][name], affordable(share, record["training"], record["batch"][name])) for name in names
    }


def measure(
    config: DictConfig, run: RunFolder, manifest: Manifest, record: Record, names: Sequence[str], execute: Execute
) -> Record:
    """Run a rung; return its steps, scores by fold with the best rate of each start, errors, and cost."""
    number, steps = len(record["rungs"]) + 1, steps_of(record, names)
    before = record["rungs"][-1]["rates"] if record["rungs"] else None
    rates = {name: [before[name]] if before else record["rates"][name] for name in names}
    base = str(run.path / RUNS / pretraining_name(config, 0))
    jobs: dict[tuple[str, float], list[Job]] = {}
    for name in names:
        own = selection_config(config, name, base, record["labels"])
        needed = pretraining_of(config, name, config.seed)
        for index, rate in enumerate(rates[name]):
            for fold in range(len(record["training"])):
                short = {**short_run(own, steps[name], record["folds"], fold), "optimizer.lr": rate}
                values = {"selects": name, "rung": number, "optimizer.lr": rate, "data.fold": fold}
                job_name = f"select{number}-{name}-rate{index}-fold{fold}"
                node = OmegaConf.to_container(changed(own, short), resolve=True)
                jobs.setdefault((name, rate), []).append(Job(job_name, values, node, needed))
    size = f"{len(names)} starts on {len(record['training'])} of {record['folds']} folds of {record['rows']:,} rows"
    screen.say(f"selection among the starts, rung {number}: {size}")
    execute(manifest, [job for group in jobs.values() for job in group])
    remove_models(manifest)
    records = {key: [manifest.record(job.name) for job in group] for key, group in jobs.items()}
    scores: dict[str, list[float]] = {}
    best_rates, errors, spent = {}, {}, dict.fromkeys(names, 0)
    sign = 1 if manifest.mode == "max" else -1
    for (name, rate), found in records.items():
        spent[name] += sum((one.get("cost") or {}).get("examples", 0) for one in found)
        failed = next((one for one in found if one["status"] != "done"), None)
        if failed is not None:
            errors[name] = failed.get("error") or "a run failed"
            continue
        values = [one["metrics"][manifest.metric] for one in found]
        if name not in scores or sign * (statistics.fmean(values) - statistics.fmean(scores[name])) > 0:
            scores[name], best_rates[name] = values, rate
    if not scores:
        raise UserError(f"transfer.starts: no start could be trained in the selection: {next(iter(errors.values()))}")
    seconds = sum((one.get("cost") or {}).get("seconds", 0.0) for found in records.values() for one in found)
    return {
        "steps": steps,
        "scores": scores,
        "rates": best_rates,
        "errors": {name: error for name, error in errors.items() if name not in scores},
        "spent": spent,
        "examples": sum(spent.values()),
        "seconds": seconds,
    }


def remove_models(manifest: Manifest) -> None:
    """Remove the weights of the finished jobs of the selection, which are not used again."""
    for job in manifest.jobs:
        if "selects" in job.values and manifest.state(job.name) == "done":
            for name in UNUSED_FOLDERS:
                shutil.rmtree(manifest.path(job.name) / name, ignore_errors=True)


def decide(record: Record, rung: Record, mode: str) -> dict[str, Record]:
    """Return the starts that a rung excludes: failed ones, and those significantly worse than the best."""
    sign = 1 if mode == "max" else -1
    scores = rung["scores"]
    order = sorted(scores, key=lambda name: -sign * statistics.fmean(scores[name]))
    number, best = len(record["rungs"]), order[0]
    comparisons = (len(record["rates"]) - 1) * record["rung_count"]
    confidence = 1 - (1 - CONFIDENCE) / comparisons
    found = {name: {"rung": number, "reason": f"failed: {error}"} for name, error in rung["errors"].items()}
    for name in order[KEPT:]:
        losses = [sign * (one - other) for one, other in zip(scores[best], scores[name], strict=True)]
        low = lower_bound(losses, 1 / (record["folds"] - 1), confidence)
        if low is not None and low > 0:
            mean = statistics.fmean(losses)
            reason = f"worse than {best} by {mean:.3g} on average over {len(losses)} folds, at least by {low:.3g}"
            found[name] = {"rung": number, "reason": reason, "loss": mean, "low": low, "best": best}
    return found


def without_arms(config: DictConfig, excluded: Collection[str]) -> DictConfig:
    """Return the transfer's config without these arms."""
    kept = [arm for arm in config.transfer.arms if arm not in excluded]
    budgets = {
        f"transfer.budgets.{name}": [arm for arm in arms if arm in kept]
        for name, arms in config.transfer.budgets.items()
    }
    return changed(config, {"transfer.arms": kept, **budgets})
