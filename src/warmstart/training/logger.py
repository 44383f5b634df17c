"""Loggers: metrics.csv, and TensorBoard event files written without a thread, so that a full disk raises an error."""

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
    """An append-only, unbuffered file.

    Args:
        path: an existing or new file.
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
    """Replaces tensorboard's EventFileWriter, whose thread only prints the error of a full disk."""

    def __init__(self, folder: Path):
        self.folder = folder
        where = f"{socket.gethostname()}.{os.getpid()}.{next(_number):06d}"  # names sort by time
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
    """A SummaryWriter with an EventFile; it raises WriteError if the disk is full.

    Args:
        folder: output folder; the entries of its projector_config.pbtxt are kept.
        purge_step: events logged earlier at this step or later are hidden.
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
    """Logs scalars, hparams, and the output of `writer` to an event file.

    Args:
        save_dir: output folder.
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
        """Write the run's hyperparameters and the names of its metrics to the hparams table."""
        for summary in hparams(params, metrics):
            self.writer._get_file_writer().add_summary(summary)

    def finalize(self, status: str) -> None:
        """Close the file."""
        self.writer.close()


METRICS = "metrics.csv"
HEADER = b"step,name,value\r\n"


class RunLogger(Logger):
    """Logs to metrics.csv and to the chosen loggers; entries after the checkpoint are removed first.

    metrics.csv is part of the run's record: it is always written, since checkpoints, checksums and reports use it.

    Args:
        folder: the run's folder.
        chosen: nodes of the other loggers, by name.
        state: return value of `state` at the checkpoint to resume from; None for a new run.

    Raises:
        UserError: metrics.csv differs from that at the checkpoint, or a logger cannot be built.
    """

    name, version = "warmstart", ""  # required by Lightning

    def __init__(self, folder: Path, chosen: DictConfig, state: dict[str, Any] | None = None):
        super().__init__()
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.sha256 = hashlib.sha256(checkpointed_rows(folder / METRICS, state) if state else HEADER)
        restore(folder, state["sizes"] if state else {})
        if not state:
            write_atomically(folder / METRICS, HEADER)
        self.others = build_several(chosen, "logger", save_dir=folder, purge_step=state["step"] + 1 if state else None)
        for logger in self.others:
            if not Path(logger.log_dir or folder).resolve().is_relative_to(folder.resolve()):
                raise UserError(f"logger: {logger.log_dir} is outside the run's folder: give it another name")
        self.metrics = AppendedFile(folder / METRICS)

    @property
    def writer(self) -> SummaryWriter | None:
        """Return the SummaryWriter of TensorBoard; None if that is not chosen."""
        return next((logger.writer for logger in self.others if isinstance(logger, TensorBoard)), None)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Write scalars at a step, except Lightning's epoch counter."""
        metrics = {name: float(value) for name, value in metrics.items() if name != "epoch"}
        self.log_unreproducible(metrics, step)
        rows = io.StringIO(newline="")
        csv.writer(rows).writerows([step, name, repr(value)] for name, value in metrics.items())
        content = rows.getvalue().encode()
        self.metrics.write(content)
        self.sha256.update(content)

    def log_unreproducible(self, metrics: dict[str, float], step: int | None) -> None:
        """Write scalars that a rerun would not reproduce to the chosen loggers, not to metrics.csv."""
        for logger in self.others if metrics else ():
            logger.log_metrics(metrics, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Do nothing: `conclude` writes the hyperparameters."""

    def log_text(self, name: str, content: str) -> None:
        """Write a block of fixed-width text to TensorBoard."""
        if self.writer is not None:
            self.writer.add_text(name, "\n".join(f"    {line}" for line in content.splitlines()))

    def conclude(self, settings: dict[str, Any], results: dict[str, float], step: int) -> None:
        """Write the hyperparameters and the best and last metrics, once."""
        plain = {key: value if isinstance(value, (bool, int, float)) else str(value) for key, value in settings.items()}
        for logger in self.others:
            logger.log_hyperparams(plain, *([results] if isinstance(logger, TensorBoard) else []))
        self.log_unreproducible(results, step)

    def state(self, step: int) -> dict[str, Any]:
        """Return the state for a checkpoint at this step, after all files are synced to the disk."""
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
        """Save the buffers of the chosen loggers."""
        for logger in self.others:
            logger.save()

    def close(self, status: str = "success") -> None:
        """Close all files.

        Args:
            status: success or failed.
        """
        self.metrics.close()
        for logger in self.others:
            logger.finalize(status)
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()  # otherwise the next run of this process would log to this one


def logged_files(folder: Path) -> list[Path]:
    """Return the existing files of a run to which logs are appended."""
    paths = [folder / METRICS, folder / PROJECTOR, *sorted(folder.glob(EVENTS))]
    return [path for path in paths if path.exists()]


def checkpointed_rows(path: Path, state: dict[str, Any]) -> bytes:
    """Return the part of metrics.csv that was written before the checkpoint.

    Raises:
        UserError: it is missing or was changed.
    """
    content = path.read_bytes()[: state["sizes"][METRICS]] if path.is_file() else b""
    if hashlib.sha256(content).hexdigest() != state["sha256"]:
        reason = "was changed after the checkpoint was written" if path.is_file() else "is missing"
        raise UserError(f"{path} {reason}, so the run cannot resume: put the file back, or start the run again")
    return content


def restore(folder: Path, sizes: dict[str, int]) -> None:
    """Truncate the log files of a run to these sizes, by file name, and remove other log files."""
    for path in logged_files(folder):
        size = sizes.get(path.name)
        if size is None:
            path.unlink()
        elif path.stat().st_size > size:
            write_atomically(path, path.read_bytes()[:size])
