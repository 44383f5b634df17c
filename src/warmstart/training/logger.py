"""TensorBoard's event files, written without its thread: a full disk is an error of the run."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from omegaconf import DictConfig
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.loggers.logger import Logger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import FileWriter

from warmstart.core.errors import UserError
from warmstart.run.files import sync, write_atomically, writing
from warmstart.training.components import build_several

PROJECTOR = "projector_config.pbtxt"
EVENTS = "events.out.tfevents.*"

_number = itertools.count()


class AppendedFile:
    """A file that only grows; each write reaches the operating system at once.

    Args:
        path: where it is, or will be.
    """

    def __init__(self, path: Path):
        self.path = path
        with writing(path):
            self.stream = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close

    def write(self, data: bytes) -> None:
        """Append all of `data`, or raise WriteError."""
        with writing(self.path):
            while data:
                data = data[self.stream.write(data) :]

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def close(self) -> None:
        """Close the file."""
        self.stream.close()


class EventFile:
    """What tensorboard's EventFileWriter does, without its thread, which prints the error of a full disk."""

    def __init__(self, folder: Path):
        self.folder = folder
        where = f"{socket.gethostname()}.{os.getpid()}.{next(_number)}"
        self.file = AppendedFile(folder / f"{EVENTS[:-1]}{int(time.time()):010d}.{where}")
        self.records = RecordWriter(self.file)

    def get_logdir(self) -> str:
        """Return its folder."""
        return str(self.folder)

    def add_event(self, event: Any) -> None:
        """Append an event."""
        self.records.write(event.SerializeToString())

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class EventWriter(SummaryWriter):
    """A SummaryWriter on such a file; a full disk raises WriteError also where it writes files of its own.

    Args:
        folder: where to write; what its projector_config.pbtxt lists stays listed.
        purge_step: from which on earlier events are not shown.
    """

    def __init__(self, folder: Path, purge_step: int | None = None):
        self._projector_config = ProjectorConfig()
        if (folder / PROJECTOR).exists():
            with contextlib.suppress(text_format.ParseError):
                text_format.Parse((folder / PROJECTOR).read_text(), self._projector_config)
        super().__init__(str(folder), purge_step=purge_step)

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = FileWriter.__new__(FileWriter)
            self.file_writer.event_writer = EventFile(Path(self.log_dir))
            self.file_writer.add_event(Event(file_version="brain.Event:2"))
            self.all_writers = {self.log_dir: self.file_writer}
            if self.purge_step is not None:
                self.file_writer.add_event(Event(step=self.purge_step, session_log=SessionLog(status=SessionLog.START)))
        return self.file_writer

    def add_embedding(self, *args: Any, **kwargs: Any) -> None:
        """Write files for the projector."""
        with writing(Path(self.log_dir) / PROJECTOR):
            super().add_embedding(*args, **kwargs)


class TensorBoard(Logger):
    """Scalars, the table of hparams, and what `writer` writes, in an event file.

    Args:
        save_dir: where to write.
        purge_step: see EventWriter.
    """

    name, version = "tensorboard", ""

    def __init__(self, save_dir: Path, purge_step: int | None = None):
        super().__init__()
        self.writer = EventWriter(save_dir, purge_step)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write scalars at a step."""
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def log_hyperparams(self, params: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the run's row in the table of hparams: settings beside the names of metrics."""
        for summary in hparams(params, metrics):
            self.writer._get_file_writer().add_summary(summary)

    def finalize(self, status: str) -> None:
        """Close the file."""
        self.writer.close()


METRICS = "metrics.csv"
HEADER = b"step,name,value\r\n"


class RunLogger(Logger):
    """Appends to metrics.csv and to other loggers; what was logged after the checkpoint is removed first.

    metrics.csv belongs to the run's record: it is written whatever is chosen, since checkpoints, checksums and reports
    read it.

    Args:
        folder: the run's folder.
        chosen: nodes of the other loggers, by name.
        state: what `state` returned at the checkpoint that the run resumes from; none for a run from the start.

    Raises:
        UserError: metrics.csv does not have the rows that it had at the checkpoint, or a logger cannot be built.
    """

    name, version = "warmstart", ""  # Lightning asks for both

    def __init__(self, folder: Path, chosen: DictConfig, state: dict[str, Any] | None = None):
        super().__init__()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.sha256 = hashlib.sha256(kept_rows(folder / METRICS, state) if state else HEADER)
        restore(folder, state["sizes"] if state else {})
        if not state:
            write_atomically(folder / METRICS, HEADER)
        self.others = build_several(chosen, "logger", save_dir=folder, purge_step=state["step"] + 1 if state else None)
        for logger in self.others:
            if not Path(logger.log_dir or folder).resolve().is_relative_to(folder.resolve()):
                raise UserError(f"logger: {logger.log_dir} is outside of the run's folder: give it another name")
        self.metrics = AppendedFile(folder / METRICS)

    @property
    def writer(self) -> SummaryWriter | None:
        """Return what writes more than scalars; None where TensorBoard is not chosen."""
        return next((logger.writer for logger in self.others if isinstance(logger, TensorBoard)), None)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write scalars at a step; Lightning's own epoch counter is left out."""
        metrics = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        self.log_beside(metrics, step)
        rows = io.StringIO(newline="")
        csv.writer(rows).writerows([step, name, repr(value)] for name, value in metrics.items())
        content = rows.getvalue().encode()
        self.metrics.write(content)
        self.sha256.update(content)

    def log_beside(self, metrics: dict[str, float], step: int | None) -> None:
        """Write scalars that a rerun would not reproduce: to the other loggers, not to metrics.csv."""
        for logger in self.others if metrics else ():
            logger.log_metrics(metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: they are written once, at the end, by `conclude`."""

    def log_text(self, name: str, content: str) -> None:
        """A block of fixed-width text, in TensorBoard."""
        if self.writer is not None:
            self.writer.add_text(name, "\n".join(f"    {line}" for line in content.splitlines()))

    def conclude(self, settings: dict[str, Any], results: dict[str, float], step: int) -> None:
        """The hyperparameters and, beside them, best and last metrics, written once."""
        plain = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in settings.items()}
        for logger in self.others:
            logger.log_hyperparams(plain, *([results] if isinstance(logger, TensorBoard) else []))
        self.log_beside(results, step)

    def state(self, step: int) -> dict[str, Any]:
        """Return what a checkpoint at this step must hold, once all that was logged is on the disk."""
        self.save()
        files = logged_files(self.folder)
        for path in [*files, self.folder]:
            sync(path)
        return {
            "step": step,
            "sizes": {path.name: path.stat().st_size for path in files},
            "sha256": self.sha256.hexdigest(),
        }

    def save(self) -> None:
        """Have the other loggers write what they hold."""
        for logger in self.others:
            logger.save()

    def close(self, status: str = "success") -> None:
        """Close all files.

        Args:
            status: how the run ended: success or failed.
        """
        self.metrics.close()
        for logger in self.others:
            logger.finalize(status)
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()  # else the next run of this process would be logged as this one


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
