"""TensorBoard's event files, written without its thread: a full disk is an error of the run."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from pytorch_lightning.loggers.logger import Logger
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import FileWriter

from warmstart.run.files import writing

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
