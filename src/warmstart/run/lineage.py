"""Which run another run builds on: found by name or path, never guessed."""

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
CANDIDATES = 3  # runs that a message names
TUNED = ("finetune", "soup")  # the stages that make a model for a task


def runs_of(output_dir: Path, stage: str, experiment: str) -> list[RunFolder]:
    """The runs of one stage and experiment under `output_dir`, oldest first; a warning names those that are damaged."""
    found = []
    for path in sorted((output_dir / stage / experiment).glob("*/run.json")):
        try:
            found.append(RunFolder.open(path.parent))
        except UserError as error:
            warn_of(str(error))
    return sorted(found, key=lambda run: run.record["id"])


@functools.cache
def warn_of(problem: str) -> None:
    """Print, once, that a run is left out."""
    screen.say(f"warning: {problem}; the run is left out", style="yellow")


def latest(
    output_dir: Path, stage: str | tuple[str, ...], experiment: str, lacking: Lacking = lambda record: []
) -> RunFolder:
    """The newest finished run of exactly this stage, or one of these, and experiment that lacks no column.

    Args:
        output_dir: where runs are.
        stage: of the run, or several.
        experiment: of the run.
        lacking: the columns that a run with this record needs and does not find.

    Raises:
        UserError: there is none; the message says which command makes one, or what the candidates need.
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
    """The newest of these runs that lacks no column; the newest of all where each lacks the same ones.

    Raises:
        UserError: each lacks some, and not the same ones; the newest runs and what they lack are named.
    """
    candidates = sorted(done, key=lambda run: run.record["id"], reverse=True)
    fitting = next((run for run in candidates if not lacking(run.record)), None)
    if fitting is not None:
        return fitting
    if len({tuple(lacking(run.record)) for run in candidates}) == 1:
        return candidates[0]  # what opens it says what it needs
    found = "; ".join(f"{run.path} was trained on {', '.join(lacking(run.record))}" for run in candidates[:CANDIDATES])
    more = f" (and {len(candidates) - CANDIDATES:,} older runs)" if len(candidates) > CANDIDATES else ""
    raise UserError(
        f"latest: each finished run was trained on columns that are not there: {found}{more}; name the run's folder"
    )


def finished(path: Path, stage: str | tuple[str, ...] | None = None) -> RunFolder:
    """The run at `path`, which must be done, and of `stage`, or one of these, where that is named.

    Raises:
        UserError: it is missing, unfinished, failed, or of another stage.
    """
    run = RunFolder.open(path)
    status = run.record["status"]
    if status != "done":
        reason = f" ({run.record.get('error')})" if run.record.get("error") else ""
        raise UserError(f"{path} is not finished: its status is {status}{reason}; use a run that is done")
    stages = (stage,) if isinstance(stage, str) else stage
    if stages is not None and run.record["stage"] not in stages:
        raise UserError(f"{path} is a {run.record['stage']} run; a {' or '.join(stages)} run is needed here")
    return run


def find(
    word: str,
    output_dir: Path,
    stage: str | tuple[str, ...],
    experiment: str,
    lacking: Lacking = lambda record: [],
) -> RunFolder:
    """The finished run of this stage, or one of these, and experiment that `run=` means: `latest`, or a path."""
    if word == "latest":
        return latest(output_dir, stage, experiment, lacking)
    run = finished(Path(word), stage)
    theirs = run.record.get("experiment")
    if theirs != experiment:
        raise UserError(f"{word} is a run of experiment={theirs}, not of {experiment}: add experiment={theirs}")
    return run


def home_of(parent: dict[str, Any] | None) -> RunFolder | None:
    """The run that made the weights of a parent record; None where they are of no run, or it is no longer there."""
    if parent is None or parent["id"] is None:
        return None
    homes = (path for path in Path(parent.get("path", "")).parents if (path / "run.json").is_file())
    try:
        run = RunFolder.open(next(homes))
    except StopIteration:
        return None
    except UserError as error:
        warn_of(str(error))
        return None
    return run if run.record["id"] == parent["id"] else None


def ancestry(parent: dict[str, Any] | None) -> list[str]:
    """What a model with this parent record comes from, the oldest first, as far back as run folders tell."""
    home = home_of(parent)
    runs = [] if home is None else list(ancestors(home))
    names = [f"{run.record['stage']} {run.record['id']}" for run in reversed(runs)]
    first = runs[-1].record.get("parent") if runs else parent
    return names if first is None or home_of(first) else [first["id"] or first["path"], *names]


def ancestors(run: RunFolder) -> Iterator[RunFolder]:
    """Yield a run and those that its weights come from, the newest first, each once."""
    seen: set[Path] = set()
    found: RunFolder | None = run
    while found is not None and found.path.resolve() not in seen:
        seen.add(found.path.resolve())
        yield found
        found = home_of(found.record.get("parent"))
