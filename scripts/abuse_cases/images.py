"""Images: one image in many formats, damaged files, and tables of paths."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scripts.abuse_cases.case import Case, Check, Seen, check, count, every, labels, says, silent, twin
from scripts.abuse_cases.written import csv, zipped

SMALL = ("visualization=[]", "data.size=12", "backbone.widths=[8,8,8,8]", "data/augment=none")
FOLDER = (
    "stage=finetune",
    "experiment=images",
    "init=scratch",
    "visualization=[]",
    "data.size=12",
    "backbone.widths=[8,8,8,8]",
)
TABLE = (*FOLDER, "data=image_table", "data.image=file")
SIDE = 12


def pixels(seed: int, channels: int = 3) -> np.ndarray:
    """Pixels (12, 12, C), uint8."""
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, channels), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image.squeeze())).save(file, form, **options)
    return file.getvalue()


def photos(
    form: str = "PNG", ending: str = "png", classes: tuple[str, ...] = ("cat", "dog"), each: int = 8
) -> dict[str, bytes]:
    """A folder per class."""
    return {
        f"{name}/{i:02}.{ending}": encoded(pixels(100 * k + i), form)
        for k, name in enumerate(classes)
        for i in range(each)
    }


def folder(
    name: str, files: Any, *words: str, right: Check | None = None, refused: tuple[str, ...] | None = None
) -> Case:
    """A folder per class, loaded."""
    files = {f"p/{path}": content for path, content in files.items()} if isinstance(files, dict) else files
    return Case("images", name, files, (*FOLDER, "data.root={folder}/p", *words), right, refused)


CLEAN = folder("clean", photos(), right=every(count(16), labels("cat", "dog")))
SAME = twin(CLEAN)


def holds_picture(expected: np.ndarray, tolerance: int = 0) -> Check:
    """One of the images is this (12, 12, C)."""

    @check("the picture's pixels")
    def holds(seen: Seen, other: Any) -> str | None:
        images = np.concatenate(
            [part.x for part in (seen.splits.train, seen.splits.validation, seen.splits.test)]
        ).astype(int)
        wanted = np.broadcast_to(expected, (SIDE, SIDE, images.shape[1])).transpose(2, 0, 1).astype(int)
        worst = np.abs(images - wanted).reshape(len(images), -1).max(1).min()
        return None if worst <= tolerance else f"the nearest image differs by {worst} of 255 in a pixel"

    return holds


def cases() -> list[Case]:
    """All of them."""
    return [CLEAN, *forms(), *damaged(), *layout(), *tables()]


def forms() -> list[Case]:
    """Formats and pixel types."""

    def one(
        name: str, content: bytes, expected: np.ndarray, tolerance: int = 0, ending: str = "png", **outcome: Any
    ) -> Case:
        right = every(count(17), holds_picture(expected, tolerance))
        return folder(name, {**photos(), f"cat/x.{ending}": content}, right=right, **outcome)

    rgb, grey = pixels(7), pixels(8, 1)
    alpha = np.concatenate(
        [rgb, np.where(np.arange(SIDE) < 6, 0, 255).astype(np.uint8)[None, :, None].repeat(SIDE, 0)], 2
    )
    on_white = np.where(np.arange(SIDE)[None, :, None] < 6, 255, rgb)
    deep = (grey.astype(np.uint16) * 257).squeeze()
    rotated = Image.Exif()
    rotated[0x0112] = 6
    palette = Image.fromarray(rgb).quantize(16)
    two = [Image.fromarray(rgb).quantize(256), Image.fromarray(pixels(9)).quantize(256)]
    first = np.asarray(two[0].convert("RGB"))
    bits = (grey > 127).squeeze()
    smooth = np.linspace(0, 255, SIDE, dtype=np.uint8)[None, :, None].repeat(SIDE, 0).repeat(3, 2)
    dark = (np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * 6).astype(np.uint16)
    mapped = encoded(Image.fromarray(rgb).quantize(8), transparency=0)
    return [
        *(
            folder(f"all as {form} in .{ending}", photos(form, ending), right=SAME)
            for form, ending in (("BMP", "bmp"), ("TIFF", "tif"), ("TIFF", "TIFF"))
        ),
        folder(
            "all as WebP without loss",
            {
                k.replace("png", "webp"): encoded(np.asarray(Image.open(io.BytesIO(v))), "WEBP", lossless=True)
                for k, v in photos().items()
            },
            right=SAME,
        ),
        folder("endings in upper case", {k.replace("png", "PNG"): v for k, v in photos().items()}, right=SAME),
        folder("BMP called .png", {k.replace("bmp", "png"): v for k, v in photos("BMP", "bmp").items()}, right=SAME),
        one("grey", encoded(grey), grey),
        one(
            "grey with transparency",
            encoded(Image.fromarray(np.concatenate([grey, alpha[:, :, 3:]], 2), "LA")),
            np.where(np.arange(SIDE)[None, :, None] < 6, 255, grey),
        ),
        one("transparent is white", encoded(alpha), on_white),
        one("palette", encoded(palette), np.asarray(palette.convert("RGB"))),
        one("palette with a transparent colour", mapped, composed(mapped)),
        one("one bit", encoded(Image.fromarray(bits)), bits[:, :, None] * 255),
        one("16 bits of grey", encoded(deep), grey),
        one("16 bits of grey, TIFF", encoded(deep, "TIFF"), grey, ending="tif"),
        one("16 bits of grey, big-endian TIFF", big_endian(deep), grey, ending="tif"),
        one("16 bits of colour", deep_colour(rgb), rgb, 1),
        folder(
            "16 bits, few used", {**photos(), "cat/x.png": encoded(dark)}, right=says("x.png", "range|small|dark|16")
        ),
        folder("16 bits, all used", {**photos(), "cat/x.png": encoded(deep)}, right=silent("x.png")),
        folder(
            "32-bit integers",
            {**photos(), "cat/x.tif": encoded(Image.fromarray(deep.astype(np.int32)), "TIFF")},
            right=count(17),
            refused=("x.tif",),
        ),
        folder(
            "32-bit integers beyond 16 bits",
            {**photos(), "cat/x.tif": encoded(Image.fromarray(deep.astype(np.int32) * 1000), "TIFF")},
            refused=("x.tif",),
            right=says("x.tif"),
        ),
        folder(
            "floating-point pixels",
            {**photos(), "cat/x.tif": encoded(Image.fromarray(deep.astype(np.float32)), "TIFF")},
            refused=("x.tif", "float"),
        ),
        one(
            "turned by EXIF",
            encoded(smooth, "JPEG", quality=98, subsampling=0, exif=rotated),
            np.rot90(smooth, -1),
            8,
            "jpg",
        ),
        one("CMYK", encoded(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=98), smooth, 12, "jpg"),
        one("GIF of two frames", frames(two), first, ending="gif"),
        one("JPEG", encoded(smooth, "JPEG", quality=98), smooth, 8, "jpeg"),
        one("progressive JPEG", encoded(smooth, "JPEG", quality=98, progressive=True), smooth, 8, "jpg"),
        folder("grey asked for", photos(), "data.channels=1", right=count(16)),
        folder(
            "other sizes",
            {**photos(), "cat/x.png": encoded(np.full((500, 3, 3), 77, np.uint8))},
            right=holds_picture(np.full((1, 1, 1), 77)),
        ),
        folder(
            "two pixels a side",
            {**photos(), "cat/x.png": encoded(np.full((2, 2, 3), 77, np.uint8))},
            right=holds_picture(np.full((1, 1, 1), 77)),
        ),
    ]


def composed(content: bytes) -> np.ndarray:
    """An image with transparency over white, by Pillow."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def frames(images: list[Image.Image]) -> bytes:
    """An animation."""
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:])
    return file.getvalue()


def big_endian(values: np.ndarray) -> bytes:
    """A TIFF of 16-bit values, the high byte first."""
    image = Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes())
    return encoded(image, "TIFF")


def deep_colour(rgb: np.ndarray) -> bytes:
    """A PNG of three channels of 16 bits."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    lines = b"".join(b"\0" + (line.astype(np.uint16) * 257).astype(">u2").tobytes() for line in rgb)
    header = struct.pack(">IIBBBBB", rgb.shape[1], rgb.shape[0], 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def damaged() -> list[Case]:
    """Files that are no images, or not complete ones: refused by name, or skipped and listed."""
    complete = encoded(pixels(1), "JPEG")
    big = encoded(np.zeros((64, 64, 3), np.uint8) + 9)
    huge = bytearray(encoded(pixels(1)))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    bad = {
        "half a JPEG": ("x.jpg", complete[: len(complete) // 2]),
        "half a PNG": ("x.png", encoded(pixels(1))[:120]),
        "an empty file": ("x.png", b""),
        "text called .png": ("x.png", b"not an image\n"),
        "a web page called .jpg": ("x.jpg", b"<!DOCTYPE html><html></html>"),
        "a wrong check sum": ("x.png", big[:40] + bytes([big[40] ^ 255]) + big[41:]),
        "60,000 pixels a side": ("x.png", bytes(huge)),
        "one pixel": ("x.png", encoded(np.zeros((1, 1, 3), np.uint8))),
        "a PDF called .png": ("x.png", b"%PDF-1.4\n"),
    }
    found = []
    for name, (file, content) in bad.items():
        files = {**photos(), f"cat/{file}": content}
        found.append(folder(name, files, refused=(file,)))
        found.append(
            folder(f"{name}, skipped", files, "data.on_error=skip", right=every(count(16), says("1 of 17", file)))
        )
    all_cats = {k: b"" if k.startswith("cat") else v for k, v in photos().items()}
    return [
        *found,
        folder("every cat broken, skipped", all_cats, "data.on_error=skip", refused=("cat",)),
        folder("all broken, skipped", dict.fromkeys(photos(), b""), "data.on_error=skip", refused=("image",)),
        folder("a wrong value of on_error", photos(), "data.on_error=ignore", refused=("on_error",)),
    ]


def layout() -> list[Case]:
    """What stands in the folders."""

    def linked_in(path: Path) -> None:
        write(path, photos())
        (path / "p/cat/07.png").rename(path / "p/dog_too.png")
        (path / "p/cat/07.png").symlink_to("../dog_too.png")

    def linked_folder(path: Path) -> None:
        write(path, photos())
        (path / "p/dog").rename(path / "p/.dogs")
        (path / "p/dog").symlink_to(".dogs")

    def linked_out(path: Path) -> None:
        write(path, photos())
        (path / "elsewhere").mkdir()
        (path / "p/cat/07.png").rename(path / "elsewhere/07.png")
        (path / "p/cat/07.png").symlink_to("../../elsewhere/07.png")

    def folder_out(path: Path) -> None:
        write(path, photos())
        write(path, photos(classes=("fox",)), "elsewhere")
        (path / "p/fox").symlink_to("../elsewhere/fox")

    def linked_nowhere(path: Path) -> None:
        write(path, photos())
        (path / "p/cat/x.png").symlink_to("nothing.png")

    def in_a_circle(path: Path) -> None:
        write(path, photos())
        (path / "p/cat/again").symlink_to("..")

    junk = {
        "cat/.DS_Store": b"\0",
        "cat/._01.png": b"\0\5",
        "cat/Thumbs.db": b"\xd0\xcf",
        "desktop.ini": b"[x]",
        "cat/note.txt": b"hi",
    }
    deep = {k.replace("/", "/2020/june/", 1): v for k, v in photos().items()}
    return [
        folder("hidden and system files", {**photos(), **junk}, right=SAME),
        folder("folders in class folders", deep, right=SAME),
        folder(
            "pictures called heic",
            {**photos(), "cat/x.heic": b"\0\0\0\x18ftypheic", "dog/y.HEIC": b"\0\0\0\x18ftypheic"},
            right=every(count(16), says(r"\b2\b", "heic")),
        ),
        folder(
            "pictures called avif and raw",
            {**photos(), "cat/x.avif": b"\0", "cat/y.cr2": b"\0"},
            right=every(count(16), says("avif", "cr2")),
        ),
        folder(
            "pictures beside the class folders",
            {**photos(), "stray.png": encoded(pixels(1))},
            right=every(count(16), says("stray.png|1 ")),
            refused=("stray.png",),
        ),
        folder(
            "an empty class folder",
            lambda path: (write(path, photos()), (path / "p/empty").mkdir()),
            right=every(count(16), says("empty")),
            refused=("empty",),
        ),
        folder("one class", photos(classes=("cat",)), refused=("two or more", "cat")),
        folder(
            "no class folders", {k.replace("/", "_"): v for k, v in photos().items()}, refused=("per class", "none")
        ),
        folder(
            "a class of three pictures", {**photos(), **photos(classes=("fox",), each=3)}, refused=("class fox", "3")
        ),
        *(
            folder(f"classes {' and '.join(names)}", photos(classes=names), right=every(labels(*names), count(16)))
            for names in (
                ("01", "1"),
                ("None", "NA"),
                ("a b", "é 🙂"),
                ("Cat", "cat"),
                ("true", "false"),
                ("[red]", "{x}"),
                ("train", "bus"),
            )
        ),
        folder(
            "classes test and val",
            photos(classes=("test", "val")),
            right=labels("test", "val"),
            refused=("test, val", "class"),
        ),
        folder("a link inside", linked_in, right=count(16), refused=("dog_too",)),
        folder("a linked class folder", linked_folder, right=labels("cat", "dog")),
        folder("a file linked from elsewhere", linked_out, right=SAME, refused=("07.png|link",)),
        folder(
            "a class folder linked from elsewhere",
            folder_out,
            right=every(labels("cat", "dog"), says("fox", "link")),
            refused=("fox",),
        ),
        folder("a link to nothing", linked_nowhere, right=says("x.png|link"), refused=("x.png",)),
        folder("links in a circle", in_a_circle, right=every(count(16), labels("cat", "dog")), refused=("again|link",)),
        folder("a file instead of a folder", lambda path: (path / "p").write_bytes(b""), refused=("file",)),
        folder("no such folder", photos(), "data.root=/no/such/folder", refused=("no such folder",)),
        *stale(),
    ]


def stale() -> list[Case]:
    """A file that is replaced by another of the same size and time must be read anew, whatever the cache holds."""
    old, new = (encoded(np.full((SIDE, SIDE, 3), value, np.uint8), "BMP") for value in (50, 200))

    def first(path: Path) -> None:
        write(path, {**photos("BMP", "bmp"), "cat/x.bmp": old})
        os.utime(path / "p/cat/x.bmp", (1_000_000_000, 1_000_000_000))

    before = folder("kept on the disk", first, "data.memory_mb=0", right=holds_picture(np.full((1, 1, 1), 50)))

    @check("the new picture's pixels, not those of the cache")
    def renewed(seen: Seen, other: Callable[[Case], Seen]) -> str | None:
        root = Path(other(before).data.source.root)
        (root / "cat/x.bmp").write_bytes(new)
        os.utime(root / "cat/x.bmp", (1_000_000_000, 1_000_000_000))
        with contextlib.redirect_stderr(io.StringIO()):
            again = Seen(splits=other(before).data.source.load("category"))
        return holds_picture(np.full((1, 1, 1), 200))(again, other)

    return [before, folder("replaced, of the same size and time", photos(), right=renewed)]


def write(path: Path, files: dict[str, bytes], inside: str = "p") -> None:
    """Write files below `path/inside`."""
    for name, content in files.items():
        (path / inside / name).parent.mkdir(parents=True, exist_ok=True)
        (path / inside / name).write_bytes(content)


def tables() -> list[Case]:
    """Tables that name images."""
    files = {f"p/{name}": content for name, content in photos().items()}
    rows = [{"file": name, "kind": name.split("/")[0], "size": f"{i}.5"} for i, name in enumerate(photos())]

    def table(
        name: str,
        content: Any,
        *words: str,
        file: str = "t.csv",
        right: Check | None = None,
        refused: tuple[str, ...] | None = None,
        more: dict[str, bytes] | None = None,
    ) -> Case:
        own = (f"data.root={{folder}}/p/{file}", "data.target=kind")
        made = content if callable(content) else {**files, f"p/{file}": content, **(more or {})}
        return Case("images", f"table: {name}", made, (*TABLE, *own, *words), right, refused)

    def edited(row: int, **cells: str) -> str:
        return csv([{**one, **cells} if i == row else one for i, one in enumerate(rows, 1)])

    def absolute(path: Path) -> None:
        write(path, photos())
        (path / "p/t.csv").write_text(csv([{**row, "file": str(path / "p" / row["file"])} for row in rows]))

    def elsewhere(path: Path) -> None:
        write(path, photos())
        (path / "x.png").write_bytes(encoded(pixels(1)))
        (path / "p/t.csv").write_text(
            csv([{**row, "file": str(path / "x.png")} if i == 3 else row for i, row in enumerate(rows, 1)])
        )

    clean = table("clean", csv(rows), right=every(count(16), labels("cat", "dog")))
    same = twin(clean)
    return [
        clean,
        table("TSV", csv(rows, "\t"), right=same, file="t.tsv"),
        table("semicolons", csv(rows, ";"), right=same),
        table("byte order mark", "\ufeff" + csv(rows, quoted=True), right=same),
        table("gzip", zipped(csv(rows)), right=same, file="t.csv.gz"),
        table("./ before the paths", csv([{**row, "file": f"./{row['file']}"} for row in rows]), right=same),
        table("absolute paths inside", absolute, right=same),
        table("an absolute path outside", elsewhere, refused=("row 3\\b", "x.png")),
        table(
            "a path that goes up and comes back", edited(3, file="cat/../cat/02.png"), right=same, refused=("row 3\\b",)
        ),
        table(
            "a path that leads out",
            edited(3, file="../x.png"),
            refused=("row 3\\b",),
            more={"x.png": encoded(pixels(1))},
        ),
        table("backslashes", edited(3, file="cat\\02.png"), right=same, refused=("cat\\\\02.png",)),
        table("a web address", edited(3, file="https://example.org/02.png"), refused=("example.org",)),
        table("a path that is missing", edited(3, file="cat/none.png"), refused=("1 of 16", "none.png")),
        table("an empty path", edited(3, file=""), refused=("row 3\\b", "column file")),
        table(
            "a path with spaces around", edited(3, file=" cat/02.png "), right=same, refused=("row 3\\b|cat/02.png",)
        ),
        table(
            "labels NA and None",
            csv([{**row, "kind": ("NA", "None")[i % 2]} for i, row in enumerate(rows)]),
            right=labels("NA", "None"),
        ),
        table(
            "labels 01 and 1",
            csv([{**row, "kind": ("01", "1")[i % 2]} for i, row in enumerate(rows)]),
            right=labels("01", "1"),
        ),
        table("a gap in the labels", edited(3, kind=""), right=every(count(15), says(r"\b1 (of 16 )?rows?\b"))),
        table("a long row", csv(rows).replace("02.png,cat,2.5", "02.png,cat,2.5,"), refused=("row 3\\b", "4 cells")),
        table(
            "a value of NA",
            edited(3, size="NA"),
            "data.target=size",
            "objective=regression",
            refused=("row 3\\b", "column size", "missing_values"),
        ),
        table("values", csv(rows), "data.target=size", "objective=regression", right=count(16)),
        table("column missing", csv(rows), "data.image=photo", refused=("no column photo", "file")),
    ]
