"""Which run another run builds on: found by name or path, never guessed."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from warmstart.contracts import UserError
from warmstart.run.folder import RunFolder

# The stages whose runs a stage starts from, where its `run` names one.
NAMED = {
    "evaluate": ("finetune",),
    "predict": ("finetune",),
    "export": ("finetune", "pretrain"),
    "generate": ("pretrain",),
}


def runs_of(output_dir: Path, stage: str, experiment: str) -> list[RunFolder]:
    """The runs of one stage and experiment under `output_dir`, oldest first; unreadable ones are left out."""
    found = []
    for path in sorted((output_dir / stage / experiment).glob("*/run.json")):
        try:
            found.append(RunFolder.open(path.parent))
        except UserError:
            continue
    return sorted(found, key=lambda run: run.record["id"])


def latest(output_dir: Path, stage: str, experiment: str) -> RunFolder:
    """The newest finished run of exactly this stage and experiment.

    Raises:
        UserError: there is none; the message says which command makes one.
    """
    done = [run for run in runs_of(output_dir, stage, experiment) if run.record["status"] == "done"]
    if not done:
        raise UserError(
            f"no finished {stage} run of experiment={experiment} under {output_dir}: "
            f"make one with  python train.py stage={stage} experiment={experiment}"
        )
    return done[-1]


def finished(path: Path, stage: str | None = None) -> RunFolder:
    """The run at `path`, which must be done, and of `stage` where one is named.

    Raises:
        UserError: it is missing, unfinished, failed, or of another stage.
    """
    run = RunFolder.open(path)
    status = run.record["status"]
    if status != "done":
        reason = f" ({run.record.get('error')})" if run.record.get("error") else ""
        raise UserError(f"{path} is not finished: its status is {status}{reason}; use a run that is done")
    if stage is not None and run.record["stage"] != stage:
        raise UserError(f"{path} is a {run.record['stage']} run; a {stage} run is needed here")
    return run


def follow(config: DictConfig) -> DictConfig:
    """The config with the experiment of the run that `run` names: the newest of all, or the one at a path."""
    stages = NAMED.get(config.stage)
    if stages is None:
        return config
    found = Path(config.run)
    if config.run == "latest":
        output = Path(config.output_dir)
        names = [(stage, path.name) for stage in stages for path in (output / stage).glob("*")]
        runs = [run for name in names for run in runs_of(output, *name) if run.record["status"] == "done"]
        if not runs:
            return config
        found = max(runs, key=lambda run: run.record["id"]).path
    followed = config.copy()
    followed.experiment = finished(found).record.get("experiment", config.experiment)
    return followed


def find(word: str, output_dir: Path, stage: str, experiment: str) -> RunFolder:
    """The finished run of this stage and experiment that `run=` means: `latest`, or a path."""
    if word == "latest":
        return latest(output_dir, stage, experiment)
    run = finished(Path(word), stage)
    theirs = run.record.get("experiment")
    if theirs != experiment:
        raise UserError(f"{word} is a run of experiment={theirs}, not of {experiment}: add experiment={theirs}")
    return run
