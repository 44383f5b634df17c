"""Scalars to TensorBoard and to metrics.csv: the same names, the same steps."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from torch.utils.tensorboard.summary import hparams

from warmstart.core.errors import UserError
from warmstart.run.files import sync, write_atomically
from warmstart.training.events import EVENTS, PROJECTOR, AppendedFile, EventWriter

METRICS = "metrics.csv"
HEADER = b"step,name,value\r\n"


class RunLogger(Logger):
    """Appends to an event file and to metrics.csv; what was logged after the checkpoint is removed first.

    Args:
        folder: the run's folder.
        state: what `state` returned at the checkpoint that the run resumes from; none for a run from the start.

    Raises:
        UserError: metrics.csv does not have the rows that it had at the checkpoint.
    """

    def __init__(self, folder: Path, state: dict[str, Any] | None = None):
        super().__init__()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.sha256 = hashlib.sha256(kept_rows(folder / METRICS, state) if state else HEADER)
        restore(folder, state["sizes"] if state else {})
        if not state:
            write_atomically(folder / METRICS, HEADER)
        self.writer = EventWriter(folder, purge_step=state["step"] + 1 if state else None)
        self.metrics = AppendedFile(folder / METRICS)

    @property
    def name(self) -> str:
        """Lightning asks for one."""
        return "warmstart"

    @property
    def version(self) -> str:
        """One run, one version."""
        return ""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write scalars at a step; Lightning's own epoch counter is left out."""
        rows = io.StringIO(newline="")
        lines = csv.writer(rows)
        for name, value in metrics.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, step)
                lines.writerow([step, name, repr(float(value))])
        content = rows.getvalue().encode()
        self.metrics.write(content)
        self.sha256.update(content)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are written once, at the end, by `conclude`."""

    def log_text(self, name: str, content: str) -> None:
        """A block of fixed-width text."""
        self.writer.add_text(name, "\n".join(f"    {line}" for line in content.splitlines()))

    def conclude(self, settings: dict[str, Any], results: dict[str, float], step: int) -> None:
        """The hparams row: settings beside best and last metrics, written once."""
        plain = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in settings.items()}
        for summary in hparams(plain, results):
            self.writer._get_file_writer().add_summary(summary)
        for name, value in results.items():
            self.writer.add_scalar(name, value, step)

    def state(self, step: int) -> dict[str, Any]:
        """Return what a checkpoint at this step must hold, once all that was logged is on the disk."""
        files = logged_files(self.folder)
        for path in [*files, self.folder]:
            sync(path)
        return {
            "step": step,
            "sizes": {path.name: path.stat().st_size for path in files},
            "sha256": self.sha256.hexdigest(),
        }

    def close(self) -> None:
        """Close both files."""
        self.metrics.close()
        self.writer.close()


def logged_files(folder: Path) -> list[Path]:
    """Return the files of a run that grow while it trains, as far as they exist."""
    paths = [folder / METRICS, folder / PROJECTOR, *sorted(folder.glob(EVENTS))]
    return [path for path in paths if path.exists()]


def kept_rows(path: Path, state: dict[str, Any]) -> bytes:
    """Return the part of metrics.csv that a checkpoint counts.

    Raises:
        UserError: it is not there, or not as it was.
    """
    content = path.read_bytes()[: state["sizes"][METRICS]] if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != state["sha256"]:
        reason = "was changed after the checkpoint was written" if path.is_file() else "is missing"
        raise UserError(f"{path} {reason}, so the run cannot resume: put the file back, or start the run again")
    return content


def restore(folder: Path, sizes: dict[str, int]) -> None:
    """Truncate what a run has logged to these sizes, by file name, and remove files that are not among them."""
    for path in logged_files(folder):
        size = sizes.get(path.name)
        if size is None:
            path.unlink()
        elif path.stat().st_size > size:
            write_atomically(path, path.read_bytes()[:size])
