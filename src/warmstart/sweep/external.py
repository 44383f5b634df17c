"""Sweeps by third-party launchers: each job is a command of its own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins

from warmstart.config.rewrite import changed
from warmstart.config.validate import explain
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.screen import quoted
from warmstart.run import cores
from warmstart.run.manifest import RUNS, Manifest
from warmstart.sweep import launch, search
from warmstart.sweep.job import run_job
from warmstart.sweep.runner import Runner
from warmstart.sweep.schedule import Rules, starts_of


def run(path: Path, trust: tuple[str, ...], runner: Runner) -> str:
    """Run the job, or the trial of a search, whose run folder this is; return the state that came of it.

    Raises:
        UserError: the sweep is missing or damaged, or has no such job.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # as `main` does: records go to a run's log
    manifest = Manifest.read(path.parent.parent)
    manifest.trust = trust
    manifest.check()
    if manifest.search is not None:
        search.check(manifest)
    cores.apply(cores.automatic())
    try:
        if manifest.search is not None:
            slots = [slot for slot in range(manifest.search["trials"]) if search.trial_name(slot) == path.name]
            if slots:
                return search.run_trial(manifest, slots[0], runner).state
        elif path.name in manifest.by_name:
            return run_job(manifest, manifest.by_name[path.name], runner.run).state
    except KeyboardInterrupt as interrupt:
        stop: BaseException | None = interrupt
        while stop is not None and not isinstance(stop, SystemExit):
            stop = stop.__cause__
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise stop from None  # not Ctrl-C but submitit, out of time or preempted, which has queued the job again
        raise
    raise UserError(f"sweep.job={path}: the sweep has no such job")


def launch_externally(manifest: Manifest, context: dict[str, Any], rules: Rules) -> None:
    """Have a third-party launcher (joblib, submitit, Ray) run what is left, one command per job.

    It tells nothing before all it was given has ended: what needs other jobs, or is to be tried again, waits for then.
    """
    folder = manifest.folder.absolute()
    config = changed(context["config"], {"hydra.sweep.dir": str(folder)})  # launchers keep files of their own in it
    launcher = Plugins.instance().instantiate_launcher(**{**context, "config": config})
    maker = config.hydra.runtime.choices["hydra/launcher"]
    common = [f"hydra.sweep.dir={quoted(folder)}", f"trust=[{','.join(manifest.trust)}]"]
    status = screen.command("python", "train.py", "stage=report", f"runs={quoted(folder)}")
    if rules.on_failure == "stop":
        screen.say(f"on_failure=stop comes too late for what {maker} has been given already")
    started: dict[str, int] = {}
    while names := due(manifest, rules, started):
        started |= {name: starts_of(manifest, name, started) + 1 for name in names}
        screen.say(f"{len(names)} handed to {maker}; to see how far it is: {status}")
        try:
            launcher.launch([[f"sweep.job={quoted(folder / RUNS / name)}", *common] for name in names], 0)
        except Exception as error:  # each has its own for a worker that died
            screen.error(f"{maker}: {type(error).__name__}: {explain(error)}")


def due(manifest: Manifest, rules: Rules, started: Mapping[str, int]) -> list[str]:
    """Jobs, or trials of a search, that can start now and have not been started as often as the rules allow."""
    states = {name: manifest.state(name) for name in manifest.names()}
    done = {name for name, state in states.items() if state == "done"}
    over = {name for name in started if starts_of(manifest, name, started) > rules.retries}
    if manifest.search is not None:
        ready = list(search.trials_left(manifest))
    else:
        ready = [job.name for job in launch.jobs_left(manifest, states, rules) if job.needs in (None, *done)]
    return [name for name in ready if name not in over]
