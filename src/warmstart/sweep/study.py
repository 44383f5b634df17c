"""Converts Hydra's sweep syntax to Optuna distributions."""

from __future__ import annotations

import itertools
import math
import os
import statistics
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.run.identity import derive_seed
from warmstart.run.manifest import Manifest
from warmstart.sweep.plan import json_value

DECADES = 2  # intervals over at least this many powers of ten are sampled on a logarithmic scale


def distribution(override: Override) -> Any:
    """Return the Optuna distribution of an override: choices, a range, or an interval.

    An interval over two or more powers of ten is sampled on a logarithmic scale, unless it is tagged `linear`; one
    tagged `log` always is. `int(interval(8,64))` yields integers.

    Raises:
        UserError: the override has no values.
    """
    try:
        return _distribution(override)
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}") from error


def _distribution(override: Override) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if isinstance(value, Glob) or not isinstance(value, (IntervalSweep, RangeSweep)):
        return CategoricalDistribution([json_value(choice) for choice in override.sweep_iterator()])
    if isinstance(value, RangeSweep):
        low, step = value.start, value.step
        high = low + step * (math.ceil((value.stop - low) / step) - 1)
        is_integer = all(isinstance(number, int) for number in (low, step))
        return (IntDistribution if is_integer else FloatDistribution)(low, high, step=step)
    low, high = value.start, value.end
    wide = low > 0 and high / low >= 10**DECADES
    log = "log" in value.tags or (wide and "linear" not in value.tags)
    is_integer = isinstance(low, int) and isinstance(high, int)
    return (IntDistribution if is_integer else FloatDistribution)(low, high, log=log)


def grid_values(key: str, distribution: Any) -> list[Any]:
    """Return all values of a distribution, for a grid search.

    Raises:
        UserError: the distribution is continuous.
    """
    if hasattr(distribution, "choices"):
        return list(distribution.choices)
    if distribution.step is None or distribution.log:
        raise UserError(f"{key}: a grid needs a list or a range, not an interval; or set another sweep.sampler")
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + index * distribution.step for index in range(count)]


STUDY, NAME = "study.log", "sweep"
SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "cmaes": "CmaEsSampler", "grid": None}
MIN_TRIALS = 5  # complete trials before a trial can be stopped between seeds, as in Optuna's median pruner
PRUNERS = {"none": "NopPruner", "asha": "SuccessiveHalvingPruner", "median": "MedianPruner"}


# The last used journal and storage of this process, by the path of the study.
_opened: dict[Path, tuple[Any, Any]] = {}
os.register_at_fork(after_in_child=_opened.clear)  # a storage belongs to one process


def trial_name(slot: int) -> str:
    """Return the name of a trial, the prefix of its run folders."""
    return f"trial{slot:03d}"


def open_study(manifest: Manifest, slot: int | None = None) -> Any:
    """Open or create the study; samples depend on the seed, the slot and the trials that have ended.

    Raises:
        UserError: its file is damaged.
        WriteError: the disk is full, read-only or broken.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = manifest.search
    sampler = None
    if slot is not None and settings["sampler"] != "grid":
        sampler_class = getattr(optuna.samplers, SAMPLERS[settings["sampler"]])
        sampler = sampler_class(seed=derive_seed(settings["seed"], f"trial{slot}"))
    try:
        storage = open_storage(manifest)
        pruner = getattr(optuna.pruners, PRUNERS[settings["pruner"]])()
        if storage.get_all_studies():
            return optuna.load_study(study_name=NAME, storage=storage, sampler=sampler, pruner=pruner)
        direction = "maximize" if manifest.mode == "max" else "minimize"
        return optuna.create_study(
            study_name=NAME, storage=storage, sampler=sampler, pruner=pruner, direction=direction, load_if_exists=True
        )
    except (ValueError, KeyError, TypeError) as error:
        _opened.clear()  # the storage has skipped an operation
        path = manifest.folder / STUDY
        raise UserError(f"{path} is damaged; remove it to restart the search: finished runs are kept") from error


def open_storage(manifest: Manifest) -> Any:
    """Return the Optuna storage of the study, cached per process so that operations are read once."""
    from optuna.storages.journal import JournalStorage

    path = (manifest.folder / STUDY).absolute()
    journal, storage = _opened.get(path, (None, None))
    if journal is None or not journal.is_continued():
        _opened.clear()
        journal = open_journal(manifest)
        storage = JournalStorage(journal)
        _opened[path] = journal, storage
    return storage


def open_journal(manifest: Manifest) -> Any:
    """Open the file of the study as a backend of Optuna's JournalStorage."""
    from warmstart.sweep.journal import Journal  # imports Optuna

    return Journal(manifest.folder / STUDY, manifest.shared_lock("journal"))


def study_digest(manifest: Manifest) -> str:
    """Return the SHA-256 of all operations in the file of the study."""
    journal = open_journal(manifest)
    journal.read_logs(0)
    return journal.digest


def check_study(manifest: Manifest) -> None:
    """Check the file of the study against the checksum recorded at the end of the sweep; warn if it is missing.

    Raises:
        UserError: the file is damaged, or operations are missing.
    """
    path, recorded = manifest.folder / STUDY, manifest.checksums.get(STUDY)
    if not path.exists():
        if recorded is not None or any(manifest.names()):
            screen.say(f"warning: {path} is missing: the search restarts with an empty study", style="yellow")
        return
    journal = open_journal(manifest)
    journal.read_logs(0)
    if recorded is not None and recorded not in journal.digests:
        raise UserError(
            f"{path} is damaged: recorded operations are missing; "
            "remove the file to restart the search: finished runs are kept"
        )


def space(manifest: Manifest) -> dict[str, Any]:
    """Return the search space: distributions by config key."""
    from optuna.distributions import json_to_distribution

    return {key: json_to_distribution(text) for key, text in manifest.search["space"].items()}


def ask(manifest: Manifest, slot: int) -> Any:
    """Return the trial of a slot: the one that was started there, or a new one.

    A running trial without a slot failed: its process died before it could store the slot.
    """
    import optuna

    lock = manifest.shared_lock("ask")
    lock.acquire(math.inf)
    try:
        study = open_study(manifest, slot)
        for trial in study.get_trials(deepcopy=False):
            if trial.user_attrs.get("slot") == slot:
                return optuna.trial.Trial(study, trial._trial_id)
            if trial.state == optuna.trial.TrialState.RUNNING and "slot" not in trial.user_attrs:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if manifest.search["sampler"] == "grid":
            study.add_trial(grid_trial(manifest, slot))
            return optuna.trial.Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)
        trial = study.ask(space(manifest))
        trial.set_user_attr("slot", slot)
        return trial
    finally:
        lock.release()


def grid_trial(manifest: Manifest, slot: int) -> Any:
    """Return the running trial with the slot's combination of the grid."""
    from optuna.trial import TrialState, create_trial

    distributions = space(manifest)
    values = itertools.product(*(grid_values(key, value) for key, value in distributions.items()))
    params = dict(zip(distributions, next(itertools.islice(values, slot, None))))
    attributes = {"slot": slot}
    return create_trial(state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=attributes)


def tell(manifest: Manifest, number: int, state: str, value: float | None) -> None:
    """Record the final state and value of a trial."""
    import optuna

    study = open_study(manifest)
    state_name = {"done": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}[state]
    trial_state = optuna.trial.TrialState[state_name]
    study.tell(number, value if state == "done" else None, state=trial_state, skip_if_finished=True)


def check_choice(manifest: Manifest, params: dict[str, Any]) -> None:
    """Check that the values of a trial are in the search space of the plan.

    Raises:
        UserError: the study was changed.
    """
    distributions = space(manifest)
    for key, value in params.items():
        if key not in distributions or not distributions[key]._contains(distributions[key].to_internal_repr(value)):
            raise UserError(
                f"{manifest.folder / STUDY}: {key}={value} is outside the planned search space; the study was changed"
            )


def note_scores(manifest: Manifest, number: int, scores: list[float]) -> None:
    """Store the scores of a trial's finished seeds, unless the trial has ended."""
    import optuna

    study = open_study(manifest)
    trial = study.get_trials(deepcopy=False)[number]
    if not trial.state.is_finished():
        optuna.trial.Trial(study, trial._trial_id).set_user_attr("scores", scores)


def is_below_median(manifest: Manifest, scores: list[float]) -> bool:
    """Return whether a trial's mean is worse than the median of complete trials over the same number of seeds."""
    import optuna

    trials = open_study(manifest).get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    finished = [trial.user_attrs.get("scores", []) for trial in trials]
    others = [statistics.mean(values[: len(scores)]) for values in finished if len(values) >= len(scores)]
    if len(others) < MIN_TRIALS:
        return False
    sign = 1 if manifest.mode == "max" else -1
    return sign * statistics.mean(scores) < sign * statistics.median(others)


def failed(manifest: Manifest) -> list[str]:
    """Return the names of the failed trials, with or without a run."""
    import optuna

    trials = open_study(manifest).get_trials(deepcopy=False, states=[optuna.trial.TrialState.FAIL])
    return [trial_name(trial.user_attrs["slot"]) for trial in trials if "slot" in trial.user_attrs]
