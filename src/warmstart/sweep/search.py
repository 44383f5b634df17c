"""Hyperparameter search with Optuna: each trial gets its values from the study in the sweep's folder.

The process of a trial reads and writes the study, so any number of processes on any machine can share it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from yaml import YAMLError

from warmstart.config.resolve import LATEST
from warmstart.core.errors import UserError, WriteError
from warmstart.core.reading import MOST_YAML, check_yaml, read
from warmstart.run.checksums import check_file
from warmstart.run.folder import RunFolder
from warmstart.run.manifest import CONF, Job, Manifest, check_job
from warmstart.sweep.job import LOCK_TIMEOUT, Outcome, Runner, failed, run_job, without_plan, write_error
from warmstart.sweep.plan import Composer, compose
from warmstart.sweep.schedule import Work
from warmstart.sweep.study import (
    PRUNERS,
    SAMPLERS,
    ask,
    check_choice,
    check_study,
    distribution,
    grid_values,
    is_below_median,
    note_scores,
    open_study,
    space,
    tell,
    trial_name,
)


def plan(composer: Composer, config: DictConfig, overrides: Sequence[str]) -> tuple[dict[str, Any], list[Job]]:
    """Return the settings of a search, and example jobs that cover its search space.

    Raises:
        UserError: a setting of the search is invalid, or the search space is empty.
    """
    from optuna.distributions import distribution_to_json

    sweep = config.sweep
    for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if sweep[key] not in known:
            raise UserError(f"sweep.{key}={sweep[key]}: must be one of {', '.join(known)}")
    parsed = composer.parse(overrides)
    fixed = [f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in parsed if not o.is_sweep_override()]
    space = {o.get_key_element(): distribution(o) for o in parsed if o.is_sweep_override()}
    if not space:
        raise UserError("the search space is empty: add e.g. 'optimizer.lr=interval(1e-4,1e-1)' or loss=mse,huber")
    if "seed" in space:
        raise UserError("seed cannot be searched: use sweep.seeds=N to run each trial with N seeds")
    jobs = examples(composer, fixed, space)
    key, _ = LATEST.get(jobs[0].config["stage"], ("", ""))
    if key and key not in space:
        fixed.append(f"{key}='{jobs[0].config[key]}'")  # the run that `latest` selects now
    settings = {
        "trials": sweep.trials,
        "seeds": sweep.seeds,
        "sampler": sweep.sampler,
        "pruner": sweep.pruner,
        "seed": config.seed,
        "fixed": fixed,
        "space": {key: distribution_to_json(value) for key, value in space.items()},
    }
    if sweep.sampler == "grid":
        settings["trials"] = min(sweep.trials, math.prod(len(grid_values(key, value)) for key, value in space.items()))
    return settings, jobs


def examples(composer: Composer, fixed: Sequence[str], space: dict[str, Any]) -> list[Job]:
    """Return a job for each bound or choice of each key, with the first value of the other keys."""
    bounds = {key: list(getattr(d, "choices", None) or (d.low, d.high)) for key, d in space.items()}
    first = {key: values[0] for key, values in bounds.items()}
    combinations = [first, *({**first, key: value} for key, values in bounds.items() for value in values[1:])]
    return [trial_job(composer, fixed, values, None, f"{values}") for values in combinations]


def check(manifest: Manifest) -> None:
    """Check the study and the copy of `conf/` for damage and for code of packages that are not trusted.

    Raises:
        UserError: a file is missing, damaged or not trusted.
    """
    copies = [name for name in manifest.checksums if name.startswith(f"{CONF}/")]
    if not copies or not (manifest.folder / CONF / "train.yaml").is_file():
        raise UserError(f"{manifest.folder / CONF} is missing, so the search cannot continue; start a new one")
    for name in copies:
        check_file(manifest.folder / name, manifest.checksums[name])
    check_study(manifest)
    composer = Composer([checked_conf(manifest.folder / CONF)])
    for job in examples(composer, manifest.search["fixed"], space(manifest)):
        check_job(job.config, manifest.folder / CONF, manifest.trust)


def checked_conf(folder: Path) -> Path:
    """Check that the YAML files of a copy of `conf/` are of limited size and depth; return its resolved path.

    Raises:
        UserError: a file is damaged.
    """
    for path in sorted(folder.rglob("*.y*ml")):
        try:
            check_yaml(read(path, MOST_YAML))
        except (OSError, ValueError, YAMLError) as error:
            raise UserError(f"{path} is damaged: {error}") from error
    return folder.resolve()


def trial_job(composer: Composer, fixed: Sequence[str], values: dict[str, Any], seed: int | None, name: str) -> Job:
    """Compose the job of one trial and seed."""
    overrides = [*fixed, *(f"{key}={'null' if value is None else value}" for key, value in values.items())]
    if seed is not None:
        overrides.append(f"seed={seed}")
        values = {**values, "seed": seed}
    return Job(name, {key.lstrip("+"): value for key, value in values.items()}, compose(composer, overrides, values))


def trials_left(manifest: Manifest) -> dict[str, int]:
    """Return the slots of the trials that have not ended, by name."""
    ended = {
        trial.user_attrs["slot"]
        for trial in open_study(manifest).get_trials(deepcopy=False)
        if trial.state.is_finished() and "slot" in trial.user_attrs
    }
    return {trial_name(slot): slot for slot in range(manifest.search["trials"]) if slot not in ended}


def trial_work(manifest: Manifest, slot: int, runner: Runner) -> Work:
    """Return the task that runs a trial."""
    sweep = without_plan(manifest)
    died = functools.partial(note_trial_death, sweep, slot)
    return Work([], functools.partial(run_trial, sweep, slot, runner), trial_name(slot), died)


def run_trial(manifest: Manifest, slot: int, runner: Runner) -> Outcome:
    """Run the seeds of a trial sequentially.

    The pruner can stop the first seed while it trains. Another seed starts only if the mean of the trial is not worse
    than the median of the other trials over the same number of seeds.
    """
    lock = manifest.shared_lock(trial_name(slot))
    try:
        if not lock.acquire(LOCK_TIMEOUT):
            return Outcome(trial_name(slot), "running")
        lock.start_heartbeat()
        trial = ask(manifest, slot)
        check_choice(manifest, trial.params)
        composer = Composer([checked_conf(manifest.folder / CONF)])
        settings = manifest.search
        scores: list[float] = []
        for seed in range(settings["seed"], settings["seed"] + settings["seeds"]):
            name = f"{trial_name(slot)}-seed{seed}"
            job = trial_job(composer, settings["fixed"], trial.params, seed, name)
            check_job(job.config, manifest.folder / CONF, manifest.trust)
            callbacks = [] if scores else [runner.pruning(trial, manifest.metric)]
            outcome = run_job(manifest, job, runner.run, callbacks)
            if outcome.state != "done":
                break
            scores.append(outcome.score)
            note_scores(manifest, trial.number, scores)
            if len(scores) < settings["seeds"] and settings["pruner"] != "none" and is_below_median(manifest, scores):
                outcome = outcome._replace(state="pruned")
                break
        mean = statistics.mean(scores) if scores else None
        if outcome.state == "failed" and write_error(outcome.error) is not None:
            return Outcome(trial_name(slot), "failed", outcome.error)  # no failure of the trial, which stays unfinished
        if outcome.state != "running":
            tell(manifest, trial.number, outcome.state, mean)
        return Outcome(trial_name(slot), outcome.state, outcome.error, mean)
    except WriteError as error:
        return failed(trial_name(slot), error)
    except UserError as error:
        return fail_trial(manifest, slot, str(error))
    finally:
        lock.release()


def note_trial_death(manifest: Manifest, slot: int, reason: str) -> Outcome:
    """Record that the process of a trial died: its interrupted seed and the trial have failed."""
    try:
        for path in sorted(manifest.folder.glob(f"runs/{trial_name(slot)}-seed*")):
            if manifest.state(path.name) == "interrupted":
                RunFolder.open(path).update(status="failed", error=reason)
    except (UserError, WriteError) as error:
        reason = f"{reason}; {error}"
    return fail_trial(manifest, slot, reason)


def fail_trial(manifest: Manifest, slot: int, reason: str) -> Outcome:
    """Record in the study that a trial failed; if the study cannot be written, the trial stays unfinished."""
    with contextlib.suppress(UserError, WriteError):
        tell(manifest, ask(manifest, slot).number, "failed", None)
    return Outcome(trial_name(slot), "failed", reason)
