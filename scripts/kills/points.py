"""Number the changes of files by a process, and send it a signal at one of them."""

from __future__ import annotations

import builtins
import functools
import io
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from warmstart.run import files
from warmstart.run.log import LogFile
from warmstart.training.logger import AppendedFile


class Points:
    """Counts changes of files below a folder, in this process from now on.

    Every atomic write has four points: before it, with half of its bytes in the temporary, before and after the rename.
    Appending, opening, making, removing and truncating have one each.

    Args:
        folder: where changes count.
        trace: a file that gets a line for every point, as far as the process comes.
        chosen: the number of the point at which to send the signal; None for never.
        number: the signal.
    """

    def __init__(self, folder: Path, trace: Path, chosen: int | None, number: signal.Signals):
        self.folder, self.chosen, self.number, self.count = str(folder), chosen, number, 0
        self.trace = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.is_open = True

    def install(self) -> None:
        """Replace the functions that change files by ones that count."""
        for name in ("replace", "rename"):
            setattr(os, name, self._renaming(getattr(os, name)))
        for name in ("mkdir", "unlink", "remove", "rmdir", "truncate"):
            setattr(os, name, self._after(getattr(os, name), name))
        builtins.open = io.open = self._opening(builtins.open)
        files.temporary_path = self._before(files.temporary_path)
        files.sync = self._half_written(files.sync)
        AppendedFile.write = self._half_appended(AppendedFile.write)
        LogFile.emit = self._half_logged(LogFile.emit)

    def reach(self, what: str, path: Any, damage: Callable[[], None] | None = None) -> None:
        """Count a point; at the chosen one, leave the file as a crash would, and send the signal."""
        if not self.is_open or not isinstance(path, (str, os.PathLike)):
            return
        path = os.path.abspath(path)
        if not path.startswith(self.folder + os.sep):
            return
        self.count += 1
        is_chosen = self.count == self.chosen
        line = f"{self.count} {what} {path[len(self.folder) + 1 :]}"
        os.write(self.trace, f"{line}{' KILL' if is_chosen else ''}\n".encode())
        if is_chosen:
            if damage is not None and self.number == signal.SIGKILL:
                self.is_open = False
                damage()
            os.kill(os.getpid(), self.number)

    def _renaming(self, original: Callable) -> Callable:
        @functools.wraps(original)
        def call(source: Any, target: Any, **more: Any) -> Any:
            self.reach("before rename", target)
            result = original(source, target, **more)
            self.reach("after rename", target)
            return result

        return call

    def _after(self, original: Callable, name: str) -> Callable:
        @functools.wraps(original)
        def call(path: Any, *args: Any, dir_fd: int | None = None, **more: Any) -> Any:
            if dir_fd is not None:
                more["dir_fd"] = dir_fd
            result = original(path, *args, **more)
            target = path
            if isinstance(path, int):
                target = os.readlink(f"/proc/self/fd/{path}")
            elif dir_fd is not None:
                target = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
            self.reach(f"after {name}", target)
            return result

        return call

    def _opening(self, original: Callable) -> Callable:
        @functools.wraps(original)
        def call(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            stream = original(path, mode, *args, **more)
            if set(mode) & set("wax+"):
                self.reach("opened", path)
            return stream

        return call

    def _before(self, original: Callable[[Path], Path]) -> Callable[[Path], Path]:
        @functools.wraps(original)
        def call(path: Path) -> Path:
            self.reach("before", path)
            return original(path)

        return call

    def _half_written(self, original: Callable[[Path], None]) -> Callable[[Path], None]:
        @functools.wraps(original)
        def call(path: Path) -> None:
            if ".tmp" in str(path) and path.is_file():
                self.reach("half of", path, lambda: os.truncate(path, path.stat().st_size // 2))
            original(path)

        return call

    def _half_appended(self, original: Callable) -> Callable:
        @functools.wraps(original)
        def call(file: AppendedFile, data: bytes) -> None:
            original(file, data[: len(data) // 2])
            self.reach("half appended", file.path)
            original(file, data[len(data) // 2 :])

        return call

    def _half_logged(self, original: Callable) -> Callable:
        @functools.wraps(original)
        def call(handler: LogFile, record: logging.LogRecord) -> None:
            def half() -> None:
                line = handler.format(record)
                handler.stream.write(line[: len(line) // 2])
                handler.flush()

            self.reach("half logged", handler.baseFilename, half)
            original(handler, record)

        return call
