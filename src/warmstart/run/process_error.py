"""The error of a process, in a file that the process which started it reads."""

from __future__ import annotations

import contextlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from warmstart.core.errors import UserError, WriteError, interrupt_of

USER, WRITE, OTHER = "user", "write", "other"  # kinds of errors


@contextlib.contextmanager
def noting(folder: Path) -> Iterator[None]:
    """Write an error of this process to a file in the folder; an interrupt is none."""
    try:
        yield
    except BaseException as error:
        if interrupt_of(error) is None:
            kind = USER if isinstance(error, UserError) else WRITE if isinstance(error, WriteError) else OTHER
            message = {USER: str(error), WRITE: getattr(error, "reason", "")}.get(kind, traceback.format_exc())
            entry = {"process": int(os.environ["RANK"]), "time": time.time(), "kind": kind, "message": message}
            where = {"path": str(error.path)} if isinstance(error, WriteError) else {}
            (folder / f"{os.environ['RANK']}.json").write_text(json.dumps({**entry, **where}))
        raise
