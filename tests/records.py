"""Records with checksums, as a run writes them, for run folders that tests create or modify."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from warmstart.core.reading import file_sha256
from warmstart.run.checksums import write_checksums, write_record


def write_run(folder: Path, record: dict[str, Any]) -> None:
    """Write run.json with the checksums of the files that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [path for path in folder.iterdir() if path.is_file() and path.name not in ("run.json", "lock", "train.log")]
    write_record(folder / "run.json", {**record, "checksums": {path.name: file_sha256(path) for path in files}})


def change_run(folder: Path, **fields: Any) -> None:
    """Change fields of run.json, and take the checksums of files and model again: as a stranger could."""
    record = {**json.loads((folder / "run.json").read_text()), **fields}
    model = folder / "model"
    if model.is_dir() and "model_sha256" in record:
        (model / "checksums.json").unlink(missing_ok=True)
        digests = write_checksums(model)
        record["model_sha256"] = {name: digests[name] for name in record["model_sha256"] if name in digests}
    write_run(folder, record)
