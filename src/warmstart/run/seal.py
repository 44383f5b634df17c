"""Checksums of the runs of a sweep or transfer, taken when they are done, so that a later change is detected."""

from __future__ import annotations

from warmstart.contracts import UserError
from warmstart.run.checksums import check_file, read_record, write_record
from warmstart.run.folder import RECORD, RunFolder
from warmstart.run.identity import file_sha256
from warmstart.run.manifest import Manifest
from warmstart.run.scores import SCORES

SEAL = "hashes.json"
READ = ("metrics.csv", SCORES)  # what a report reads of a run besides its record


def write_seal(manifest: Manifest) -> None:
    """Take the checksums of the records of all runs that are done; these have those of their files."""
    done = [name for name in manifest.names() if manifest.state(name) == "done"]
    write_record(manifest.folder / SEAL, {"runs": {name: file_sha256(manifest.path(name) / RECORD) for name in done}})


def check_seal(manifest: Manifest, only_done: bool = False) -> None:
    """Refuse runs that are not as they were when their checksums were taken.

    Args:
        manifest: of the folder.
        only_done: leave out what is no longer done, because it will be run again.

    Raises:
        UserError: names the first file that was changed or removed.
    """
    path = manifest.folder / SEAL
    if (manifest.folder / RECORD).exists():
        RunFolder.open(manifest.folder).checked(SEAL)
    if not path.exists():
        return
    try:
        digests = dict(read_record(path)["runs"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    for name, digest in digests.items():
        if name not in manifest.names():
            raise UserError(f"{path} is damaged: it names {name}, which is no run")
        if only_done and manifest.state(name) != "done":
            continue
        check_file(manifest.path(name) / RECORD, digest)
        run = RunFolder.open(manifest.path(name))
        for file in READ:
            run.checked(file)
