"""Decoded images in memory, or in the cache as memory maps if they exceed a limit."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from warmstart.core import screen
from warmstart.core.batch import Splits
from warmstart.data.readers.files import map_in_threads
from warmstart.data.readers.images import Picture, Remarks, read_images, report, report_errors
from warmstart.data.splits import check_readable
from warmstart.data.storage import cache


class ImageStore:
    """Decode and store the images of a source.

    Args:
        memory_mb: memory limit; larger data is stored in the cache and read by batch.
        on_error: raise, or skip images that cannot be read and list them.
    """

    def __init__(self, size: int, channels: int, memory_mb: float, on_error: str):
        self.shape, self.memory, self.skips = (channels, size, size), memory_mb * 2**20, on_error == "skip"

    def fill(self, splits: Splits, pictures: Sequence[Picture]) -> Splits:
        """Replace indices into `pictures` (n,) by images (n, C, H, W), uint8.

        The parts are views of one array.

        Raises:
            UserError: an image cannot be read, or too many cannot be read.
        """
        parts = [splits.train, splits.validation, splits.test, splits.unlabelled, *splits.shifts.values()]
        parts = [rows for rows in parts if rows is not None]
        order = [pictures[number] for rows in parts for number in rows.x]
        values, kept = self._read(order)
        start = 0
        for rows in parts:
            first, last = np.searchsorted(kept, [start, start + len(rows)])
            read = rows.take(kept[first:last] - start)
            start += len(rows)
            rows.x, rows.y, rows.cluster = values[first:last], read.y, read.cluster
        return check_readable(splits, "image")

    def _read(self, pictures: list[Picture]) -> tuple[np.ndarray, np.ndarray]:
        """Return the images that could be read, and their indices (n,)."""
        if len(pictures) * np.prod(self.shape) <= self.memory:
            values = np.empty((len(pictures), *self.shape), dtype=np.uint8)
            errors, remarks = self._decode(pictures, values)
        else:
            name = cache.key(f"{self.shape} {self.skips}", cache.texts_digest(map_in_threads(stamp, pictures)))
            screen.say(
                f"{len(pictures):,} images need more than data.memory_mb={self.memory / 2**20:g}: stored on disk"
            )
            values, errors, remarks = cache.entry("images", name, lambda folder: self._save(pictures, folder), load)
        if errors:
            report_errors(errors, len(pictures))
        report(remarks, pictures, len(pictures) - len(errors))
        kept = np.setdiff1d(np.arange(len(pictures)), np.array(list(errors), dtype=np.int64))
        return values[: len(kept)], kept

    def _decode(self, pictures: list[Picture], values: np.ndarray) -> tuple[dict[int, str], Remarks]:
        """Write the readable images to the start of the array; return errors by index, and warnings."""
        errors: dict[int, str] | None = {} if self.skips else None
        remarks: Remarks = {}
        read_images(pictures, self.shape, values, errors, remarks)
        if not errors:
            return {}, remarks
        kept = [number for number in range(len(pictures)) if number not in errors]
        for to, number in enumerate(kept[min(errors) :], start=min(errors)):
            values[to] = values[number]
        return errors, remarks

    def _save(self, pictures: list[Picture], folder: Path) -> None:
        kind, shape = np.dtype(np.uint8), (len(pictures), *self.shape)
        values = np.lib.format.open_memmap(folder / "values.npy", "w+", kind, shape)
        if hasattr(os, "posix_fallocate"):  # a full disk raises an error here instead of a signal later
            with open(folder / "values.npy", "r+b") as stream:
                os.posix_fallocate(stream.fileno(), 0, os.fstat(stream.fileno()).st_size)
        errors, remarks = self._decode(pictures, values)
        values.flush()
        (folder / "notes.json").write_text(json.dumps({"errors": errors, **remarks}))


def load(folder: Path) -> tuple[np.ndarray, dict[int, str], Remarks]:
    """Load the files of `ImageStore._save`; the array is copy-on-write, because torch needs a writable one."""
    notes = json.loads((folder / "notes.json").read_text())
    found = {kind: {int(number): note for number, note in by_number.items()} for kind, by_number in notes.items()}
    return np.load(folder / "values.npy", mmap_mode="c"), found.pop("errors"), found


def stamp(picture: Picture) -> str:
    """Return a string that identifies an image: the hash of its bytes and, for a file, its path."""
    if isinstance(picture.content, bytes):
        return hashlib.blake2b(picture.content).hexdigest()
    path = picture.content.absolute()
    try:
        with path.open("rb") as file:
            return f"{path} {hashlib.file_digest(file, hashlib.blake2b).hexdigest()}"
    except OSError:
        return str(path)
