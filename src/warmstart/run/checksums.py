"""SHA-256 checksums of files and records, verified when they are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from warmstart.core.errors import UserError
from warmstart.core.reading import file_sha256, load_json
from warmstart.run.files import write_atomically

CHECKSUMS = "checksums.json"  # checksums of the files of a folder
KEY = "checksums"  # key in a record: checksums by file name, including that of the record itself without its own entry


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record and its checksum to a JSON file.

    Raises:
        WriteError: the disk is full, read-only or broken.
    """
    others = {name: digest for name, digest in (record.get(KEY) or {}).items() if name != path.name}
    content = json.loads(json.dumps({**record, KEY: others}))
    content[KEY][path.name] = _digest(content)
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """Read and verify a record of `write_record`.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is no JSON, or its checksum is missing or wrong.
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
    """Write checksums.json for all files below a folder, and return the checksums by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    digests = {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}
    write_record(folder / CHECKSUMS, {KEY: digests})
    return digests


def check_folder(folder: Path, names: Iterable[str] | None = None) -> dict[str, str]:
    """Verify these files, by default all, against checksums.json, and return their checksums.

    Raises:
        UserError: a file is missing, damaged or has no checksum; the message names it.
    """
    path = folder / CHECKSUMS
    try:
        digests = {name: str(digest) for name, digest in read_record(path)[KEY].items() if name != CHECKSUMS}
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing, so the files of its folder cannot be verified") from error
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
    """Verify the SHA-256 of a file.

    Raises:
        UserError: the file is missing, unreadable or changed; the message names it.
    """
    try:
        found = file_sha256(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: restore it, or repeat the run that wrote it") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if found != digest:
        raise UserError(f"{path} is damaged or was changed: its SHA-256 is not the recorded one")
