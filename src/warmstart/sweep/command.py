"""One job of a sweep as a command of its own, `sweep.job=FOLDER`: how launchers of other makers start it."""

from __future__ import annotations

import logging
from pathlib import Path

from warmstart.contracts import UserError
from warmstart.run import cores
from warmstart.run.manifest import Manifest
from warmstart.sweep import search
from warmstart.sweep.job import run_job


def run(path: Path, trust: tuple[str, ...]) -> str:
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
                return search.run_trial(manifest, slots[0]).state
        elif path.name in manifest.by_name:
            return run_job(manifest, manifest.by_name[path.name]).state
    except KeyboardInterrupt as interrupt:
        stop: BaseException | None = interrupt
        while stop is not None and not isinstance(stop, SystemExit):
            stop = stop.__cause__
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise stop from None  # not Ctrl-C but submitit, out of time or preempted, which has queued the job again
        raise
    raise UserError(f"sweep.job={path}: the sweep has no such job")
