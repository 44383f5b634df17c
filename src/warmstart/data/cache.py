"""What is made once from data and reused by every run: arrays and files in folders named by what they are made of."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import tokenizers

from warmstart.contracts import UserError

Read = TypeVar("Read")

FORMAT = 2  # to be raised when entries are made in another way


def folder() -> Path:
    """The environment variable WARMSTART_CACHE, or a folder in the user's cache."""
    return Path(os.environ.get("WARMSTART_CACHE") or Path.home() / ".cache" / "warmstart")


def key(*parts: bytes | str) -> str:
    """SHA-256 of the parts, in order, and of what else the entries depend on."""
    digest = hashlib.sha256(f"{FORMAT} {tokenizers.__version__}".encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def texts_digest(texts: Iterable[str]) -> bytes:
    """SHA-256 over every text and its length."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.digest()


def entry(kind: str, name: str, make: Callable[[Path], None], read: Callable[[Path], Read]) -> Read:
    """What `read` finds in the folder `kind/name` of the cache, which `make` fills where it is missing or damaged.

    Raises:
        UserError: the cache cannot be written.
    """
    try:
        final = _made(kind, name, make)
        try:
            return read(final)
        except Exception:  # of whatever library reads it
            aside = final.with_name(f".{name[:16]}-{os.getpid()}-damaged")
            with contextlib.suppress(FileNotFoundError):  # another process was first
                final.rename(aside)
            shutil.rmtree(aside, ignore_errors=True)
            return read(_made(kind, name, make))
    except OSError as error:
        raise UserError(
            f"WARMSTART_CACHE={folder()} cannot be written ({error.strerror or error}): give a folder that can"
        ) from error


def arrays(folder: Path, names: Iterable[str]) -> list[np.ndarray]:
    """Arrays of an entry, left on the disk."""
    return [np.load(folder / f"{name}.npy", mmap_mode="r") for name in names]


def _made(kind: str, name: str, make: Callable[[Path], None]) -> Path:
    """The folder of an entry; where it is not there yet, `make` fills a folder that then becomes it.

    Two processes may make the same one at a time; the first to finish wins, and nobody sees it half done.
    """
    final = folder() / kind / name
    if not final.is_dir():
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name[:16]}-", dir=final.parent))
        try:
            make(temporary)
            temporary.rename(final)
        except OSError:
            if not final.is_dir():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return final
