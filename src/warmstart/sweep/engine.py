"""Runs a sweep: plans, checks, runs and reports its jobs, or resumes an earlier sweep."""

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

from warmstart.config.expand import expand, with_given_length
from warmstart.config.validate import check_root, explain
from warmstart.core import screen
from warmstart.core.errors import UserError, is_terminated
from warmstart.core.screen import quoted
from warmstart.report import sweep as report
from warmstart.report.curves import CURVES
from warmstart.run.files import as_write_error, check_links, remove_temporaries
from warmstart.run.identity import git_state
from warmstart.run.manifest import CONF, LOCKS, RUNS, Manifest, check_runs, record_runs
from warmstart.sweep import launch, search, study
from warmstart.sweep.external import launch_externally
from warmstart.sweep.job import Runner
from warmstart.sweep.plan import Composer, grid, packages
from warmstart.sweep.pool import Crash, Death, preload, run_once
from warmstart.sweep.preflight import Preflight, check_jobs
from warmstart.sweep.schedule import Rules

FAILED, USER_ERROR, SOME_FAILED, TERMINATED, INTERRUPTED = 1, 2, 3, 75, 130
ALLOWED_ON_RESUME = ("sweep.resume", "sweep.show_test", "sweep.retries", "sweep.on_failure", "trust", "output_dir")
PLUGINS = "hydra_plugins.warmstart_sweeper."


def multirun(context: dict[str, Any], params: dict[str, str], arguments: Sequence[str], runner: Runner) -> int:
    """Plan, run and report a sweep; the entry point of `-m`.

    Args:
        context: Hydra's context, task function and composed config.
        params: overrides from the yaml file of the sweep.
        arguments: overrides of the command line.
        runner: runs the jobs.

    Returns:
        The exit status: 0 all jobs done, 1 a file of the sweep could not be written, 2 user error, 3 some jobs failed
        or are unfinished, 75 terminated by SIGTERM, 130 interrupted.
    """
    config, manifest = context["config"], None
    launcher = [text for text in config.hydra.overrides.hydra if re.match(r"\+*hydra[/.]launcher", text)]
    try:
        check_settings(config, arguments)
        if config.sweep.resume:
            manifest = reopen(Path(config.sweep.resume), arguments, tuple(config.trust))
        else:
            overrides = with_given_length([*(f"{key}={value}" for key, value in params.items()), *arguments])
            manifest = plan(config, context["hydra_context"].config_loader, overrides, runner)
        show_test = config.sweep.show_test
        write = functools.partial(report.write_report, manifest.folder, show_test=show_test)
        rules = Rules(config.sweep.on_failure, config.sweep.retries, write)
        if str(config.hydra.launcher._target_).startswith(PLUGINS):
            failures = launch.run(manifest, OmegaConf.to_container(config.hydra.launcher), rules, runner)
        else:
            failures = {}
            launch_externally(manifest, context, rules)
        return conclude(manifest, launcher, failures, show_test)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        screen.error(explain(error))
        return USER_ERROR
    except Exception as error:
        failure = as_write_error(error, Path(tempfile.gettempdir()))
        if failure is None:
            raise
        screen.error(f"{failure}; free space or use another disk, then resume the sweep")
        if manifest is not None:
            suggest_resume(manifest, launcher)
        return FAILED
    except KeyboardInterrupt as error:
        screen.error("interrupted")
        if manifest is not None:
            suggest_resume(manifest, launcher)
        return TERMINATED if is_terminated(error) else INTERRUPTED


def plan(config: DictConfig, loader: ConfigLoader, overrides: Sequence[str], runner: Runner) -> Manifest:
    """Compose and check every job of a command line, and write the plan.

    Raises:
        UserError: a job cannot be composed or run; nothing is written.
    """
    started = time.monotonic()
    folders = [Path(source.path) for source in loader.get_sources() if source.scheme() == "file"]
    overrides = [text for text in overrides if not text.lstrip("+").startswith("sweep.")]
    composer = Composer(folders)
    is_search = "trials" in config.sweep
    if is_search:
        settings, jobs = search.plan(composer, config, overrides)
    else:
        settings, jobs = None, grid(composer, overrides)
    stages = {job.config["stage"] for job in jobs}
    if stages & {"report", "rerun"}:
        raise UserError(f"stage={'/'.join(sorted(stages))} cannot be swept: it creates no runs of its own")
    preload(runner.modules, (job.config for job in jobs))
    found = run_once(functools.partial(check_jobs, jobs, folders[0], config.sweep.preflight, runner))
    report_problems(found)
    varied = list(settings["space"]) if settings else [key for job in jobs for key in job.values]
    losses = [key for key in varied if key.partition(".")[0] in ("loss", "objective")]
    if losses and found.metric == "val/loss":
        screen.say(f"configurations are not ranked: val/loss of different {losses[0]} cannot be compared")
        found.metric = None
    if is_search and found.metric is None:
        raise UserError(f"stage={jobs[0].config['stage']} has no validation metric that a search could optimize")
    manifest = Manifest(
        folder=Path(config.hydra.sweep.dir),
        stage=jobs[0].config["stage"],
        experiment=jobs[0].config["experiment"],
        words=list(overrides),
        metric=found.metric,
        mode=found.mode,
        git=git_state(),
        jobs=[] if is_search else jobs,
        search=settings,
        trust=tuple(sorted(packages([job.config for job in jobs]).union(config.trust))),
    )
    manifest.write(folders if is_search else [])
    size = f"{settings['trials']} trials of {settings['seeds']} seeds" if settings else f"{len(jobs)} jobs"
    steps = f", one step of each of {found.kinds} kinds checked" if config.sweep.preflight and found.kinds else ""
    screen.say(f"planned {size}{steps} in {time.monotonic() - started:.1f} s: {manifest.folder}")
    return manifest


def report_problems(found: Preflight | Crash | Death) -> None:
    """Raise the error of a job that cannot run, and print warnings about shared rows.

    Raises:
        UserError: a job cannot run; the message names it and the reason.
        WriteError: the disk is full, read-only or broken.
    """
    if isinstance(found, (Crash, Death)):
        raise UserError(f"the check of the jobs failed: {found.reason}; no job was started")
    if found.unwritten is not None:
        raise found.unwritten
    if found.trace is not None:
        sys.stderr.write(screen.safe(found.trace))
    if found.problem is not None:
        raise UserError(f"{found.problem}; no job was started")
    for line in dict.fromkeys(found.shared):
        screen.say(f"warning: {line}", style="yellow")


def reopen(folder: Path, arguments: Sequence[str], trust: tuple[str, ...]) -> Manifest:
    """Read and check the plan of a sweep to resume.

    Raises:
        UserError: the folder is no sweep, contains links, has a changed plan, or the overrides differ from the plan.
    """
    manifest = Manifest.read(folder)
    for path in (folder, folder / RUNS):
        check_links(path, below=False)
    for name in (LOCKS, CONF, CURVES):
        check_links(folder / name)
    requested, planned = (
        [text for text in overrides if text.lstrip("+~").partition("=")[0] not in ALLOWED_ON_RESUME]
        for overrides in (arguments, manifest.words)
    )
    if requested and planned not in (requested, expand(requested)):
        plan = " ".join(manifest.words)
        raise UserError(f"sweep.resume={folder} continues its own plan ({plan}): remove {' '.join(requested)}")
    manifest.trust = trust
    manifest.check()
    if manifest.search is not None:
        search.check(manifest)
    if all(manifest.state(name) != "running" for name in manifest.names()):
        remove_temporaries(folder)
    check_runs(manifest, resumed=True)
    now = git_state()["commit"]
    if now != manifest.git["commit"]:
        screen.say(
            f"warning: the code has changed since the plan was written: commit {manifest.git['commit']}, now {now}"
        )
    return manifest


def check_settings(config: DictConfig, arguments: Sequence[str]) -> None:
    """Check the settings of the sweep and its launcher.

    Raises:
        UserError: a setting has the wrong type or several values.
    """
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key = override.key_or_group
        if override.is_sweep_override() and (key.startswith("sweep") or key in ("output_dir", "trust")):
            raise UserError(
                f"{override.input_line}: must be a single value; quote a path that contains a comma: '\"a,b\"'"
            )
    sweep = config.sweep
    check_root(config)
    for name in ("resume", "extend"):
        if config.get(name) is not None:
            raise UserError(f"{name}={config[name]} is for a single run; a sweep continues with sweep.resume=FOLDER")
    if "trials" in sweep and sweep.retries:
        raise UserError(
            f"sweep.retries={sweep.retries} is not supported by a search: remove it, failed trials are replaced"
        )
    if str(config.hydra.launcher._target_).startswith(PLUGINS):
        launch.check_settings(config.hydra.launcher)


def conclude(manifest: Manifest, launcher: Sequence[str], failures: Mapping[str, str], show_test: bool) -> int:
    """Write and print the tables, suggest the next command, and return the exit status.

    Args:
        launcher: overrides that selected the launcher, for the suggested command.
        failures: errors of failed jobs, including those that are not recorded in a run folder.
        show_test: include test scores.

    Raises:
        WriteError: a table cannot be written.
    """
    record_runs(manifest, **({study.STUDY: study.study_digest(manifest)} if manifest.search is not None else {}))
    summary = report.write_report(manifest.folder, failures, show_test)
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
        suggest_resume(manifest, launcher)
    elif failed and manifest.search is None:
        attempts = max(manifest.attempts(name) for name in failed)
        suggest_resume(manifest, [*launcher, *([f"sweep.retries={attempts}"] if attempts else [])])
    else:
        screen.next_command(*report.next_commands(summary, manifest.folder))
    return SOME_FAILED if failed or left else 0


def suggest_resume(manifest: Manifest, overrides: Sequence[str]) -> None:
    """Print the command that resumes a sweep."""
    screen.next_run("-m", f"sweep.resume={quoted(manifest.folder)}", *overrides)
