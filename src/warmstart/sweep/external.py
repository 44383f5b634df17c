"""Runs sweeps with third-party launchers: one command per job."""

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
from warmstart.sweep.job import Runner, run_job
from warmstart.sweep.schedule import Rules, count_starts


def run(path: Path, trust: tuple[str, ...], runner: Runner) -> str:
    """Run the job or trial with the run folder `path`, and return its final state.

    Raises:
        UserError: the sweep is missing or damaged, or has no such job.
    """
    logging.getLogger().addHandler(logging.NullHandler())  # as in `main`: records go to the log of a run
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
            raise stop from None  # from submitit, at the time limit or preempted: it has requeued the job
        raise
    raise UserError(f"sweep.job={path}: the sweep has no such job")


def launch_externally(manifest: Manifest, context: dict[str, Any], rules: Rules) -> None:
    """Run the unfinished jobs with a third-party launcher (joblib, submitit, Ray), one command per job.

    The launcher returns when all its jobs have ended. Jobs that need others and retries are launched after that.
    """
    folder = manifest.folder.absolute()
    config = changed(context["config"], {"hydra.sweep.dir": str(folder)})  # launchers write files there
    launcher = Plugins.instance().instantiate_launcher(**{**context, "config": config})
    launcher_name = config.hydra.runtime.choices["hydra/launcher"]
    common = [f"hydra.sweep.dir={quoted(folder)}", f"trust=[{','.join(manifest.trust)}]"]
    status = screen.command("python", "train.py", "stage=report", f"runs={quoted(folder)}")
    if rules.on_failure == "stop":
        screen.say(f"on_failure=stop has no effect on jobs that {launcher_name} has already received")
    started: dict[str, int] = {}
    while names := jobs_to_start(manifest, rules, started):
        started |= {name: count_starts(manifest, name, started) + 1 for name in names}
        screen.say(f"{len(names)} jobs launched with {launcher_name}; show their progress with: {status}")
        try:
            launcher.launch([[f"sweep.job={quoted(folder / RUNS / name)}", *common] for name in names], 0)
        except Exception as error:  # each launcher has its own type for a worker that died
            screen.error(f"{launcher_name}: {type(error).__name__}: {explain(error)}")


def jobs_to_start(manifest: Manifest, rules: Rules, started: Mapping[str, int]) -> list[str]:
    """Return the jobs or trials that are ready to start and have not used up their retries."""
    states = {name: manifest.state(name) for name in manifest.names()}
    done = {name for name, state in states.items() if state == "done"}
    exhausted = {name for name in started if count_starts(manifest, name, started) > rules.retries}
    if manifest.search is not None:
        ready = list(search.trials_left(manifest))
    else:
        ready = [job.name for job in launch.jobs_left(manifest, states, rules) if job.needs in (None, *done)]
    return [name for name in ready if name not in exhausted]
