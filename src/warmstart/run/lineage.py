"""Finds the runs that other runs start from, by name or path, and their ancestors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.screen import command, quoted
from warmstart.run.folder import RunFolder

Lacking = Callable[[Mapping[str, Any]], list[str]]
MAX_NAMED = 3  # runs that an error message names
TUNED = ("finetune", "soup")  # stages that produce a model for a task


def runs_of(output_dir: Path, stage: str, experiment: str) -> list[RunFolder]:
    """Return the runs of a stage and experiment under `output_dir`, oldest first; skip damaged runs with a warning."""
    found = []
    for path in sorted((output_dir / stage / experiment).glob("*/run.json")):
        try:
            found.append(RunFolder.open(path.parent))
        except UserError as error:
            warn_once(str(error))
    return sorted(found, key=lambda run: run.record["id"])


@functools.cache
def warn_once(problem: str) -> None:
    """Print a warning, once per problem, that a run is skipped."""
    screen.say(f"warning: {problem}; the run is skipped", style="yellow")


def latest(
    output_dir: Path, stage: str | tuple[str, ...], experiment: str, lacking: Lacking = lambda record: []
) -> RunFolder:
    """Return the newest finished run of a stage and experiment whose columns are all present.

    Args:
        lacking: returns the columns that a run with this record needs and the data lacks.

    Raises:
        UserError: there is none; the message names the command that makes one, or the columns that are missing.
    """
    stages = (stage,) if isinstance(stage, str) else stage
    runs = [run for name in stages for run in runs_of(output_dir, name, experiment)]
    done = [run for run in runs if run.record["status"] == "done"]
    if not done:
        raise UserError(
            f"no finished {stages[0]} run of experiment={experiment} under {output_dir}: "
            f"make one with  {command('python', 'train.py', f'stage={stages[0]}', f'experiment={quoted(experiment)}')}"
        )
    return newest(done, lacking)


def newest(done: Sequence[RunFolder], lacking: Lacking) -> RunFolder:
    """Return the newest run that lacks no column, or the newest of all if every run lacks the same columns.

    Raises:
        UserError: every run lacks columns, and not the same ones; the message names the newest runs.
    """
    candidates = sorted(done, key=lambda run: run.record["id"], reverse=True)
    compatible = next((run for run in candidates if not lacking(run.record)), None)
    if compatible is not None:
        return compatible
    if len({tuple(lacking(run.record)) for run in candidates}) == 1:
        return candidates[0]  # opening it reports the missing columns
    found = "; ".join(f"{run.path} was trained on {', '.join(lacking(run.record))}" for run in candidates[:MAX_NAMED])
    more = f" (and {len(candidates) - MAX_NAMED:,} older runs)" if len(candidates) > MAX_NAMED else ""
    raise UserError(
        f"latest: every finished run was trained on columns that are missing here: {found}{more}; give a path"
    )


def finished(path: Path, stage: str | tuple[str, ...] | None = None) -> RunFolder:
    """Return the run at `path`, which must be done and, if given, of one of these stages.

    Raises:
        UserError: the run is missing, unfinished, failed, or of another stage.
    """
    run = RunFolder.open(path)
    status = run.record["status"]
    if status != "done":
        reason = f" ({run.record.get('error')})" if run.record.get("error") else ""
        raise UserError(f"{path} is not finished: its status is {status}{reason}; give a run with status done")
    stages = (stage,) if isinstance(stage, str) else stage
    if stages is not None and run.record["stage"] not in stages:
        raise UserError(f"{path} is a {run.record['stage']} run; give a {' or '.join(stages)} run")
    return run


def find(
    value: str, output_dir: Path, stage: str | tuple[str, ...], experiment: str, lacking: Lacking = lambda record: []
) -> RunFolder:
    """Return the finished run that `run=` selects: `latest` of a stage and experiment, or a path."""
    if value == "latest":
        return latest(output_dir, stage, experiment, lacking)
    run = finished(Path(value), stage)
    found = run.record.get("experiment")
    if found != experiment:
        raise UserError(f"{value} is a run of experiment={found}, not of {experiment}: set experiment={found}")
    return run


def parent_run(parent: dict[str, Any] | None) -> RunFolder | None:
    """Return the run that saved the weights of a parent record; None if there is none or it was removed."""
    if parent is None or parent["id"] is None:
        return None
    folders = (path for path in Path(parent.get("path", "")).parents if (path / "run.json").is_file())
    try:
        run = RunFolder.open(next(folders))
    except StopIteration:
        return None
    except UserError as error:
        warn_once(str(error))
        return None
    return run if run.record["id"] == parent["id"] else None


def ancestry(parent: dict[str, Any] | None) -> list[str]:
    """Return the names of the known ancestors of a model with this parent record, oldest first."""
    run = parent_run(parent)
    runs = [] if run is None else list(chain(run))
    names = [f"{run.record['stage']} {run.record['id']}" for run in reversed(runs)]
    first = runs[-1].record.get("parent") if runs else parent
    return names if first is None or parent_run(first) else [first["id"] or first["path"], *names]


def chain(run: RunFolder) -> Iterator[RunFolder]:
    """Yield a run and the runs that it was initialized from, newest first, each once."""
    seen: set[Path] = set()
    found: RunFolder | None = run
    while found is not None and found.path.resolve() not in seen:
        seen.add(found.path.resolve())
        yield found
        found = parent_run(found.record.get("parent"))


def ancestors(run: RunFolder) -> Iterator[RunFolder]:
    """Yield a run and all runs that it depends on, as initial weights or as teachers, each once."""
    seen: set[Path] = set()
    left = [run]
    while left:
        for found in chain(left.pop()):
            if found.path.resolve() in seen:
                break
            seen.add(found.path.resolve())
            yield found
            teacher = parent_run(found.record.get("teacher"))
            left += [] if teacher is None else [teacher]
