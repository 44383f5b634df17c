"""Audio files that are truncated or have no known length, and segments of recordings."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from warmstart.core.errors import UserError
from warmstart.data.readers.sounds import Piece, read_sounds

pytestmark = pytest.mark.quick

RATE = 8000
WAVE = (0.4 * np.sin(np.arange(4 * RATE) / 7) + 0.1 * np.sin(np.arange(4 * RATE) ** 1.3)).astype(np.float32)


def encoded(kind: str, wave: np.ndarray = WAVE, **options) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, wave, RATE, format=kind, **options)
    return stream.getvalue()


def patched(content: bytes, riff: int | None, data: int) -> bytes:
    """A WAV file with other lengths in its header."""
    riff = struct.unpack("<I", content[4:8])[0] if riff is None else riff
    return content[:4] + struct.pack("<I", riff) + content[8:40] + struct.pack("<I", data) + content[44:]


WAV = encoded("WAV")
FULL = soundfile.read(io.BytesIO(WAV), dtype="float32")[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (patched(WAV, None, 0), "its header gives the length 0"),
        (patched(WAV, 0, 0), "its header gives the length 0"),
        (patched(WAV, 36, 0), "its header gives the length 0"),
        (patched(WAV, 2**32 - 1, 2**32 - 1), "its header gives no length"),
        (patched(WAV, 2**31 - 1, 2**31 - 37), "its header gives no length"),
    ],
    ids=["data 0", "both 0", "only a header", "streamed", "signed"],
)
def test_a_wav_file_without_a_length_gives_all_its_samples(content: bytes, reason: str, capsys: pytest.CaptureFixture):
    found = read_sounds([content, WAV], ["talk.wav", "fine.wav"])
    assert np.array_equal(found.audio[0], FULL)
    assert np.array_equal(found.audio[1], FULL)
    printed = capsys.readouterr().err
    assert "warning: 1 of 2 sounds are incomplete and are read to their end" in printed
    assert f"talk.wav: {reason}" in printed
    assert "fine.wav" not in printed


@pytest.mark.parametrize(
    ("kind", "options", "least"),
    [
        ("WAV", {}, 15_900),
        ("AIFF", {}, 15_900),
        ("FLAC", {}, 12_000),
        ("OGG", {}, 4_000),
        ("OGG", {"subtype": "OPUS"}, 8_000),
        ("MP3", {}, 8_000),
    ],
    ids=["wav", "aiff", "flac", "ogg", "opus", "mp3"],
)
def test_half_a_file_gives_the_samples_that_are_there(kind: str, options: dict, least: int, capsys):
    content = encoded(kind, **options)
    full, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    found = read_sounds([content[: len(content) // 2]], ["half"]).audio[0]
    assert least <= len(found) < len(full)
    steady = len(found) - 2400  # what a transform codec decodes without what follows
    assert np.abs(found[:steady] - full[:steady]).max() < 1e-4
    assert "half: it" in capsys.readouterr().err
    read_sounds([content], ["complete"])
    assert not capsys.readouterr().err


def test_a_header_without_samples_is_refused():
    empty = WAV[:40] + bytes(4)
    tagged = empty + b"LIST" + struct.pack("<I", 4) + b"INFO"  # a chunk that is no sound
    for content in (empty, tagged):
        with pytest.raises(UserError, match="it is empty: it has no samples"):
            read_sounds([content], ["it"])
    for kind in ("FLAC", "OGG", "MP3"):
        with pytest.raises(UserError, match="it is not a readable sound: "):
            read_sounds([encoded(kind)[:150]], ["it"])


def test_a_stream_that_declares_no_number_of_samples_is_read(capsys: pytest.CaptureFixture):
    content = bytearray(encoded("FLAC"))
    content[21] &= 0xF0  # the total number of samples
    content[22:26] = bytes(4)
    full, _ = soundfile.read(io.BytesIO(encoded("FLAC")), dtype="float32")
    assert np.array_equal(read_sounds([bytes(content)], ["it"]).audio[0], full)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
def test_a_piece_is_what_a_slice_of_the_recording_is(kind: str):
    content = encoded(kind)
    full, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    pieces = [Piece(1.5, 0.75), Piece(3.25), Piece(0.0, 1.0), Piece(3.5, 0.55)]
    found = read_sounds([content] * 4, ["it"] * 4, pieces=pieces).audio
    for piece, wave in zip(pieces, found):
        start = round(piece.offset * RATE)
        stop = len(full) if piece.duration is None else round((piece.offset + piece.duration) * RATE)
        assert np.abs(wave - full[start:stop]).max() < 1e-6
        assert len(wave) == min(stop, len(full)) - start


@pytest.mark.parametrize(
    ("piece", "message"),
    [
        (Piece(4.0), "the offset of 4 s is beyond the end of the recording, 4.00 s"),
        (Piece(9.0, 1.0), "the offset of 9 s is beyond the end of the recording, 4.00 s"),
        (Piece(3.0, 1.2), "3 s and a duration of 1.2 s end after the recording, 4.00 s"),
        (Piece(0.0, 4000), "a duration of 4000 s end after the recording"),
    ],
    ids=str,
)
def test_a_piece_beyond_the_end_is_refused(piece: Piece, message: str):
    with pytest.raises(UserError, match=message):
        read_sounds([WAV], ["it"], pieces=[piece])
