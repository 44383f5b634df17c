"""Strategy selection by successive halving: train candidates briefly on folds of the labelled rows, then finetune."""

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
from warmstart.core.protocols import Source, monitored
from warmstart.data.loader import batches
from warmstart.data.splits import most_folds
from warmstart.report.leaderboard import to_csv
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder
from warmstart.run.identity import git_state
from warmstart.run.manifest import HALVING, MANIFEST, Job, Manifest
from warmstart.sweep.job import Outcome, RunStage, run_job, write_error
from warmstart.training import components
from warmstart.training.compatibility import check_compatibility
from warmstart.training.length import check_interval, with_min_steps
from warmstart.training.record import runs_folder
from warmstart.training.start import find_start

UNUSED_FOLDERS = ("checkpoints", "model")  # of a job, removed when it ends
COLUMNS = ("rung", "strategy", "lr", "steps", "folds", "mean", "scores", "error")


class Setup(NamedTuple):
    """The inputs of successive halving.

    Args:
        strategy: chooses among the candidates.
        parent: the record of the parent run, if any.
        rows: number of labelled rows.
        folds: number of folds of these rows.
        steps: optimizer steps of the final run.
        examples: examples that these steps train on.
        batch: rows per optimizer step.
        training: numbers of training rows of the jobs, one per fold.
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
        """Return the largest number of steps of a job that train on at most `examples` examples."""
        return affordable(examples, self.training, self.batch)


def affordable(examples: float, training: Sequence[int], batch: int) -> int:
    """Return the largest number of steps of a job that train on at most `examples` examples.

    Args:
        examples: number of examples, repetitions included.
        training: numbers of training rows of the jobs, one per fold.
        batch: rows per optimizer step.
    """
    steps = []
    for rows in training:
        (epochs, rest), count = divmod(examples, rows), batches(rows, batch)
        steps.append(int(epochs) * count + min(int(rest // batch), count - 1))
    return min(steps)


def select_and_finetune(
    config: DictConfig, opened: RunFolder | None, callbacks: Sequence[Any], finetune: RunStage
) -> RunFolder:
    """Select a strategy and learning rate, unless they are recorded already, and finetune with them in one run folder.

    Args:
        config: a composed finetuning config.
        opened: the run folder to resume; None creates a new one.
        callbacks: additional callbacks for the finetuning's Trainer.
        finetune: runs the jobs of successive halving and the final finetuning.
    """
    setup = prepare(config)
    run = opened or RunFolder.create(config, runs_folder(config))
    with run.recording():
        if not run.record.get("auto"):
            run.update(parent=setup.parent)
            select(config, setup, run, finetune)
        selected = run.record["auto"]
        screen.say(
            f"strategy=auto selects {selected['strategy']} with optimizer.lr={selected['lr']:g}: {selected['why']}"
        )
        settings = {"strategy": config.strategy.options[selected["strategy"]], "optimizer.lr": selected["lr"]}
        return finetune(changed(from_parent(config, setup.parent), settings), run, callbacks)


def prepare(config: DictConfig) -> Setup:
    """Check the config before anything is written, and return the inputs of successive halving.

    Raises:
        UserError: components are incompatible, a setting or the initial weights are invalid, or the cost is too small.
    """
    strategy = components.build(config.strategy)
    check_compatibility(config)
    if config.data.folds is not None:
        raise UserError("strategy=auto splits the labelled rows into folds itself: remove data.folds")
    _, parent = find_start(config)
    data = components.task_data(config)
    splits = data.source.load(data.target)
    rows = data.training_rows(splits)
    steps, examples = length_of(config, len(rows))
    most, _ = most_folds(rows, splits.labels, by_cluster=splits.keeps_clusters)
    folds = strategy.fold_count(len(rows), most)
    batch = config.data.batch_size * config.trainer.accumulate_grad_batches
    training = tuple(training_rows(config, data.source, splits, folds, strategy.evaluated_folds)) if folds >= 2 else ()
    setup = Setup(strategy, parent, len(rows), folds, steps, examples, batch, training)
    if folds >= 2:
        strategy.plan(steps, examples, setup.affordable)
    return setup


def training_rows(config: DictConfig, source: Source, splits: Splits, folds: int, count: int) -> Iterator[int]:
    """Yield the number of training rows with each of the first `count` folds as validation data."""
    for fold in range(count):
        fold_config = changed(config, {"data.folds": folds, "data.fold": fold})
        yield len(components.task_data(fold_config, source=source).training_rows(splits))


def length_of(config: DictConfig, rows: int, user: str = "strategy=auto") -> tuple[int, int]:
    """Return the optimizer steps of the final run and the examples they train on.

    Args:
        config: a composed finetuning config.
        rows: number of training rows.
        user: the setting that needs the number of steps, for messages.

    Raises:
        UserError: the number of steps is not known in advance, or the run would never validate.
    """
    if components.packs_rows(config):
        raise UserError(f"{user} counts rows, but data.pack=true makes blocks of them: set data.pack=false")
    for name in ("max_time", "max_tokens"):
        if config.trainer.get(name) is not None:
            raise UserError(
                f"{user} needs a known number of steps, which trainer.{name} does not give: "
                "set trainer.max_epochs or trainer.max_steps instead"
            )
    count = batches(rows, config.data.batch_size)
    trainer = with_min_steps(config.trainer, count)
    check_interval(trainer, count)
    limit = trainer.overfit_batches or trainer.limit_train_batches or 1.0
    used = min(count, limit) if isinstance(limit, int) else max(1, int(count * limit))
    per_epoch = math.ceil(used / trainer.accumulate_grad_batches)
    steps = min(steps for steps in (trainer.max_epochs * per_epoch, trainer.max_steps) if steps > 0)
    epoch_examples = rows if used == count else used * config.data.batch_size
    return steps, round(steps * epoch_examples / per_epoch)


def select(config: DictConfig, setup: Setup, run: RunFolder, finetune: RunStage) -> None:
    """Run successive halving, and record the candidates' scores, the selected one, the reason and the cost."""
    started, spent = time.monotonic(), (run.record["cost"] or {}).get("seconds", 0.0)
    manifest = open_manifest(config, run)
    trials: list[dict[str, Any]] = []

    def measure(rung: Any, entries: Sequence[Any]) -> dict[Any, list[float] | None]:
        """Run the jobs of a rung; return the scores by entry, None if a job failed."""
        number = len({row["rung"] for row in trials}) + 1
        if number == 1:
            size = f"{len(entries)} candidates on {setup.rows:,} rows in {setup.folds} folds"
            screen.say(f"strategy=auto: successive halving of {size}")
        jobs = {entry: [make_job(config, setup, number, rung, entry, fold) for fold in rung.folds] for entry in entries}
        manifest.extend([job for entry_jobs in jobs.values() for job in entry_jobs if job.name not in manifest.by_name])
        scores = {}
        for entry, entry_jobs in jobs.items():
            outcomes = [run_or_read(manifest, job, finetune) for job in entry_jobs]
            values, errors = [value for value, _ in outcomes], [error for _, error in outcomes if error]
            scores[entry] = None if errors else values
            trials.append(
                {
                    "rung": number,
                    "strategy": entry.strategy,
                    "lr": entry_jobs[0].config["optimizer"]["lr"],
                    "steps": rung.steps,
                    "folds": list(rung.folds),
                    "scores": None if errors else values,
                    "mean": None if errors else statistics.fmean(values),
                    "error": errors[0] if errors else None,
                }
            )
        write_atomically(manifest.folder / "candidates.csv", to_csv(COLUMNS, trials))
        return scores

    try:
        entry, why, gain = setup.strategy.select(
            setup.steps, setup.examples, setup.affordable, setup.folds, manifest.mode, measure
        )
    finally:
        seconds = spent + time.monotonic() - started
        run.note(cost={"seconds": seconds, "steps": 0, "examples": 0, "peak_memory_mb": None})
    selected = {"strategy": entry.strategy, "lr": config.optimizer.lr * entry.rate, "why": why, "gain": gain}
    costs = [(manifest.record(job.name) or {}).get("cost") or {} for job in manifest.jobs]
    steps, examples = (sum(cost.get(name, 0) for cost in costs) for name in ("steps", "examples"))
    used = {"selection_steps": steps, "run_steps": setup.steps, "selection_examples": examples}
    peak = max((cost.get("peak_memory_mb") or 0 for cost in costs), default=0)
    run.note(cost={**run.record["cost"], "peak_memory_mb": peak})
    used |= {"run_examples": setup.examples, "cost": examples / setup.examples, "seconds": seconds}
    run.update(auto={**selected, "metric": manifest.metric, "folds": setup.folds, "tried": trials, **used})
    show_trials(run.record["auto"])


def open_manifest(config: DictConfig, run: RunFolder) -> Manifest:
    """Open or create the manifest of the candidates' jobs, to which every rung adds its own."""
    folder = run.path / HALVING
    if (folder / MANIFEST).is_file():
        return Manifest.read(folder)
    shutil.rmtree(folder, ignore_errors=True)
    metric, mode = monitored(get_object(config.objective._target_), config.objective)
    manifest = Manifest(folder, "finetune", config.experiment, ["strategy=auto"], metric, mode, git_state(), [])
    manifest.write()
    return manifest


def make_job(config: DictConfig, setup: Setup, number: int, rung: Any, entry: Any, fold: int) -> Job:
    """Return the job of a short finetuning of a candidate."""
    rate = config.optimizer.lr * entry.rate
    settings = {
        "strategy": config.strategy.options[entry.strategy],
        "optimizer.lr": rate,
        **short_run(config, rung.steps, setup.folds, fold),
    }
    job_config = changed(from_parent(config, setup.parent), settings)
    values = {"strategy": entry.strategy, "optimizer.lr": rate, "rung": number, "data.fold": fold}
    name = f"rung{number}-{entry.strategy}-rate{entry.rate:g}-fold{fold}"
    return Job(name, values, OmegaConf.to_container(job_config, resolve=True))


def short_run(config: DictConfig, steps: int, folds: int, fold: int) -> dict[str, Any]:
    """Return the settings of a finetuning of `steps` steps that validates once, at its end, on the given fold."""
    length = {
        "max_epochs": -1,
        "max_steps": steps,
        "min_steps": None,
        "check_val_every_n_epoch": None,
        "val_check_interval": steps * config.trainer.accumulate_grad_batches,
    }
    return {
        "patience": None,
        **dict.fromkeys(("test", "forgetting"), False),
        "visualization": {},
        "data.folds": folds,
        "data.fold": fold,
        **{f"trainer.{key}": value for key, value in length.items()},
    }


def run_or_read(manifest: Manifest, job: Job, finetune: RunStage) -> tuple[float | None, str | None]:
    """Run a job in this process unless it has ended; return its score, or None and the error.

    Raises:
        WriteError: a file of the job could not be written. This is no failure of the candidate, so the job is run again
            when the run is resumed.
        UserError: the job could not be started, or another process is running it.
    """
    record = manifest.record(job.name)
    if record is None or record["status"] not in ("done", "failed") or write_error(record["error"]) is not None:
        outcome = run_job(manifest, job, finetune)
        record = manifest.record(job.name)
    else:
        outcome = Outcome(job.name, record["status"], record["error"], record["metrics"].get(manifest.metric))
    if outcome.state == "running":
        raise UserError(f"{manifest.path(job.name)}: another process is running this job; wait until it has ended")
    for name in UNUSED_FOLDERS:
        shutil.rmtree(manifest.path(job.name) / name, ignore_errors=True)
    if (failure := write_error(outcome.error)) is not None:
        raise failure
    if record is None:
        raise UserError(f"{job.name} could not be started: {outcome.error}")
    return (outcome.score, None) if outcome.state == "done" else (None, outcome.error)


def show_trials(auto: dict[str, Any]) -> None:
    """Print a table of the candidates' mean scores by rung."""
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
        title = (
            f"strategy=auto: {auto['selection_steps']} steps, {auto['cost']:.2f} times the examples of the final run"
        )
        screen.table(title, ("rung", "strategy", "lr", "steps", "folds", auto["metric"]), rows)
