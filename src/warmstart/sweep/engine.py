"""A sweep from its command line to its tables: planned, tried, frozen, run, reported; or taken up again."""

from __future__ import annotations

import functools
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from warmstart import screen
from warmstart.check import explain
from warmstart.contracts import UserError
from warmstart.report import sweep as report
from warmstart.run.identity import git_state
from warmstart.run.manifest import RUNS, Manifest
from warmstart.sweep import launch, search
from warmstart.sweep.plan import Composer, grid
from warmstart.sweep.pool import Crash, Death, once
from warmstart.sweep.preflight import Survey, survey
from warmstart.sweep.schedule import Rules

USER_MISTAKE, SOME_FAILED, INTERRUPTED = 2, 3, 130
KEPT_ON_RESUME = ("sweep.resume", "sweep.retries", "sweep.on_failure", "trust", "output_dir")
OURS = "hydra_plugins.warmstart_door."


def multirun(context: dict[str, Any], params: dict[str, str], arguments: Sequence[str]) -> int:
    """What `-m` does.

    Args:
        context: Hydra's context, task function and the config of the command line as a whole.
        params: values that a sweep's own yaml gives.
        arguments: the words of the command line.

    Returns:
        The exit status: 0 all done, 2 a user's mistake, 3 some jobs failed, 130 interrupted.
    """
    config, manifest = context["config"], None
    try:
        if config.sweep.resume:
            manifest = reopen(Path(config.sweep.resume), arguments, tuple(config.trust))
        else:
            words = [*(f"{key}={value}" for key, value in params.items()), *arguments]
            manifest = plan(config, context["hydra_context"].config_loader, words)
        rules = rules_of(config, manifest)
        if str(config.hydra.launcher._target_).startswith(OURS):
            launch.run(manifest, OmegaConf.to_container(config.hydra.launcher), rules)
        else:
            hand_over(manifest, context, rules)
        return conclude(manifest)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        screen.error(explain(error))
        return USER_MISTAKE
    except KeyboardInterrupt:
        screen.error("interrupted")
        if manifest is not None:
            screen.next_command(f"python train.py -m sweep.resume={manifest.folder}")
        return INTERRUPTED


def plan(config: DictConfig, loader: ConfigLoader, words: Sequence[str]) -> Manifest:
    """Compose, try and freeze every job of a command line.

    Raises:
        UserError: a job cannot be composed, or could not run; nothing is written then.
    """
    started = time.monotonic()
    folders = [Path(source.path) for source in loader.get_sources() if source.scheme() == "file"]
    words = [word for word in words if not word.lstrip("+").startswith("sweep.")]
    composer = Composer(folders)
    searching = "trials" in config.sweep
    if searching:
        settings, jobs = search.plan(composer, config, words)
    else:
        settings, jobs = None, grid(composer, words)
    stages = {job.config["stage"] for job in jobs}
    if stages & {"report", "rerun"}:
        raise UserError(f"stage={'/'.join(sorted(stages))} makes no runs of its own, so there is nothing to sweep")
    found = once(functools.partial(survey, jobs, folders[0], config.sweep.preflight))
    complain(found)
    if searching and found.metric is None:
        raise UserError(f"stage={jobs[0].config['stage']} has no validation metric that a search could go by")
    manifest = Manifest(
        folder=Path(config.hydra.sweep.dir),
        stage=jobs[0].config["stage"],
        experiment=jobs[0].config["experiment"],
        words=list(words),
        metric=found.metric,
        mode=found.mode,
        git=git_state(),
        jobs=[] if searching else jobs,
        search=settings,
    )
    manifest.write(folders if searching else [])
    size = f"{settings['trials']} trials of {settings['seeds']} seeds" if settings else f"{len(jobs)} jobs"
    steps = f", a step of each of {found.kinds} kinds tried" if config.sweep.preflight and found.kinds else ""
    screen.say(f"{size} planned{steps}, in {time.monotonic() - started:.1f} s: {manifest.folder}")
    return manifest


def complain(found: Survey | Crash | Death) -> None:
    """Raise UserError where the survey found a job that cannot run."""
    if isinstance(found, (Crash, Death)):
        raise UserError(f"trying the jobs failed: {found.reason}; nothing was started")
    if found.trace is not None:
        sys.stderr.write(found.trace)
    if found.problem is not None:
        raise UserError(f"{found.problem}; nothing was started")


def reopen(folder: Path, arguments: Sequence[str], trust: tuple[str, ...]) -> Manifest:
    """The plan of a sweep that is to go on.

    Raises:
        UserError: the folder is no sweep, its plan was changed, or the command line asks for another one.
    """
    manifest = Manifest.read(folder)
    asked = [word for word in arguments if word.lstrip("+~").partition("=")[0] not in KEPT_ON_RESUME]
    if asked and asked != manifest.words:
        raise UserError(
            f"sweep.resume={folder} goes on with its own plan ({' '.join(manifest.words)}): leave out {' '.join(asked)}"
        )
    manifest.check(trust)
    now = git_state()["commit"]
    if now != manifest.git["commit"]:
        screen.say(f"the code has changed since the plan was made: commit {manifest.git['commit']}, now {now}")
    return manifest


def rules_of(config: DictConfig, manifest: Manifest) -> Rules:
    """What the command line says about failures."""
    sweep = config.sweep
    if sweep.on_failure not in ("continue", "stop"):
        raise UserError(f"sweep.on_failure={sweep.on_failure}: must be continue or stop")
    if not isinstance(sweep.retries, int) or sweep.retries < 0:
        raise UserError(f"sweep.retries={sweep.retries}: must be a whole number, 0 or more")
    return Rules(sweep.on_failure, sweep.retries, functools.partial(report.write_report, manifest.folder))


def hand_over(manifest: Manifest, context: dict[str, Any], rules: Rules) -> None:
    """Have a launcher of another maker (joblib, submitit, Ray) run what is left, one command per job.

    It tells nothing before all it was given has ended: what needs other jobs, or is to be tried again, waits for then.
    """
    config, folder = context["config"], manifest.folder.absolute()
    with open_dict(config):
        config.hydra.sweep.dir = str(folder)  # launchers keep files of their own in it
    launcher = Plugins.instance().instantiate_launcher(**context)
    maker = config.hydra.runtime.choices["hydra/launcher"]
    trust = sorted(packages([job.config for job in manifest.jobs]).union(config.trust))
    common = [f"hydra.sweep.dir={quoted(folder)}", f"trust=[{','.join(trust)}]"]
    if rules.on_failure == "stop":
        screen.say(f"on_failure=stop comes too late for what {maker} has been given already")
    started: Counter[str] = Counter()
    while names := due(manifest, rules, started):
        started.update(names)
        screen.say(f"{len(names)} handed to {maker}; to see how far it is: python train.py stage=report runs={folder}")
        try:
            launcher.launch([[f"sweep.job={quoted(folder / RUNS / name)}", *common] for name in names], 0)
        except Exception as error:  # each has its own for a worker that died
            screen.error(f"{maker}: {type(error).__name__}: {explain(error)}")


def due(manifest: Manifest, rules: Rules, started: Mapping[str, int]) -> list[str]:
    """Jobs, or trials of a search, that can start now and have not been started as often as the rules allow."""
    states = {name: manifest.state(name) for name in manifest.names()}
    done = {name for name, state in states.items() if state == "done"}
    searching = manifest.search is not None
    work = search.trials(manifest) if searching else launch.jobs_left(manifest, states, rules.retries, 1)
    return [task.name for task in work if task.needs <= done and started[task.name] <= rules.retries]


def packages(node: Any) -> set[str]:
    """What the code that configs name belongs to: it stood on the command line, so a job need not doubt it."""
    if isinstance(node, dict):
        own = {str(node["_target_"]).partition(".")[0]} if "_target_" in node else set()
        return own.union(*map(packages, node.values()))
    return set().union(*map(packages, node)) if isinstance(node, list) else set()


def quoted(path: Path) -> str:
    """A path as a value of Hydra's grammar, whatever is in it."""
    return "'" + str(path).replace("'", "\\'") + "'"


def conclude(manifest: Manifest) -> int:
    """Write and show the tables, say what to type next, and give the exit status."""
    summary = report.write_report(manifest.folder)
    report.show(summary)
    screen.say(f"sweep folder: {manifest.folder} with leaderboard.csv and sweep.html")
    states = [manifest.state(name) for name in manifest.names()]
    again = f"python train.py -m sweep.resume={manifest.folder}"
    if "failed" in states:
        screen.error(f"{states.count('failed')} of {len(states)} jobs failed")
        screen.next_command(f"{again} sweep.retries=1")
    elif {"planned", "interrupted"} & set(states):
        screen.next_command(again)
    else:
        screen.next_command(f"tensorboard --logdir {manifest.folder}")
    return 0 if set(states) <= {"done", "pruned"} else SOME_FAILED
