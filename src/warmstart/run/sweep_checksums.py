"""Checksums of the runs of a sweep or transfer, stored in its manifest.json to detect later changes."""

from __future__ import annotations

from warmstart.core.reading import file_sha256
from warmstart.run.checksums import check_file
from warmstart.run.folder import RECORD, RunFolder
from warmstart.run.manifest import RUNS, Manifest
from warmstart.run.scores import SCORES

REPORT_FILES = ("metrics.csv", SCORES)  # files of a run that reports read, besides its record


def record_runs(manifest: Manifest, **others: str) -> None:
    """Store the checksums of the records of all finished runs; a record has the checksums of the other files.

    Args:
        manifest: of the sweep or transfer.
        others: additional checksums by name.
    """
    done = [name for name in manifest.names() if manifest.state(name) == "done"]
    digests = {f"{RUNS}/{name}/{RECORD}": file_sha256(manifest.path(name) / RECORD) for name in done}
    manifest.record_checksums({**digests, **others})


def check_runs(manifest: Manifest, resumed: bool = False) -> None:
    """Verify the checksums of all finished runs.

    Args:
        manifest: of the sweep or transfer.
        resumed: drop the checksums of runs that are not finished, because they will be run again.

    Raises:
        UserError: a file was changed or removed; the message names it.
    """
    done = [name for name in manifest.names() if manifest.state(name) == "done"]
    if resumed:
        records = {f"{RUNS}/{name}/{RECORD}" for name in done}
        kept = {
            file: digest for file, digest in manifest.checksums.items() if file in records or not is_run_record(file)
        }
        if kept != manifest.checksums:
            manifest.record_checksums(kept)
    for file, digest in manifest.checksums.items():
        if is_run_record(file):
            check_file(manifest.folder / file, digest)
    for name in done:
        run = RunFolder.open(manifest.path(name))
        for file in REPORT_FILES:
            run.checked(file)


def is_run_record(file: str) -> bool:
    """Return whether a path relative to the folder of a sweep is the record of a run."""
    return file.startswith(f"{RUNS}/")
