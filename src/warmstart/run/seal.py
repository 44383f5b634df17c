"""The SHA-256 of what a report reads of each run, taken when it is done, so that a later change is seen."""

from __future__ import annotations

import json
from pathlib import Path

from warmstart.contracts import UserError
from warmstart.reading import load_json
from warmstart.run.files import write_atomically
from warmstart.run.identity import file_sha256
from warmstart.run.manifest import Manifest
from warmstart.run.scores import SCORES

SEAL = "hashes.json"
SEALED = ("run.json", "metrics.csv", SCORES)


def write_seal(manifest: Manifest) -> None:
    """Take the hashes of all runs that are done."""
    hashes = {}
    for job in manifest.jobs:
        if (manifest.record(job.name) or {}).get("status") == "done":
            files = (manifest.path(job.name) / name for name in SEALED)
            hashes[job.name] = {path.name: file_sha256(path) for path in files if path.exists()}
    write_atomically(manifest.folder / SEAL, json.dumps(hashes, indent=1) + "\n")


def check_seal(manifest: Manifest, only_done: bool = False) -> None:
    """Refuse runs that are not as they were when their hashes were taken.

    Args:
        manifest: of the folder.
        only_done: leave aside what is no longer done, because it will be run again.

    Raises:
        UserError: names the first file that was changed or removed.
    """
    path = manifest.folder / SEAL
    if not path.exists():
        return
    try:
        hashes = {name: dict(files) for name, files in load_json(path).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    for name, files in hashes.items():
        if name not in manifest.by_name or not set(files) <= set(SEALED):
            raise UserError(f"{path} is damaged: it names {name}: {', '.join(files)}, which no report reads")
        if only_done and (manifest.record(name) or {}).get("status") != "done":
            continue
        for file, digest in files.items():
            check_file(manifest.path(name) / file, digest)


def check_file(path: Path, digest: str) -> None:
    """Refuse a file that is not the one that was hashed.

    Raises:
        UserError: names it.
    """
    if not path.exists():
        raise UserError(f"{path} is gone, but the transfer was done with it; put it back, or run the transfer again")
    if file_sha256(path) != digest:
        raise UserError(f"{path} was changed after its run was done: its SHA-256 is not the recorded one")
