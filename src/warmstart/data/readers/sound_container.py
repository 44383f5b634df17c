"""What the containers of sounds say of their own length, which libsndfile trusts or ignores."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO

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
            if not is_ended(stream.read()):
                stream.seek(0)
                return io.BytesIO(with_complete_pages(stream.read())), "its last page is missing"
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


HEADER = 27  # bytes before the table of segments
LAST = 4  # the flag of a stream's last page


def last_page(content: bytes) -> int | None:
    """Where the last page begins; None where there is none."""
    start = content.rfind(b"OggS")
    return None if start < 0 else start


def is_ended(content: bytes) -> bool:
    """Whether the last page is complete and marked as the last; the end of a file is enough."""
    start = last_page(content)
    if start is None or len(content) < start + HEADER:
        return False
    table = content[start + HEADER : start + HEADER + content[start + 26]]
    complete = len(table) == content[start + 26] and start + HEADER + len(table) + sum(table) <= len(content)
    return complete and bool(content[start + 5] & LAST)


def with_complete_pages(content: bytes) -> bytes:
    """The file with its last page shortened to the packets that are complete, or without it."""
    start = last_page(content)
    if start is None:
        return content
    if len(content) < start + HEADER:
        return content[:start]
    table = content[start + HEADER : start + HEADER + content[start + 26]]
    body = start + HEADER + content[start + 26]
    if len(table) == content[start + 26] and body + sum(table) <= len(content):
        return content
    kept, size, there = 0, 0, 0
    for number, length in enumerate(table):
        size += length
        if body + size > len(content):
            break
        if length < 255:  # the end of a packet
            kept, there = number + 1, size
    if not kept:
        return content[:start]
    page = bytearray(
        content[start : start + 22] + bytes(4) + bytes([kept]) + table[:kept] + content[body : body + there]
    )
    page[22:26] = struct.pack("<I", checksum(page))
    return content[:start] + bytes(page)


def checksum(page: bytes | bytearray) -> int:
    """The CRC of a page whose own field is zero: polynomial 0x04c11db7, not reflected."""
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
