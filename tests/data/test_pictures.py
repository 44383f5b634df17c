"""Decoding of images: bit depth, color, transparency, rotation, frames; and messages."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from warmstart.core.errors import UserError
from warmstart.data.readers.images import Picture, read_images
from warmstart.data.sources.image.image_folder import ImageFolder

pytestmark = pytest.mark.quick

GREY, COLOUR = (1, 4, 8), (3, 4, 8)


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png(pixels: np.ndarray, colour: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of 16 bits (H, W, C)."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels.reshape(len(pixels), -1))
    head = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 16, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    made = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(made)


def tiff12(value: int) -> bytes:
    """A grey TIFF file of 4 x 8 pixels with 12 bits each."""
    packed = bytes((value >> 4, (value & 15) << 4 | value >> 8, value & 255)) * 16
    tags = [(256, 8), (257, 4), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 4), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + packed


def read(content: bytes, shape: tuple[int, int, int] = GREY) -> np.ndarray:
    return read_images([Picture("it.png", content)], shape)[0]


RAMP = np.linspace(0, 65535, 32).round().astype(np.uint16).reshape(4, 8)
EXPECTED = np.rint(RAMP / 257).astype(np.uint8)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (encoded(Image.fromarray(RAMP)), EXPECTED),
        (encoded(Image.fromarray(RAMP), "tiff"), EXPECTED),
        (encoded(Image.fromarray(RAMP.astype(">u2")), "tiff"), EXPECTED),
        (encoded(Image.fromarray(RAMP), "tiff", tiffinfo={262: 0}), 255 - EXPECTED),
        (tiff12(0xABC), np.full((4, 8), round(0xABC / 4095 * 255))),
        (encoded(Image.fromarray(RAMP.astype(np.uint8))), RAMP.astype(np.uint8)),
    ],
    ids=["png", "tiff", "big-endian", "white-is-zero", "12-bits", "8-bits"],
)
def test_grey_is_scaled_by_the_depth_that_the_format_declares(content: bytes, expected: np.ndarray):
    assert np.array_equal(read(content)[0], expected)


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_deep_pictures_are_turned_as_their_metadata_says(kind: str):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    top = np.zeros((8, 4), np.uint16)
    top[0] = 65535
    found = read(encoded(Image.fromarray(top), kind, exif=exif))[0]
    assert found[:, -1].tolist() == [255] * 4
    assert not found[:, :-1].any()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (png(np.full((4, 8, 3), (51400, 12850, 0), np.uint16), 2), (200, 50, 0)),
        (png(np.full((4, 8, 2), (51400, 65535), np.uint16), 4), (200, 200, 200)),
        (png(np.full((4, 8, 1), 5000, np.uint16), 0, (b"tRNS", struct.pack(">H", 5000))), (255, 255, 255)),
        (png(np.full((4, 8, 3), 51400, np.uint16), 2, (b"tRNS", struct.pack(">HHH", *[51400] * 3))), (255, 255, 255)),
        (encoded(Image.new("CMYK", (8, 4), (0, 255, 255, 0)), "jpeg"), (254, 0, 0)),
        (encoded(Image.new("CMYK", (8, 4), (0, 255, 255, 0)), "tiff"), (255, 0, 0)),
        (encoded(Image.new("1", (8, 4), 1), "tiff"), (255, 255, 255)),
        (encoded(Image.new("LA", (8, 4), (80, 255))), (80, 80, 80)),
    ],
    ids=["rgb-16", "grey-alpha-16", "clear-grey-16", "clear-rgb-16", "cmyk-jpeg", "cmyk-tiff", "1-bit", "grey-alpha"],
)
def test_colours_of_every_mode_are_those_of_the_file(content: bytes, expected: tuple[int, ...]):
    assert np.abs(read(content, COLOUR)[:, 2, 4].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("kind", [np.int32, np.float32, np.int16])
def test_pixels_whose_range_is_not_declared_are_refused(kind: type):
    with pytest.raises(UserError, match=r"it\.png is not a readable image: .*save it with 8 or 16 bits"):
        read(encoded(Image.fromarray(np.full((4, 8), 300, kind)), "tiff"))


def test_little_of_the_range_is_warned_of(capsys: pytest.CaptureFixture):
    twelve = Image.fromarray((np.arange(32) * 100).astype(np.uint16).reshape(4, 8))
    contents = {
        "grey.png": encoded(twelve),
        "colour.png": png(np.full((4, 8, 3), 4095, np.uint16), 2),
        "full.png": encoded(Image.fromarray(RAMP)),
        "black.png": encoded(Image.fromarray(np.zeros((4, 8), np.uint16))),
    }
    read_images([Picture(name, content) for name, content in contents.items()], GREY)
    printed = capsys.readouterr().err
    assert "warning: 2 of 4 images have 16 bits but values in less than 1/8 of that range" in printed
    assert "grey.png, colour.png; if" in printed
    read_images([Picture("full.png", contents["full.png"])], GREY)
    read_images(
        [Picture("night.png", encoded(Image.new("L", (8, 4), 9))), Picture("day.png", contents["full.png"])], GREY
    )
    assert not capsys.readouterr().err
    read_images([Picture(f"{n}.png", encoded(Image.new("L", (8, 4), n))) for n in range(2)], GREY)
    assert "warning: no pixel of 2 images is above 1 of 255" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["gif", "tiff", "webp", "png"])
def test_the_first_of_several_frames_is_read_and_the_others_are_reported(kind: str, capsys: pytest.CaptureFixture):
    frames = [Image.new("L", (8, 4), level) for level in (60, 120, 240)]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    one = encoded(frames[1], kind)
    found = read_images([Picture("many", content), Picture("one", one)], GREY)
    assert np.abs(found[:, 0, 1, 1].astype(int) - (60, 120)).max() <= 1
    printed = capsys.readouterr().err
    assert "warning: 1 of 2 images have several frames, only the first is read: many" in printed


def test_the_cache_sees_a_file_of_the_same_size_and_time(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    for label in "ab":
        (tmp_path / "root" / label).mkdir(parents=True)
        for number in range(8):
            Image.new("L", (8, 8), number).save(tmp_path / "root" / label / f"{number}.bmp")
    source = ImageFolder(str(tmp_path / "root"), size=8, channels=1, memory_mb=0)

    def levels() -> list[int]:
        splits = source.load("category")
        return sorted(
            int(level) for rows in (splits.train, splits.validation, splits.test) for level in rows.x[:, 0, 0, 0]
        )

    assert levels() == sorted([*range(8)] * 2)
    assert "no pixel of 16 images is above 7" in capsys.readouterr().err
    path = tmp_path / "root" / "a" / "7.bmp"
    before = path.stat()
    Image.new("L", (8, 8), 250).save(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert levels() == sorted([*range(7), 250, *range(8)])
    Image.new("L", (8, 8), 7).save(path)
    capsys.readouterr()
    assert levels() == sorted([*range(8)] * 2)  # from the cache, which keeps what is to be reported
    assert "no pixel of 16 images is above 7" in capsys.readouterr().err
