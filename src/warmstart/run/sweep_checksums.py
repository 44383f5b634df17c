"""Checksums of the runs of a sweep or transfer, kept in its manifest.json, so that a later change is detected."""

from __future__ import annotations

from warmstart.core.reading import file_sha256
from warmstart.run.checksums import check_file
from warmstart.run.folder import RECORD, RunFolder
from warmstart.run.manifest import RUNS, Manifest
from warmstart.run.scores import SCORES

READ = ("metrics.csv", SCORES)  # what a report reads of a run besides its record


def record_runs(manifest: Manifest, **others: str) -> None:
    """Take the checksums of the records of all runs that are done; these have those of their files.

    Args:
        manifest: of the sweep or transfer.
        others: further checksums to keep, by name.
    """
    done = [name for name in manifest.names() if manifest.state(name) == "done"]
    digests = {f"{RUNS}/{name}/{RECORD}": file_sha256(manifest.path(name) / RECORD) for name in done}
    manifest.record_checksums({**digests, **others})


def check_runs(manifest: Manifest, resumed: bool = False) -> None:
    """Refuse runs that are not as they were when their checksums were taken, or when they were done.

    Args:
        manifest: of the sweep or transfer.
        resumed: drop the checksums of what is no longer done, because it will be run again.

    Raises:
        UserError: names the first file that was changed or removed.
    """
    done = [name for name in manifest.names() if manifest.state(name) == "done"]
    if resumed:
        records = {f"{RUNS}/{name}/{RECORD}" for name in done}
        kept = {file: digest for file, digest in manifest.checksums.items() if file in records or not is_run(file)}
        if kept != manifest.checksums:
            manifest.record_checksums(kept)
    for file, digest in manifest.checksums.items():
        if is_run(file):
            check_file(manifest.folder / file, digest)
    for name in done:
        run = RunFolder.open(manifest.path(name))
        for file in READ:
            run.checked(file)


def is_run(file: str) -> bool:
    """Whether this path in the folder of a sweep is that of a run's record."""
    return file.startswith(f"{RUNS}/")
