"""The Optuna study in a search's folder: opened by whichever process needs it, never left locked or half written."""

from __future__ import annotations

import importlib
import itertools
import math
import os
import statistics
from pathlib import Path
from typing import Any

from warmstart.contracts import UserError
from warmstart.run.identity import derive_seed
from warmstart.run.lock import Lock
from warmstart.run.manifest import Manifest
from warmstart.sweep.space import options

STUDY = "study.log"
SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "cmaes": "CmaEsSampler", "grid": None}
RIVALS = 5  # complete trials that must be known before one is given up for its seeds, as for Optuna's median pruner
PRUNERS = {"none": "NopPruner", "asha": "SuccessiveHalvingPruner", "median": "MedianPruner"}


def trial_name(slot: int) -> str:
    """How the run folders of a trial's seeds begin."""
    return f"trial{slot:03d}"


class StudyLock:
    """Optuna's kind of lock, by one that the system frees when its holder is killed."""

    def __init__(self, lock: Lock):
        self.lock = lock

    def acquire(self) -> bool:
        """Wait for it."""
        return self.lock.acquire(math.inf)

    def release(self) -> None:
        """Give it back."""
        self.lock.release()


def open_study(manifest: Manifest, optuna: Any, slot: int | None = None) -> Any:
    """The study, with a sampler whose draws for a trial depend on the seed, the trial and what is known by then."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = manifest.search
    mend(manifest.folder / STUDY, manifest.shared_lock("journal"))
    backend = importlib.import_module("optuna.storages.journal")
    journal = backend.JournalFileBackend(str(manifest.folder / STUDY), StudyLock(manifest.shared_lock("journal")))
    sampler = None
    if slot is not None and settings["sampler"] != "grid":
        make = getattr(optuna.samplers, SAMPLERS[settings["sampler"]])
        sampler = make(seed=derive_seed(settings["seed"], f"trial{slot}"))
    try:
        return optuna.create_study(
            study_name="sweep",
            storage=backend.JournalStorage(journal),
            sampler=sampler,
            pruner=getattr(optuna.pruners, PRUNERS[settings["pruner"]])(),
            direction="maximize" if manifest.mode == "max" else "minimize",
            load_if_exists=True,
        )
    except (ValueError, KeyError, TypeError) as error:
        path = manifest.folder / STUDY
        raise UserError(f"{path} is damaged; remove it to search anew: runs that are done are kept") from error


def space(manifest: Manifest, optuna: Any) -> dict[str, Any]:
    """What is searched, by config key."""
    read = optuna.distributions.json_to_distribution
    return {key: read(text) for key, text in manifest.search["space"].items()}


def ask(manifest: Manifest, slot: int) -> Any:
    """The trial at this place of the sweep: the one that was begun and not ended, or a new one.

    A trial that was asked for by a process that died before it could take it is given up.
    """
    import optuna

    lock = manifest.shared_lock("ask")
    lock.acquire(math.inf)
    try:
        study = open_study(manifest, optuna, slot)
        for trial in study.get_trials(deepcopy=False):
            if trial.user_attrs.get("slot") == slot:
                return optuna.trial.Trial(study, trial._trial_id)
            if trial.state == optuna.trial.TrialState.RUNNING and "slot" not in trial.user_attrs:
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
        if manifest.search["sampler"] == "grid":
            study.add_trial(grid_trial(manifest, optuna, slot))
            return optuna.trial.Trial(study, study.get_trials(deepcopy=False)[-1]._trial_id)
        trial = study.ask(space(manifest, optuna))
        trial.set_user_attr("slot", slot)
        return trial
    finally:
        lock.release()


def grid_trial(manifest: Manifest, optuna: Any, slot: int) -> Any:
    """The combination at this place of the grid, as a running trial."""
    distributions = space(manifest, optuna)
    values = itertools.product(*(options(key, value) for key, value in distributions.items()))
    params = dict(zip(distributions, next(itertools.islice(values, slot, None))))
    state = optuna.trial.TrialState.RUNNING
    return optuna.trial.create_trial(state=state, params=params, distributions=distributions, user_attrs={"slot": slot})


def tell(manifest: Manifest, number: int, state: str, value: float | None) -> None:
    """End a trial."""
    import optuna

    study = open_study(manifest, optuna)
    outcome = {"done": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}[state]
    trial_state = optuna.trial.TrialState[outcome]
    study.tell(number, value if state == "done" else None, state=trial_state, skip_if_finished=True)


def check_choice(manifest: Manifest, params: dict[str, Any]) -> None:
    """Refuse a trial that chose what the plan does not offer: its study was changed."""
    import optuna

    offered = space(manifest, optuna)
    for key, value in params.items():
        if key not in offered or not offered[key]._contains(offered[key].to_internal_repr(value)):
            raise UserError(f"{manifest.folder / STUDY}: {key}={value} is not what the plan offers; it was changed")


def note_scores(manifest: Manifest, number: int, scores: list[float]) -> None:
    """Write down what a trial's seeds scored so far, if it has not ended."""
    import optuna

    study = open_study(manifest, optuna)
    trial = study.get_trials(deepcopy=False)[number]
    if not trial.state.is_finished():
        optuna.trial.Trial(study, trial._trial_id).set_user_attr("scores", scores)


def loses(manifest: Manifest, scores: list[float]) -> bool:
    """Whether a trial's mean is worse than the median of the trials that ended with at least as many seeds."""
    import optuna

    trials = open_study(manifest, optuna).get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])
    known = [trial.user_attrs.get("scores", []) for trial in trials]
    others = [statistics.mean(own[: len(scores)]) for own in known if len(own) >= len(scores)]
    if len(others) < RIVALS:
        return False
    sign = 1 if manifest.mode == "max" else -1
    return sign * statistics.mean(scores) < sign * statistics.median(others)


def failed(manifest: Manifest) -> list[str]:
    """The trials that failed, with or without a run."""
    import optuna

    trials = open_study(manifest, optuna).get_trials(deepcopy=False, states=[optuna.trial.TrialState.FAIL])
    return [trial_name(trial.user_attrs["slot"]) for trial in trials if "slot" in trial.user_attrs]


def mend(path: Path, lock: Lock) -> None:
    """Drop a last line that a full disk or a power cut left unfinished; writers hold the lock."""
    lock.acquire(math.inf)
    try:
        if path.exists() and path.stat().st_size:
            with open(path, "r+b") as stream:
                stream.seek(-1, os.SEEK_END)
                if stream.read() != b"\n":
                    stream.truncate(path.read_bytes().rfind(b"\n") + 1)
    finally:
        lock.release()
