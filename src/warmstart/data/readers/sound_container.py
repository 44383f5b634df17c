"""Check the lengths in the headers of sound files, which libsndfile trusts or ignores."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

UNKNOWN = 2**31 - 2**12  # bytes: programs write about 2**31 or 2**32 if they do not know the length
SHORT = "its header gives more bytes than the file has"
PAGE = 2**16  # bytes, more than the largest page of an Ogg file


def repair(sound: Path | bytes) -> tuple[str | io.BytesIO, str | None]:
    """Return a source to read a sound from, and why the file is incomplete, or None.

    The length 0 of the data of a WAV file, whose writer was interrupted, is replaced by the actual length.
    """
    source = io.BytesIO(sound) if isinstance(sound, bytes) else str(sound)
    with io.BytesIO(sound) if isinstance(sound, bytes) else sound.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        head = stream.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"WAVE":
            start, length = _data_chunk(stream, size)
            if not length and start < size and not _are_chunks(stream, start, size):
                stream.seek(0)
                return _with_length(stream.read(), start), "its header gives the length 0"
            declared = max(length, struct.unpack("<I", head[4:8])[0])
            if start + length > size:
                return source, "its header gives no length" if declared >= UNKNOWN else SHORT
        if head[:4] == b"FORM" and size < struct.unpack(">I", head[4:8])[0] + 8:
            return source, SHORT
        if head[:4] == b"OggS":
            stream.seek(max(0, size - PAGE))
            if not is_ended(stream.read()):
                stream.seek(0)
                return io.BytesIO(with_complete_pages(stream.read())), "its last page is missing"
    return source, None


def _with_length(content: bytes, start: int) -> io.BytesIO:
    """Return a WAV file with the actual length of the data, which starts at `start`."""
    fixed = bytearray(content)
    fixed[4:8] = struct.pack("<I", len(content) - 8)
    fixed[start - 4 : start] = struct.pack("<I", len(content) - start)
    return io.BytesIO(bytes(fixed))


def _data_chunk(stream: BinaryIO, size: int) -> tuple[int, int]:
    """Return the start of the data of a WAV file and its declared length; the end of the file if there is none."""
    found = ((start, length) for name, start, length in _chunks(stream, 12, size) if name == b"data")
    return next(found, (size, 0))


def _are_chunks(stream: BinaryIO, position: int, size: int) -> bool:
    """Return whether the rest of a file consists of chunks, such as tags after an empty data chunk."""
    for name, start, length in _chunks(stream, position, size):
        if not all(32 <= letter < 127 for letter in name):
            break
        position = start + length + length % 2
    return position in (size, size + 1)


def _chunks(stream: BinaryIO, position: int, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk from a position on, the start of its data and its declared length."""
    while position + 8 <= size:
        stream.seek(position)
        name, length = struct.unpack("<4sI", stream.read(8))
        yield name, position + 8, length
        position += 8 + length + length % 2


HEADER = 27  # bytes before the segment table
LAST = 4  # flag of the last page of a stream


def last_page(content: bytes) -> int | None:
    """Return the start of the last page, or None."""
    start = content.rfind(b"OggS")
    return None if start < 0 else start


def is_ended(content: bytes) -> bool:
    """Return whether the last page is complete and has the end-of-stream flag, from the end of a file."""
    start = last_page(content)
    if start is None or len(content) < start + HEADER:
        return False
    table = content[start + HEADER : start + HEADER + content[start + 26]]
    complete = len(table) == content[start + 26] and start + HEADER + len(table) + sum(table) <= len(content)
    return complete and bool(content[start + 5] & LAST)


def with_complete_pages(content: bytes) -> bytes:
    """Remove incomplete packets from the last page, or the complete page."""
    start = last_page(content)
    if start is None:
        return content
    if len(content) < start + HEADER:
        return content[:start]
    table = content[start + HEADER : start + HEADER + content[start + 26]]
    body = start + HEADER + content[start + 26]
    if len(table) == content[start + 26] and body + sum(table) <= len(content):
        return content
    kept, size, kept_size = 0, 0, 0
    for number, length in enumerate(table):
        size += length
        if body + size > len(content):
            break
        if length < 255:  # the end of a packet
            kept, kept_size = number + 1, size
    if not kept:
        return content[:start]
    page = bytearray(
        content[start : start + 22] + bytes(4) + bytes([kept]) + table[:kept] + content[body : body + kept_size]
    )
    page[22:26] = struct.pack("<I", checksum(page))
    return content[:start] + bytes(page)


def checksum(page: bytes | bytearray) -> int:
    """Return the CRC of a page whose CRC field is zero: polynomial 0x04c11db7, not reflected."""
    value = 0
    for byte in page:
        value = (value << 8 & 0xFFFFFFFF) ^ TABLE[value >> 24 ^ byte]
    return value


def _entry(value: int) -> int:
    value <<= 24
    for _ in range(8):
        value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value


TABLE = tuple(map(_entry, range(256)))
