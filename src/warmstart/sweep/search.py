"""A search by Optuna: each trial asks the study in the sweep's folder what to try, and reports how it goes.

Whichever process runs a trial does the asking, so any number of processes, on any machine, work on one study.
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
from warmstart.sweep.job import PATIENCE, Outcome, failed, run_job, without_plan, write_error
from warmstart.sweep.plan import Composer, compose
from warmstart.sweep.runner import Runner
from warmstart.sweep.schedule import Work
from warmstart.sweep.space import distribution, options
from warmstart.sweep.study import (
    PRUNERS,
    SAMPLERS,
    ask,
    check_choice,
    check_study,
    loses,
    note_scores,
    open_study,
    space,
    tell,
    trial_name,
)


def plan(composer: Composer, config: DictConfig, words: Sequence[str]) -> tuple[dict[str, Any], list[Job]]:
    """What a command line lets a search choose, and jobs that show each choice once, to try them.

    Raises:
        UserError: a setting of the search is not one, or nothing is left to choose.
    """
    from optuna.distributions import distribution_to_json

    own = config.sweep
    for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if own[key] not in known:
            raise UserError(f"sweep.{key}={own[key]}: must be {', '.join(known)}")
    overrides = composer.parse(words)
    fixed = [f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in overrides if not o.is_sweep_override()]
    space = {o.get_key_element(): distribution(o) for o in overrides if o.is_sweep_override()}
    if not space:
        raise UserError("a search needs something to choose, such as 'optimizer.lr=interval(1e-4,1e-1)' loss=mse,huber")
    if "seed" in space:
        raise UserError("seed is not searched: sweep.seeds=N runs each trial with N seeds")
    jobs = examples(composer, fixed, space)
    key, _ = LATEST.get(jobs[0].config["stage"], ("", ""))
    if key and key not in space:
        fixed.append(f"{key}='{jobs[0].config[key]}'")  # what `latest` is now
    settings = {
        "trials": own.trials,
        "seeds": own.seeds,
        "sampler": own.sampler,
        "pruner": own.pruner,
        "seed": config.seed,
        "fixed": fixed,
        "space": {key: distribution_to_json(value) for key, value in space.items()},
    }
    if own.sampler == "grid":
        settings["trials"] = min(own.trials, math.prod(len(options(key, value)) for key, value in space.items()))
    return settings, jobs


def examples(composer: Composer, fixed: Sequence[str], space: dict[str, Any]) -> list[Job]:
    """A job for each end of each choice, the others at their first: what a search could come to run."""
    ends = {key: list(getattr(d, "choices", None) or (d.low, d.high)) for key, d in space.items()}
    first = {key: values[0] for key, values in ends.items()}
    chosen = [first, *({**first, key: value} for key, values in ends.items() for value in values[1:])]
    return [trial_job(composer, fixed, values, None, f"{values}") for values in chosen]


def check(manifest: Manifest) -> None:
    """Refuse a search whose study or copy of `conf/` is damaged, or names code of a package that is not trusted."""
    import optuna

    copies = [name for name in manifest.checksums if name.startswith(f"{CONF}/")]
    if not copies or not (manifest.folder / CONF / "train.yaml").is_file():
        raise UserError(f"{manifest.folder / CONF} is missing, so the search cannot go on; start a new one")
    for name in copies:
        check_file(manifest.folder / name, manifest.checksums[name])
    check_study(manifest)
    composer = Composer([checked_conf(manifest.folder / CONF)])
    for job in examples(composer, manifest.search["fixed"], space(manifest, optuna)):
        check_job(job.config, manifest.folder / CONF, manifest.trust)


def checked_conf(folder: Path) -> Path:
    """Return the real path of a copy of `conf/` once none of its files is larger or deeper than anybody writes.

    Raises:
        UserError: names the file.
    """
    for path in sorted(folder.rglob("*.y*ml")):
        try:
            check_yaml(read(path, MOST_YAML))
        except (OSError, ValueError, YAMLError) as error:
            raise UserError(f"{path} is damaged: {error}") from error
    return folder.resolve()


def trial_job(composer: Composer, fixed: Sequence[str], values: dict[str, Any], seed: int | None, name: str) -> Job:
    """The job of one trial and seed."""
    words = [*fixed, *(f"{key}={'null' if value is None else value}" for key, value in values.items())]
    if seed is not None:
        words.append(f"seed={seed}")
        values = {**values, "seed": seed}
    return Job(name, {key.lstrip("+"): value for key, value in values.items()}, compose(composer, words, values))


def trials_left(manifest: Manifest) -> dict[str, int]:
    """The trials that have not ended: places in the sweep by name."""
    import optuna

    ended = {
        trial.user_attrs["slot"]
        for trial in open_study(manifest, optuna).get_trials(deepcopy=False)
        if trial.state.is_finished() and "slot" in trial.user_attrs
    }
    return {trial_name(slot): slot for slot in range(manifest.search["trials"]) if slot not in ended}


def trial_work(manifest: Manifest, slot: int, runner: Runner) -> Work:
    """A trial as a task."""
    lean = without_plan(manifest)
    died = functools.partial(note_trial_death, lean, slot)
    return Work([], functools.partial(run_trial, lean, slot, runner), trial_name(slot), died)


def run_trial(manifest: Manifest, slot: int, runner: Runner) -> Outcome:
    """Run a trial's seeds one after another.

    The first seed is watched while it trains; each further one starts only if the trial's mean over the seeds so far is
    not worse than the median of what other trials had over as many.
    """
    lock = manifest.shared_lock(trial_name(slot))
    try:
        if not lock.acquire(PATIENCE):
            return Outcome(trial_name(slot), "running")
        lock.beat()
        trial = ask(manifest, slot)
        check_choice(manifest, trial.params)
        composer = Composer([checked_conf(manifest.folder / CONF)])
        settings = manifest.search
        scores: list[float] = []
        for seed in range(settings["seed"], settings["seed"] + settings["seeds"]):
            name = f"{trial_name(slot)}-seed{seed}"
            job = trial_job(composer, settings["fixed"], trial.params, seed, name)
            check_job(job.config, manifest.folder / CONF, manifest.trust)
            watchers = [] if scores else [runner.pruning(trial, manifest.metric)]
            outcome = run_job(manifest, job, runner.run, watchers)
            if outcome.state != "done":
                break
            scores.append(outcome.score)
            note_scores(manifest, trial.number, scores)
            if len(scores) < settings["seeds"] and settings["pruner"] != "none" and loses(manifest, scores):
                outcome = outcome._replace(state="pruned")
                break
        mean = statistics.mean(scores) if scores else None
        if outcome.state == "failed" and write_error(outcome.error) is not None:
            return Outcome(trial_name(slot), "failed", outcome.error)  # which says nothing of the trial: left to do
        if outcome.state != "running":
            tell(manifest, trial.number, outcome.state, mean)
        return Outcome(trial_name(slot), outcome.state, outcome.error, mean)
    except WriteError as error:
        return failed(trial_name(slot), error)
    except UserError as error:
        return give_up(manifest, slot, str(error))
    finally:
        lock.release()


def note_trial_death(manifest: Manifest, slot: int, reason: str) -> Outcome:
    """Record that the process of a trial died: the seed it was at has failed, and so has the trial."""
    try:
        for path in sorted(manifest.folder.glob(f"runs/{trial_name(slot)}-seed*")):
            if manifest.state(path.name) == "interrupted":
                RunFolder.open(path).update(status="failed", error=reason)
    except (UserError, WriteError) as error:
        reason = f"{reason}; {error}"
    return give_up(manifest, slot, reason)


def give_up(manifest: Manifest, slot: int, reason: str) -> Outcome:
    """Tell the study, as far as it can be written, that a trial failed; one that it is not told of is left to do."""
    with contextlib.suppress(UserError, WriteError):
        tell(manifest, ask(manifest, slot).number, "failed", None)
    return Outcome(trial_name(slot), "failed", reason)
