"""Recordings: one recording in many formats, truncated files, and folders of them."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from scripts.abuse_cases.case import Case, Check, Seen, check, count, every, labels, says, silent, twin

TINY = (
    "visualization=[]",
    "backbone.depth=1",
    "backbone.width=32",
    "backbone.heads=2",
    "backbone.stem.channels=4",
    "data.frames.rate=8000",
)
FOLDER = ("stage=finetune", "experiment=speech", "init=scratch", "data=audio_folder", *TINY)
RATE = 8000


def tone(number: int, seconds: float = 0.3, rate: int = RATE) -> np.ndarray:
    """A tone with a little noise, different for each number."""
    time = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(number).normal(size=len(time))
    return 0.4 * np.sin(2 * np.pi * (200 + 90 * number) * time) + 0.01 * noise


def sound(values: np.ndarray, form: str = "WAV", kind: str | None = "PCM_16", rate: int = RATE) -> bytes:
    """The bytes of a sound file."""
    file = io.BytesIO()
    if kind == "PCM_16":
        values = np.round(values * 32768).clip(-32768, 32767).astype(np.int16)  # so that every format holds the same
    soundfile.write(file, values, rate, format=form, subtype=kind)
    return file.getvalue()


def recordings(
    form: str = "WAV",
    ending: str = "wav",
    kind: str | None = "PCM_16",
    classes: tuple[str, ...] = ("no", "yes"),
    each: int = 8,
) -> dict[str, bytes]:
    """A folder per class."""
    return {
        f"{name}/{i:02}.{ending}": sound(tone(10 * k + i), form, kind)
        for k, name in enumerate(classes)
        for i in range(each)
    }


def folder(
    name: str, files: Any, *words: str, right: Check | None = None, refused: tuple[str, ...] | None = None
) -> Case:
    """A folder per class, loaded."""
    files = {f"p/{path}": content for path, content in files.items()} if isinstance(files, dict) else files
    return Case("sounds", name, files, (*FOLDER, "data.root={folder}/p", *words), right, refused)


CLEAN = folder("clean", recordings(), right=every(count(16), labels("no", "yes"), silent("warning")))
SAME = twin(CLEAN)


def wave(seen: Seen, name: str) -> tuple[np.ndarray, int] | None:
    """The samples and the rate of the recording whose file ends so."""
    for part in (seen.splits.train, seen.splits.validation, seen.splits.test):
        for values, rate, file in zip(part.x["audio"], part.x["rate"], part.x["file"]):
            if f"/{name}" in str(file):
                return values, rate
    return None


def waveform(
    name: str, expected: np.ndarray, rate: int = RATE, tolerance: float = 1e-3, most_missing: int = 0
) -> Check:
    """The samples of one recording; of a damaged file the last ones may be missing."""

    @check(f"the {len(expected)} samples of {name}")
    def holds(seen: Seen, other: Any) -> str | None:
        found = wave(seen, name)
        if found is None:
            return f"{name} is not there"
        values, own = found
        if own != rate:
            return f"{name} has {own} Hz"
        if not len(expected) - most_missing <= len(values) <= len(expected):
            return f"{name} has {len(values)} samples where {len(expected)} are right"
        worst = np.abs(values - expected[: len(values)]).max()
        return None if worst <= tolerance else f"a sample of {name} differs by {worst:.3g}"

    return holds


def cases() -> list[Case]:
    """All of them."""
    return [CLEAN, *forms(), *damaged(), *layout()]


def forms() -> list[Case]:
    """Formats and sample types."""
    x = tone(99)

    def one(
        name: str,
        content: bytes,
        expected: np.ndarray = x,
        tolerance: float = 1e-3,
        ending: str = "wav",
        rate: int = RATE,
        refused: tuple[str, ...] | None = None,
    ) -> Case:
        right = every(count(17), waveform(f"x.{ending}", expected, rate, tolerance))
        return folder(name, {**recordings(), f"no/x.{ending}": content}, right=right, refused=refused)

    plain = sound(x)
    stereo = np.stack([x, -0.5 * x], 1)
    listed = with_chunk(plain, b"LIST", b"INFOISFT\x06\0\0\0abcdef")
    odd = with_chunk(plain, b"junk", b"abc")
    after = plain[:4] + struct.pack("<I", len(plain) + 8 - 8 + 4) + plain[8:] + b"id3 \x04\0\0\0abcd"
    streamed = plain[:4] + b"\xff\xff\xff\xff" + plain[8:40] + b"\xff\xff\xff\xff" + plain[44:]
    loud = 3 * x
    return [
        folder("all as FLAC", recordings("FLAC", "flac"), right=SAME),
        folder("all as AIFF", recordings("AIFF", "aiff"), right=SAME),
        folder("endings in upper case", {k.replace("wav", "WAV"): v for k, v in recordings().items()}, right=SAME),
        folder(
            "FLAC called .wav", {k.replace("flac", "wav"): v for k, v in recordings("FLAC", "flac").items()}, right=SAME
        ),
        one("8 bits", sound(x, kind="PCM_U8"), tolerance=1e-2),
        one("24 bits", sound(x, kind="PCM_24")),
        one("32 bits", sound(x, kind="PCM_32")),
        one("floats", sound(x, kind="FLOAT")),
        one("floats beyond 1", sound(loud, kind="FLOAT"), loud),
        one("doubles", sound(x, kind="DOUBLE")),
        one("mu-law", sound(x, kind="ULAW"), tolerance=0.03),
        one("A-law", sound(x, kind="ALAW"), tolerance=0.03),
        one("two channels", sound(stereo), stereo.mean(1)),
        one("six channels", sound(np.stack([x] * 6, 1))),
        one("extensible header", sound(x, "WAVEX")),
        one("RF64", sound(x, "RF64")),
        one("Ogg Vorbis", sound(x, "OGG", "VORBIS"), tolerance=0.15, ending="ogg"),
        one("44,100 Hz", sound(tone(99, rate=44100), rate=44100), tone(99, rate=44100), rate=44100),
        one("16,000 Hz", sound(tone(99, rate=16000), rate=16000), tone(99, rate=16000), rate=16000),
        one("a list before the samples", listed),
        one("a chunk of odd length before the samples", odd),
        one("a chunk after the samples", after),
        one("a size that is not known yet", streamed),
        one("ten milliseconds", sound(tone(99, 0.01)), tone(99, 0.01), refused=("x.wav", "short")),
        one("one sample", sound(np.array([0.5])), np.array([0.5]), refused=("x.wav", "short")),
        one("very quiet", sound(np.full(800, 2 / 32768)), np.full(800, 2 / 32768), 1e-6),
    ]


def with_chunk(content: bytes, name: bytes, data: bytes) -> bytes:
    """A WAV file with a further chunk before the samples."""
    chunk = name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return content[:4] + struct.pack("<I", len(content) - 8 + len(chunk)) + content[8:36] + chunk + content[36:]


def damaged() -> list[Case]:
    """Files that end too early give what is there, with a warning; what is no sound is refused by name, or skipped."""
    x = tone(99)
    plain = sound(x)
    empty_size = plain[:40] + b"\0\0\0\0" + plain[44:]
    no_sizes = plain[:4] + b"\0\0\0\0" + empty_size[8:]
    half = plain[: 44 + len(x)]
    long = np.concatenate([tone(k, 1.0, 16000) for k in range(4)])
    mp3 = sound(long, "MP3", "MPEG_LAYER_III", 16000)
    flac = sound(long, "FLAC", "PCM_16", 16000)

    def partly(name: str, ending: str, content: bytes, expected: np.ndarray, **options: Any) -> Case:
        right = every(count(17), waveform(f"x.{ending}", expected, **options), says("warning", f"x.{ending}"))
        return folder(name, {**recordings(), f"no/x.{ending}": content}, right=right)

    @check("about half of the samples of x.mp3, and a warning")
    def half_there(seen: Seen, other: Any) -> str | None:
        values, _ = wave(seen, "x.mp3")
        return None if 0.3 * len(long) < len(values) < 0.6 * len(long) else f"{len(values)} of {len(long)} samples"

    bad = {
        "an empty file": ("x.wav", b""),
        "text called .wav": ("x.wav", b"not a sound\n"),
        "a header alone": ("x.wav", plain[:44]),
        "half a header": ("x.wav", plain[:20]),
        "silence": ("x.wav", sound(np.zeros(800))),
        "no samples": ("x.wav", sound(np.zeros(0))),
        "a sample that is no number": ("x.wav", sound(np.array([0.1, np.nan, 0.2]), kind="FLOAT")),
        "an infinite sample": ("x.wav", sound(np.array([0.1, np.inf, 0.2]), kind="FLOAT")),
        "noise called .mp3": ("x.mp3", np.random.default_rng(0).bytes(3000)),
        "a picture called .flac": ("x.flac", b"\x89PNG\r\n\x1a\n"),
        "an M4A called .wav": ("x.wav", b"\0\0\0\x20ftypM4A \0\0\0\0M4A mp42isom"),
    }
    found = []
    for name, (file, content) in bad.items():
        files = {**recordings(), f"no/{file}": content}
        found.append(folder(name, files, refused=(file,)))
        found.append(
            folder(f"{name}, skipped", files, "data.on_error=skip", right=every(count(16), says("1 of 17", file)))
        )
    all_no = {k: b"" if k.startswith("no") else v for k, v in recordings().items()}
    return [
        partly("a data size of 0", "wav", empty_size, x),
        partly("sizes of 0", "wav", no_sizes, x),
        partly("half a WAV", "wav", half, x[: len(x) // 2]),
        partly("a WAV cut inside a sample", "wav", half + b"\1", x[: len(x) // 2], most_missing=1),
        folder(
            "half an MP3",
            {**recordings(), "no/x.mp3": mp3[: len(mp3) // 2]},
            right=every(count(17), half_there, says("warning", "x.mp3")),
        ),
        folder(
            "half a FLAC",
            {**recordings(), "no/x.flac": flac[: len(flac) // 2]},
            right=every(count(17), says("warning", "x.flac")),
            refused=("x.flac",),
        ),
        *found,
        folder("every no broken, skipped", all_no, "data.on_error=skip", refused=("no\\b",)),
        folder(
            "all broken, skipped",
            dict.fromkeys(recordings(), b""),
            "data.on_error=skip",
            refused=(".wav|sound|recording",),
        ),
        folder(
            "a recording longer than the limit",
            {**recordings(), "no/x.wav": sound(tone(1, 3.0))},
            "data.frames.longest=2",
            refused=("x.wav", "longest"),
        ),
        folder("a wrong value of on_error", recordings(), "data.on_error=ignore", refused=("on_error",)),
    ]


def layout() -> list[Case]:
    """What stands in the folders."""
    junk = {
        "no/.DS_Store": b"\0",
        "no/._00.wav": b"\0\5",
        "no/Thumbs.db": b"\xd0",
        "no/00.txt": b"no",
        "no/00.lab": b"0 1 n",
        "readme.md": b"# x",
    }

    def circle(path: Path) -> None:
        for name, content in recordings().items():
            (path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
            (path / "p" / name).write_bytes(content)
        (path / "p/no/again").symlink_to("..")

    return [
        folder("hidden and other files", {**recordings(), **junk}, right=SAME),
        folder(
            "folders in class folders", {k.replace("/", "/anna/june/"): v for k, v in recordings().items()}, right=SAME
        ),
        folder(
            "M4A files",
            {**recordings(), "no/x.m4a": b"\0\0\0\x20ftypM4A ", "yes/y.M4A": b"\0"},
            right=every(count(16), says(r"\b2\b", "m4a")),
        ),
        folder(
            "WMA and AMR files",
            {**recordings(), "no/x.wma": b"\0", "yes/y.amr": b"#!AMR"},
            right=every(count(16), says("wma", "amr")),
        ),
        folder("M4A files alone", {k.replace("wav", "m4a"): b"\0" for k in recordings()}, refused=("m4a|none",)),
        folder("one class", recordings(classes=("no",)), refused=("two or more", "no")),
        folder("a class of three", {**recordings(), **recordings(classes=("oh",), each=3)}, refused=("class oh", "3")),
        *(
            folder(f"classes {' and '.join(names)}", recordings(classes=names), right=every(labels(*names), count(16)))
            for names in (("01", "1"), ("None", "NA"), ("true", "false"), ("é 🙂", "a b"), ("train", "horn"))
        ),
        folder(
            "recordings beside the class folders",
            {**recordings(), "x.wav": sound(tone(5))},
            right=every(count(16), says("x.wav|1 ")),
            refused=("x.wav",),
        ),
        folder("links in a circle", circle, right=every(count(16), labels("no", "yes")), refused=("again|link",)),
        folder("no such folder", recordings(), "data.root=/no/such/folder", refused=("no such folder",)),
    ]
