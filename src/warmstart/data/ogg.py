"""Ogg files that end within a page (RFC 3533): libsndfile reads complete pages alone."""

from __future__ import annotations

import struct

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
