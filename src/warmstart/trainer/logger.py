"""Scalars to TensorBoard and to metrics.csv: the same names, the same steps."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams


class RunLogger(Logger):
    """Appends to the run's event file and metrics.csv; a resumed run drops what came after its checkpoint.

    Args:
        folder: the run's folder.
        resumed_step: the step of the checkpoint that a resumed run goes on from.
        resumed_rows: how many rows metrics.csv had at that checkpoint.
    """

    def __init__(self, folder: Path, resumed_step: int | None = None, resumed_rows: int = 0):
        super().__init__()
        self.writer = SummaryWriter(str(folder), purge_step=resumed_step, max_queue=1000)
        self.path = folder / "metrics.csv"
        self.count = resumed_rows
        if resumed_step is not None and self.path.exists():
            with open(self.path, newline="") as stream:
                kept = list(csv.reader(stream))[: 1 + resumed_rows]
            with open(self.path, "w", newline="") as stream:
                csv.writer(stream).writerows(kept)
        fresh = not self.path.exists()
        self.stream = open(self.path, "a", newline="")  # noqa: SIM115 - closed by finalize
        self.rows = csv.writer(self.stream)
        if fresh:
            self.rows.writerow(["step", "name", "value"])

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
        for name, value in metrics.items():
            if name != "epoch":
                self.writer.add_scalar(name, value, step)
                self.rows.writerow([step, name, repr(float(value))])
                self.count += 1

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are written once, at the end, by `conclude`."""

    def log_text(self, name: str, text: str) -> None:
        """A block of fixed-width text."""
        self.writer.add_text(name, "\n".join(f"    {line}" for line in text.splitlines()))

    def conclude(self, settings: dict[str, Any], results: dict[str, float], step: int) -> None:
        """The hparams row: settings beside best and last metrics, written once."""
        plain = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in settings.items()}
        for summary in hparams(plain, results):
            self.writer._get_file_writer().add_summary(summary)
        for name, value in results.items():
            self.writer.add_scalar(name, value, step)

    def save(self) -> None:
        """Flush both files."""
        self.stream.flush()

    def finalize(self, status: str) -> None:
        """Flush both files; `close` ends them."""
        self.stream.flush()
        self.writer.flush()

    def close(self) -> None:
        """End both files."""
        self.stream.close()
        self.writer.close()
