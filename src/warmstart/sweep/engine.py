"""A sweep from its command line to its tables: planned, tried, frozen, run, reported; or taken up again."""

from __future__ import annotations

import functools
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart.config.validate import check_root, explain
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.screen import quoted
from warmstart.report import sweep as report
from warmstart.report.curves import CURVES
from warmstart.run.files import as_write_error, check_links, remove_temporaries
from warmstart.run.identity import git_state
from warmstart.run.manifest import CONF, LOCKS, RUNS, Manifest
from warmstart.run.sweep_checksums import check_runs, record_runs
from warmstart.sweep import launch, search, study
from warmstart.sweep.external import launch_externally
from warmstart.sweep.plan import Composer, grid, packages
from warmstart.sweep.pool import Crash, Death, once, preload
from warmstart.sweep.preflight import Survey, survey
from warmstart.sweep.runner import Runner
from warmstart.sweep.schedule import Rules

FAILED, USER_MISTAKE, SOME_FAILED, INTERRUPTED = 1, 2, 3, 130
KEPT_ON_RESUME = ("sweep.resume", "sweep.retries", "sweep.on_failure", "trust", "output_dir")
OURS = "hydra_plugins.warmstart_door."


def multirun(context: dict[str, Any], params: dict[str, str], arguments: Sequence[str], runner: Runner) -> int:
    """What `-m` does.

    Args:
        context: Hydra's context, task function and the config of the command line as a whole.
        params: values that a sweep's own yaml gives.
        arguments: the words of the command line.
        runner: runs the jobs.

    Returns:
        The exit status: 0 all done, 1 the sweep itself could not write, 2 a user's mistake, 3 some jobs failed, 130
        interrupted.
    """
    config, manifest = context["config"], None
    chosen = [word for word in config.hydra.overrides.hydra if re.match(r"\+*hydra[/.]launcher", word)]
    try:
        check_settings(config, arguments)
        if config.sweep.resume:
            manifest = reopen(Path(config.sweep.resume), arguments, tuple(config.trust))
        else:
            words = [*(f"{key}={value}" for key, value in params.items()), *arguments]
            manifest = plan(config, context["hydra_context"].config_loader, words, runner)
        write = functools.partial(report.write_report, manifest.folder)
        rules = Rules(config.sweep.on_failure, config.sweep.retries, write)
        if str(config.hydra.launcher._target_).startswith(OURS):
            failures = launch.run(manifest, OmegaConf.to_container(config.hydra.launcher), rules, runner)
        else:
            failures = {}
            launch_externally(manifest, context, rules)
        return conclude(manifest, chosen, failures)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        screen.error(explain(error))
        return USER_MISTAKE
    except Exception as error:
        failure = as_write_error(error, Path(tempfile.gettempdir()))
        if failure is None:
            raise
        screen.error(f"{failure}; make room or choose another disk, then continue")
        if manifest is not None:
            go_on(manifest, chosen)
        return FAILED
    except KeyboardInterrupt:
        screen.error("interrupted")
        if manifest is not None:
            go_on(manifest, chosen)
        return INTERRUPTED


def plan(config: DictConfig, loader: ConfigLoader, words: Sequence[str], runner: Runner) -> Manifest:
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
    preload(runner.modules, (job.config for job in jobs))
    found = once(functools.partial(survey, jobs, folders[0], config.sweep.preflight, runner))
    complain(found)
    varied = list(settings["space"]) if settings else [key for job in jobs for key in job.values]
    losses = [key for key in varied if key.partition(".")[0] in ("loss", "objective")]
    if losses and found.metric == "val/loss":
        screen.say(f"val/loss is another quantity for each {losses[0]}: the configurations are not ranked")
        found.metric = None
    if searching and found.metric is None:
        raise UserError(f"stage={jobs[0].config['stage']} has no validation metric in common that a search could go by")
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
        trust=tuple(sorted(packages([job.config for job in jobs]).union(config.trust))),
    )
    manifest.write(folders if searching else [])
    size = f"{settings['trials']} trials of {settings['seeds']} seeds" if settings else f"{len(jobs)} jobs"
    steps = f", a step of each of {found.kinds} kinds tried" if config.sweep.preflight and found.kinds else ""
    screen.say(f"{size} planned{steps}, in {time.monotonic() - started:.1f} s: {manifest.folder}")
    return manifest


def complain(found: Survey | Crash | Death) -> None:
    """Raise an error where the survey found a job that cannot run, and print what rows of the data are shared.

    Raises:
        UserError: says which job and why.
        WriteError: trying it found no room on a disk.
    """
    if isinstance(found, (Crash, Death)):
        raise UserError(f"trying the jobs failed: {found.reason}; nothing was started")
    if found.unwritten is not None:
        raise found.unwritten
    if found.trace is not None:
        sys.stderr.write(screen.safe(found.trace))
    if found.problem is not None:
        raise UserError(f"{found.problem}; nothing was started")
    for line in dict.fromkeys(found.shared):
        screen.say(f"warning: {line}", style="yellow")


def reopen(folder: Path, arguments: Sequence[str], trust: tuple[str, ...]) -> Manifest:
    """The plan of a sweep that is to go on.

    Raises:
        UserError: the folder is no sweep, holds links, its plan was changed, or the command line asks for another.
    """
    manifest = Manifest.read(folder)
    for path in (folder, folder / RUNS):
        check_links(path, below=False)
    for name in (LOCKS, CONF, CURVES):
        check_links(folder / name)
    asked, planned = (
        [word for word in words if word.lstrip("+~").partition("=")[0] not in KEPT_ON_RESUME]
        for words in (arguments, manifest.words)
    )
    if asked and asked != planned:
        raise UserError(
            f"sweep.resume={folder} goes on with its own plan ({' '.join(manifest.words)}): leave out {' '.join(asked)}"
        )
    manifest.trust = trust
    manifest.check()
    if manifest.search is not None:
        search.check(manifest)
    if all(manifest.state(name) != "running" for name in manifest.names()):
        remove_temporaries(folder)
    check_runs(manifest, resumed=True)
    now = git_state()["commit"]
    if now != manifest.git["commit"]:
        screen.say(f"the code has changed since the plan was made: commit {manifest.git['commit']}, now {now}")
    return manifest


def check_settings(config: DictConfig, arguments: Sequence[str]) -> None:
    """Refuse what steers the sweep and cannot be meant, before anything is planned.

    Raises:
        UserError: a setting of the sweep or its launcher is of another type, or has several values.
    """
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key = override.key_or_group
        if override.is_sweep_override() and (key.startswith("sweep") or key in ("output_dir", "trust")):
            raise UserError(
                f"{override.input_line}: one value for the whole sweep; a path with a comma needs quotes: '\"a,b\"'"
            )
    sweep = config.sweep
    check_root(config)
    if "trials" in sweep and sweep.retries:
        raise UserError("sweep.retries: a search gives up a trial that fails, and tries another")
    if str(config.hydra.launcher._target_).startswith(OURS):
        launch.check_settings(config.hydra.launcher)


def conclude(manifest: Manifest, more: Sequence[str], failures: Mapping[str, str]) -> int:
    """Write and show the tables, say what to type next, and give the exit status.

    Args:
        manifest: the sweep.
        more: the words that chose the launcher, for the command that goes on.
        failures: why jobs failed, also those whose folders do not say so.

    Raises:
        WriteError: a table cannot be written.
    """
    record_runs(manifest, **({study.STUDY: study.study_digest(manifest)} if manifest.search is not None else {}))
    summary = report.write_report(manifest.folder, failures)
    report.show(summary)
    screen.say(f"sweep folder: {manifest.folder} with leaderboard.csv and sweep.html")
    states = {name: manifest.state(name) for name in manifest.names()}
    failed = [name for name, state in states.items() if state == "failed" or (state != "done" and name in failures)]
    if manifest.search is not None:
        failed += [name for name in study.failed(manifest) if not any(run.startswith(f"{name}-") for run in failed)]
    left = {state for name, state in states.items() if name not in failed} - {"done", "pruned"}
    if manifest.search is not None:
        left |= set(search.trials_left(manifest))
    if failed:
        screen.error(f"{len(failed)} {'job' if len(failed) == 1 else 'jobs'} of {len(states)} failed")
    if left:
        go_on(manifest, more)
    elif failed and manifest.search is None:
        attempts = max(manifest.attempts(name) for name in failed)
        go_on(manifest, [*more, *([f"sweep.retries={attempts}"] if attempts else [])])
    else:
        screen.next_command(screen.command("tensorboard", "--logdir", str(manifest.folder)))
    return SOME_FAILED if failed or left else 0


def go_on(manifest: Manifest, more: Sequence[str]) -> None:
    """Say how to take up a sweep."""
    screen.next_run("-m", f"sweep.resume={quoted(manifest.folder)}", *more)
