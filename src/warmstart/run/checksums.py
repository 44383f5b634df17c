"""SHA-256 of what is written, kept beside it, so that damage is detected when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.reading import file_sha256, load_json
from warmstart.run.files import write_atomically

CHECKSUMS = "checksums.json"  # of the files of a folder
KEY = "checksums"  # where a record keeps those of other files, and under its own file's name that of the rest of it


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Replace a JSON file by this record and its checksum.

    Raises:
        WriteError: the disk is full, read-only or broken.
    """
    others = {name: digest for name, digest in (record.get(KEY) or {}).items() if name != path.name}
    content = json.loads(json.dumps({**record, KEY: others}))
    content[KEY][path.name] = _digest(content)
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Return the record that `write_record` wrote.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no JSON, or is not as it was written.
    """
    record = load_json(path)
    checksums = record.get(KEY) if isinstance(record, dict) else None
    if not isinstance(checksums, dict):
        raise ValueError("it has no checksum")
    content = {**record, KEY: {name: digest for name, digest in checksums.items() if name != path.name}}
    if checksums.get(path.name) != _digest(content):
        raise ValueError("its SHA-256 is not the recorded one")
    return record


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_checksums(folder: Path) -> dict[str, str]:
    """Write checksums.json for the files that a folder holds, and return it by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    write_record(folder / CHECKSUMS, {KEY: digests})
    return digests


def check_folder(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Return the checksums of files in a folder, once each is found to be as it was written.

    Args:
        folder: with a checksums.json.
        names: of the files; all that have a checksum where None.

    Raises:
        UserError: names the file that is missing, damaged or has no checksum.
    """
    path = folder / CHECKSUMS
    try:
        digests = {name: str(digest) for name, digest in read_record(path)[KEY].items() if name != CHECKSUMS}
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing, so nothing tells whether the files beside it are sound") from error
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    names = list(digests if names is None else names)
    for name in names:
        if name not in digests:
            raise UserError(f"{path} is damaged: it has no checksum of {name}")
    for name in names:
        check_file(folder / name, digests[name])
    return {name: digests[name] for name in names}


def check_file(path: Path, digest: str) -> None:
    """Refuse a file that is not the one whose SHA-256 was taken.

    Raises:
        UserError: names it.
    """
    try:
        found = file_sha256(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: put it back, or run again what wrote it") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if found != digest:
        raise UserError(f"{path} is damaged, or was changed after it was written: its SHA-256 is not the recorded one")
