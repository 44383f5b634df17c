"""The Optuna study in a search's folder: opened by whichever process needs it, never left locked or half written."""

from __future__ import annotations

import itertools
import math
import os
import statistics
from pathlib import Path
from typing import Any

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.run.identity import derive_seed
from warmstart.run.manifest import Manifest
from warmstart.sweep.space import options

STUDY, NAME = "study.log", "sweep"
SAMPLERS = {"tpe": "TPESampler", "random": "RandomSampler", "cmaes": "CmaEsSampler", "grid": None}
RIVALS = 5  # complete trials that must be known before one is given up for its seeds, as for Optuna's median pruner
PRUNERS = {"none": "NopPruner", "asha": "SuccessiveHalvingPruner", "median": "MedianPruner"}


# This process's journal and storage of the study that it used last, by the study's file.
_opened: dict[Path, tuple[Any, Any]] = {}
os.register_at_fork(after_in_child=_opened.clear)  # a storage stands for one process


def trial_name(slot: int) -> str:
    """How the run folders of a trial's seeds begin."""
    return f"trial{slot:03d}"


def open_study(manifest: Manifest, optuna: Any, slot: int | None = None) -> Any:
    """The study, with a sampler whose draws for a trial depend on the seed, the trial and what is known by then.

    Raises:
        UserError: its file is damaged.
        WriteError: it is new, and the disk is full, read-only or broken.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = manifest.search
    sampler = None
    if slot is not None and settings["sampler"] != "grid":
        make = getattr(optuna.samplers, SAMPLERS[settings["sampler"]])
        sampler = make(seed=derive_seed(settings["seed"], f"trial{slot}"))
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
        _opened.clear()  # it has left out the operation that it could not apply
        path = manifest.folder / STUDY
        raise UserError(f"{path} is damaged; remove it to search anew: runs that are done are kept") from error


def open_storage(manifest: Manifest) -> Any:
    """The study's file as Optuna's storage, kept open: what this process has read of it is not read again."""
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
    """The file of the study, as Optuna's storage takes it."""
    from warmstart.sweep.journal import Journal  # imports Optuna

    return Journal(manifest.folder / STUDY, manifest.shared_lock("journal"))


def study_digest(manifest: Manifest) -> str:
    """The SHA-256 of all that the study's file holds."""
    journal = open_journal(manifest)
    journal.read_logs(0)
    return journal.digest


def check_study(manifest: Manifest) -> None:
    """Refuse a study whose file is damaged, or lacks what it held when the sweep ended; warn where it is gone.

    Raises:
        UserError: names the file.
    """
    path, recorded = manifest.folder / STUDY, manifest.checksums.get(STUDY)
    if not path.exists():
        if recorded is not None or any(manifest.names()):
            screen.say(f"warning: {path} is missing: what to try is chosen anew", style="yellow")
        return
    journal = open_journal(manifest)
    journal.read_logs(0)
    if recorded is not None and recorded not in journal.digests:
        raise UserError(
            f"{path} is damaged: it lacks operations that it held; "
            "remove the file to search anew: runs that are done are kept"
        )


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
