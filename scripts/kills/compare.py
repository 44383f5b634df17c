"""Compare two run folders of the same config: every file, number and log must be equal."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

OF_ITS_OWN = re.compile("id|checksums|sha256|config_sha256|.*seconds.*|peak_memory_mb|attempts|together")
THROUGHPUT = "tokens_per_second"
EVENTS = "events.out.tfevents."
SKIPPED = (".html", ".md", ".log", ".ckpt", "lock", ".db", ".journal", "checksums.json")


def differences(calm: Path, torn: Path) -> list[str]:
    """Return what the run that was killed and resumed has otherwise than the undisturbed one, a line each."""
    names = {folder: file_names(folder) for folder in (calm, torn)}
    found = [f"{name} is missing" for name in sorted(names[calm] - names[torn])]
    found += [f"{name} is too much" for name in sorted(names[torn] - names[calm])]
    ids = {folder: run_ids(folder) for folder in (calm, torn)}
    for name in sorted(names[calm] & names[torn]):
        found += compare_file(calm / name, torn / name, ids[calm], ids[torn], name)
    return found + compare_events(calm, torn)


def file_names(folder: Path) -> set[str]:
    """Return the relative paths of all files but TensorBoard's, whose names have the time."""
    paths = (path for path in folder.rglob("*") if path.is_file() or not any(path.iterdir()))
    return {path.relative_to(folder).as_posix() for path in paths if not path.name.startswith(EVENTS)}


def run_ids(folder: Path) -> dict[str, str]:
    """Return the ids of the runs in a folder and its path, with what stands for them."""
    ids = {str(folder.resolve()): "<folder>"}
    for path in folder.rglob("run.json"):
        ids[json.loads(path.read_text())["id"]] = f"<id of {path.parent.relative_to(folder)}>"
    return ids


def plain(text: str, ids: dict[str, str]) -> str:
    """Return a text without the ids of its runs."""
    for own, name in ids.items():
        text = text.replace(own, name)
    return text


def compare_file(calm: Path, torn: Path, ids: dict[str, str], others: dict[str, str], name: str) -> list[str]:
    """Compare two files as what they are: JSON and CSV by value, the others by their bytes."""
    if calm.is_dir() or calm.name.endswith(SKIPPED):
        return []
    if calm.suffix in (".safetensors", ".npy", ".png", ".pth"):
        return [] if calm.read_bytes() == torn.read_bytes() else [f"{name} differs"]
    one, two = plain(calm.read_text(), ids), plain(torn.read_text(), others)
    if calm.suffix == ".json":
        return [f"{name}: {line}" for line in compare_values(json.loads(one), json.loads(two))]
    if calm.name == "metrics.csv":
        rows = [[row for row in csv.reader(text.splitlines()) if THROUGHPUT not in row[1]] for text in (one, two)]
        if rows[0] != rows[1]:
            first = next((pair for pair in zip(*rows) if pair[0] != pair[1]), "one ends before the other")
            return [f"{name}: {len(rows[0])} rows, {len(rows[1])} rows; first difference: {first}"]
        return []
    if calm.suffix == ".csv":
        tables = [pd.read_csv(path) for path in (calm, torn)]
        tables = [table.drop(columns=[key for key in table if OF_ITS_OWN.fullmatch(key)]) for table in tables]
        try:
            pd.testing.assert_frame_equal(*tables)
        except AssertionError as error:
            return [f"{name}: {' '.join(str(error).split())}"]
        return []
    return [] if one == two else [f"{name} differs"]


def compare_values(one: Any, two: Any, place: str = "") -> list[str]:
    """Compare JSON, without what each run has of its own."""
    if isinstance(one, dict) and isinstance(two, dict):
        keys = sorted(key for key in one.keys() | two.keys() if not OF_ITS_OWN.fullmatch(key))
        lacking = [f"{place}{key}: only in one" for key in keys if (key in one) != (key in two)]
        both = (key for key in keys if key in one and key in two)
        return lacking + [line for key in both for line in compare_values(one[key], two[key], f"{place}{key}.")]
    if isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        pairs = enumerate(zip(one, two))
        return [line for number, pair in pairs for line in compare_values(*pair, f"{place}{number}.")]
    same = one == two or (isinstance(one, float) and isinstance(two, float) and math.isnan(one) and math.isnan(two))
    return [] if same else [f"{place.rstrip('.')}: {str(one)[:80]} is now {str(two)[:80]}"]


def compare_events(calm: Path, torn: Path) -> list[str]:
    """Compare what TensorBoard shows: steps and values of scalars, and the names of all else."""
    found = []
    folders = {path.parent.relative_to(base) for base in (calm, torn) for path in base.rglob(f"{EVENTS}*")}
    for folder in sorted(folders):
        one, two = shown(calm / folder), shown(torn / folder)
        found += [f"events in {folder}: {tag}: only in one" for tag in sorted(one.keys() ^ two.keys())]
        for tag in sorted(one.keys() & two.keys()):
            if one[tag] != two[tag]:
                found.append(f"events in {folder}: {tag}: {str(one[tag])[:100]} is now {str(two[tag])[:100]}")
    return found


def shown(folder: Path) -> dict[str, list]:
    """Return by tag the steps and values of scalars, and the steps of everything else."""
    if not any(folder.glob(f"{EVENTS}*")):
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0, "audio": 0})
    events.Reload()
    tags = events.Tags()
    series = {f"scalar {tag}": [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"]}
    series |= {f"image {tag}": [e.step for e in events.Images(tag)] for tag in tags["images"]}
    series |= {f"tensor {tag}": [e.step for e in events.Tensors(tag)] for tag in tags["tensors"]}
    return {tag: points for tag, points in series.items() if THROUGHPUT not in tag}
