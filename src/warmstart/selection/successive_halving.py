"""A strategy that races: its candidates are trained briefly on folds of the labelled rows, then the run goes on."""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from warmstart.config.rewrite import changed, from_parent
from warmstart.core import screen
from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.protocols import Source
from warmstart.data.loader import batches
from warmstart.data.splits import most_folds
from warmstart.report.leaderboard import to_csv
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder
from warmstart.run.identity import git_state
from warmstart.run.manifest import MANIFEST, RACE, Job, Manifest
from warmstart.sweep.job import Outcome, run_job, write_error
from warmstart.sweep.runner import RunStage
from warmstart.training import components
from warmstart.training.compatibility import check_fit
from warmstart.training.record import runs_folder
from warmstart.training.start import find_start
from warmstart.training.trainer import check_interval

HEAVY = ("checkpoints", "model")  # what a job leaves that nobody will need
COLUMNS = ("rung", "strategy", "lr", "steps", "folds", "mean", "scores", "error")


class Field(NamedTuple):
    """What is known before a race: who chooses, the run's parent, its labelled rows, into how many folds they are cut.

    The run takes `steps`, which train on so many `examples`. A step has `batch` rows, and a job of the race has one of
    the numbers of `training` rows.
    """

    strategy: Any
    parent: dict[str, Any] | None
    rows: int
    folds: int
    steps: int
    examples: int
    batch: int
    training: tuple[int, ...]

    def affordable(self, examples: float) -> int:
        """Steps of a job that train on so many examples at most."""
        steps = []
        for rows in self.training:
            (epochs, rest), count = divmod(examples, rows), batches(rows, self.batch)
            steps.append(int(epochs) * count + min(int(rest // self.batch), count - 1))
        return min(steps)


def run_first(config: DictConfig, opened: RunFolder | None, watchers: Sequence[Any], finetune: RunStage) -> RunFolder:
    """Race, unless that is over, and finetune with what was taken, all in one run folder.

    Args:
        config: a composed finetuning config.
        opened: the folder to run in, or to go on in, if not a new one.
        watchers: further callbacks for the finetuning's Trainer.
        finetune: runs the jobs of the race, and then the run itself.
    """
    field = survey(config)
    run = opened or RunFolder.create(config, runs_folder(config))
    with run.recording():
        if not run.record.get("auto"):
            run.update(parent=field.parent)
            race(config, field, run, finetune)
        taken = run.record["auto"]
        screen.say(f"strategy=auto takes {taken['strategy']} at optimizer.lr={taken['lr']:g}: {taken['why']}")
        chosen = {"strategy": config.strategy.options[taken["strategy"]], "optimizer.lr": taken["lr"]}
        own = changed(from_parent(config, field.parent), chosen)
        return finetune(own, run, watchers)


def survey(config: DictConfig) -> Field:
    """Refuse what cannot be raced or trained, before anything is written.

    Raises:
        UserError: a part, a setting or the start does not fit, or the cost is too little.
    """
    strategy = components.build(config.strategy)
    check_fit(config)
    if config.data.folds is not None:
        raise UserError("strategy=auto cuts folds of its own out of the labelled rows: leave out data.folds")
    _, parent = find_start(config)
    data = components.task_data(config)
    splits = data.source.load(data.target)
    rows = data.training_rows(splits)
    steps, examples = length_of(config, len(rows))
    folds = strategy.fold_count(len(rows), most_folds(rows, splits.labels)[0])
    batch = config.data.batch_size * config.trainer.accumulate_grad_batches
    training = tuple(training_rows(config, data.source, splits, folds, strategy.evaluated_folds)) if folds >= 2 else ()
    field = Field(strategy, parent, len(rows), folds, steps, examples, batch, training)
    if folds >= 2:
        strategy.plan(steps, examples, field.affordable)
    return field


def training_rows(config: DictConfig, source: Source, splits: Splits, folds: int, count: int) -> Iterator[int]:
    """How many rows train, where each of the first `count` folds validates."""
    for fold in range(count):
        own = changed(config, {"data.folds": folds, "data.fold": fold})
        yield len(components.task_data(own, source=source).training_rows(splits))


def length_of(config: DictConfig, rows: int) -> tuple[int, int]:
    """How many steps the run itself takes, and how many examples they train on.

    Raises:
        UserError: that is not known before, or a validation is never reached.
    """
    trainer = config.trainer
    for name in ("max_time", "max_tokens"):
        if trainer.get(name) is not None:
            raise UserError(
                f"strategy=auto shares out steps, whose number trainer.{name} leaves open: "
                "give trainer.max_epochs or trainer.max_steps instead"
            )
    count = batches(rows, config.data.batch_size)
    check_interval(trainer, count)
    limit = trainer.overfit_batches or trainer.limit_train_batches or 1.0
    used = min(count, limit) if isinstance(limit, int) else max(1, int(count * limit))
    per_epoch = math.ceil(used / trainer.accumulate_grad_batches)
    steps = min(steps for steps in (trainer.max_epochs * per_epoch, trainer.max_steps) if steps > 0)
    each = rows if used == count else used * config.data.batch_size
    return steps, round(steps * each / per_epoch)


def race(config: DictConfig, field: Field, run: RunFolder, finetune: RunStage) -> None:
    """Have the strategy race, and note in the run's record what was tried, what was taken, why, and what it cost."""
    started, spent = time.monotonic(), (run.record["cost"] or {}).get("seconds", 0.0)
    manifest = reopen(config, run)
    tried: list[dict[str, Any]] = []

    def measure(rung: Any, entries: Sequence[Any]) -> dict[Any, list[float] | None]:
        """Run the jobs of a rung; scores by entry, None where a job failed."""
        number = len({row["rung"] for row in tried}) + 1
        if number == 1:
            screen.say(f"strategy=auto races {len(entries)} settings on {field.rows:,} rows in {field.folds} folds")
        jobs = {entry: [job_of(config, field, number, rung, entry, fold) for fold in rung.folds] for entry in entries}
        manifest.extend([job for own in jobs.values() for job in own if job.name not in manifest.by_name])
        scores = {}
        for entry, own in jobs.items():
            outcomes = [work(manifest, job, finetune) for job in own]
            values, errors = [value for value, _ in outcomes], [error for _, error in outcomes if error]
            scores[entry] = None if errors else values
            tried.append(
                {
                    "rung": number,
                    "strategy": entry.strategy,
                    "lr": own[0].config["optimizer"]["lr"],
                    "steps": rung.steps,
                    "folds": list(rung.folds),
                    "scores": None if errors else values,
                    "mean": None if errors else statistics.fmean(values),
                    "error": errors[0] if errors else None,
                }
            )
        write_atomically(manifest.folder / "race.csv", to_csv(COLUMNS, tried))
        return scores

    try:
        entry, why, gain = field.strategy.select(
            field.steps, field.examples, field.affordable, field.folds, manifest.mode, measure
        )
    finally:
        seconds = spent + time.monotonic() - started
        run.note(cost={"seconds": seconds, "steps": 0, "examples": 0, "peak_memory_mb": None})
    taken = {"strategy": entry.strategy, "lr": config.optimizer.lr * entry.rate, "why": why, "gain": gain}
    costs = [(manifest.record(job.name) or {}).get("cost") or {} for job in manifest.jobs]
    race_steps, examples = (sum(cost.get(name, 0) for cost in costs) for name in ("steps", "examples"))
    used = {"race_steps": race_steps, "run_steps": field.steps, "race_examples": examples}
    peak = max((cost.get("peak_memory_mb") or 0 for cost in costs), default=0)
    run.note(cost={**run.record["cost"], "peak_memory_mb": peak})
    used |= {"run_examples": field.examples, "cost": examples / field.examples, "seconds": seconds}
    run.update(auto={**taken, "metric": manifest.metric, "folds": field.folds, "tried": tried, **used})
    show(run.record["auto"])


def reopen(config: DictConfig, run: RunFolder) -> Manifest:
    """The plan of the run's race, which grows rung by rung, as far as it is written."""
    folder = run.path / RACE
    if (folder / MANIFEST).is_file():
        return Manifest.read(folder)
    shutil.rmtree(folder, ignore_errors=True)
    metric, mode = get_object(config.objective._target_).monitor
    manifest = Manifest(folder, "finetune", config.experiment, ["strategy=auto"], metric, mode, git_state(), [])
    manifest.write()
    return manifest


def job_of(config: DictConfig, field: Field, number: int, rung: Any, entry: Any, fold: int) -> Job:
    """A short finetuning that validates on a fold, once, at its end."""
    rate = config.optimizer.lr * entry.rate
    length = {
        "max_epochs": -1,
        "max_steps": rung.steps,
        "min_steps": None,
        "check_val_every_n_epoch": None,
        "val_check_interval": rung.steps * config.trainer.accumulate_grad_batches,
    }
    settings = {
        "strategy": config.strategy.options[entry.strategy],
        "optimizer.lr": rate,
        "patience": None,
        **dict.fromkeys(("test", "pictures", "forgetting"), False),
        "data.folds": field.folds,
        "data.fold": fold,
        **{f"trainer.{key}": value for key, value in length.items()},
    }
    own = changed(from_parent(config, field.parent), settings)
    values = {"strategy": entry.strategy, "optimizer.lr": rate, "rung": number, "data.fold": fold}
    name = f"rung{number}-{entry.strategy}-rate{entry.rate:g}-fold{fold}"
    return Job(name, values, OmegaConf.to_container(own, resolve=True))


def work(manifest: Manifest, job: Job, finetune: RunStage) -> tuple[float | None, str | None]:
    """Run a job that is not over, in this process; return its score, or why it has none.

    Raises:
        WriteError: a file of the job could not be written, which says nothing of its candidate: it is left to do.
        UserError: the job could not be started, or another process is at work on it.
    """
    record = manifest.record(job.name)
    if record is None or record["status"] not in ("done", "failed") or write_error(record["error"]) is not None:
        outcome = run_job(manifest, job, finetune)
        record = manifest.record(job.name)
    else:
        outcome = Outcome(job.name, record["status"], record["error"], record["metrics"].get(manifest.metric))
    if outcome.state == "running":
        raise UserError(f"{manifest.path(job.name)}: another process is at work on this run; wait until it has ended")
    for name in HEAVY:
        shutil.rmtree(manifest.path(job.name) / name, ignore_errors=True)
    if (failure := write_error(outcome.error)) is not None:
        raise failure
    if record is None:
        raise UserError(f"{job.name} could not be started: {outcome.error}")
    return (outcome.score, None) if outcome.state == "done" else (None, outcome.error)


def show(auto: dict[str, Any]) -> None:
    """What was tried, rung by rung, best first."""
    rows = [
        (
            str(row["rung"]),
            row["strategy"],
            f"{row['lr']:.4g}",
            str(row["steps"]),
            str(len(row["folds"])),
            "failed" if row["error"] else screen.number(row["mean"]),
        )
        for row in auto["tried"]
    ]
    if rows:
        title = f"strategy=auto: {auto['race_steps']} steps, {auto['cost']:.2f} times the examples of the run"
        screen.table(title, ("rung", "strategy", "lr", "steps", "folds", auto["metric"]), rows)
