"""One job of a sweep as a command of its own, `sweep.job=FOLDER`: how launchers of other makers start it."""

from __future__ import annotations

from pathlib import Path

from warmstart.contracts import UserError
from warmstart.run.manifest import Manifest
from warmstart.sweep import search
from warmstart.sweep.job import run_job


def run(path: Path, trust: tuple[str, ...]) -> str:
    """Run the job, or the trial of a search, whose run folder this is; return the state that came of it.

    Raises:
        UserError: the sweep is missing or damaged, or has no such job.
    """
    manifest = Manifest.read(path.parent.parent)
    manifest.check(trust)
    if manifest.search is not None:
        slots = [slot for slot in range(manifest.search["trials"]) if search.trial_name(slot) == path.name]
        if slots:
            return search.run_trial(manifest, slots[0]).state
    elif path.name in manifest.by_name:
        return run_job(manifest, manifest.by_name[path.name]).state
    raise UserError(f"sweep.job={path}: the sweep has no such job")
