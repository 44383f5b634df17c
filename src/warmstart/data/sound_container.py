"""What the containers of sounds say of their own length, which libsndfile trusts or ignores."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO

from warmstart.data import ogg

UNKNOWN = 2**31 - 2**12  # bytes: what programs write that do not know a length is about 2**31 or 2**32
SHORT = "its header promises more bytes than there are"
PAGE = 2**16  # bytes, more than a page of an Ogg file has


def checked(sound: Path | bytes) -> tuple[str | io.BytesIO, str | None]:
    """What to read a sound from, and in what way the file is incomplete, or None.

    A WAV file whose data has the length 0, since its writer never came to an end, gets the length that there is.
    """
    whole = io.BytesIO(sound) if isinstance(sound, bytes) else str(sound)
    with io.BytesIO(sound) if isinstance(sound, bytes) else sound.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        head = stream.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            start, length = _data_chunk(stream, size)
            if not length and start < size and not _are_chunks(stream, start, size):
                stream.seek(0)
                return _with_length(stream.read(), start), "its header gives the length 0"
            promised = max(length, struct.unpack("<I", head[4:8])[0])
            if start + length > size:
                return whole, "its header gives no length" if promised >= UNKNOWN else SHORT
        if head[:4] == b"FORM" and size < struct.unpack(">I", head[4:8])[0] + 8:
            return whole, SHORT
        if head[:4] == b"OggS":
            stream.seek(max(0, size - PAGE))
            if not ogg.is_ended(stream.read()):
                stream.seek(0)
                return io.BytesIO(ogg.with_complete_pages(stream.read())), "its last page is missing"
    return whole, None


def _with_length(content: bytes, start: int) -> io.BytesIO:
    """A WAV file whose data, which begins at `start`, has the length that there is."""
    fixed = bytearray(content)
    fixed[4:8] = struct.pack("<I", len(content) - 8)
    fixed[start - 4 : start] = struct.pack("<I", len(content) - start)
    return io.BytesIO(bytes(fixed))


def _data_chunk(stream: BinaryIO, size: int) -> tuple[int, int]:
    """Where the samples of a WAV file begin, and the length that they are given; the end of the file, if nowhere."""
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        name, length = struct.unpack("<4sI", stream.read(8))
        if name == b"data":
            return position + 8, length
        position += 8 + length + length % 2
    return size, 0


def _are_chunks(stream: BinaryIO, position: int, size: int) -> bool:
    """Whether chunks fill the rest of a file, such as tags behind an empty one."""
    while position + 8 <= size:
        stream.seek(position)
        name, length = struct.unpack("<4sI", stream.read(8))
        if not all(32 <= letter < 127 for letter in name):
            break
        position += 8 + length + length % 2
    return position in (size, size + 1)
