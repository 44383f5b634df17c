"""Manifests: tables of recordings, with classes, transcripts, speakers, offsets and durations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scripts.abuse_cases.case import Case, Check, Seen, check, count, either, every, labels, says, twin
from scripts.abuse_cases.sounds import RATE, TINY, recordings, sound, tone, waveform
from scripts.abuse_cases.written import csv, json_lines, parquet, zipped

TABLE = ("stage=finetune", "experiment=recordings", "init=scratch", *TINY)
FILES = {f"p/{name}": content for name, content in recordings(each=12).items()}
ROWS = [
    {
        "audio_filepath": name.removeprefix("p/"),
        "label": name.split("/")[1],
        "text": f"so {'no' if i % 2 else 'yes'}",
        "who": f"s{i % 6}",
    }
    for i, name in enumerate(FILES)
]
LONG = np.concatenate([tone(k, 0.5) for k in range(8)])


def table(
    name: str,
    content: Any,
    *words: str,
    file: str = "t.csv",
    right: Check | None = None,
    refused: tuple[str, ...] | None = None,
    more: dict[str, bytes] | None = None,
) -> Case:
    """A manifest beside its recordings."""
    files = (
        content
        if callable(content)
        else {**FILES, f"p/{file}": content, **{f"p/{k}": v for k, v in (more or {}).items()}}
    )
    return Case("manifests", name, files, (*TABLE, f"data.root='{{folder}}/p/{file}'", *words), right, refused)


def edited(row: int, **cells: Any) -> list[dict[str, Any]]:
    """The rows with other cells in one of them; further columns are empty elsewhere."""
    extra = {name: None for name in cells if name not in ROWS[0]}
    return [{**one, **extra, **cells} if i == row else {**one, **extra} for i, one in enumerate(ROWS, 1)]


def with_column(name: str, values: Any) -> list[dict[str, Any]]:
    """The rows with a further column."""
    return [{**row, name: values(i)} for i, row in enumerate(ROWS)]


CLEAN = table("clean", csv(ROWS), right=every(count(24), labels("no", "yes")))
SAME = twin(CLEAN)
CTC = "objective=ctc"


def cases() -> list[Case]:
    """All of them."""
    return [CLEAN, *forms(), *pieces(), *paths(), *targets(), *speakers()]


def forms() -> list[Case]:
    """One manifest in many forms."""
    renamed = [{"path": r["audio_filepath"], **{k: v for k, v in r.items() if k != "audio_filepath"}} for r in ROWS]
    return [
        table("TSV", csv(ROWS, "\t"), right=SAME, file="t.tsv"),
        table("semicolons", csv(ROWS, ";"), right=SAME),
        table("gzip", zipped(csv(ROWS)), right=SAME, file="t.csv.gz"),
        table("JSON lines", json_lines(ROWS), right=SAME, file="t.jsonl"),
        table("JSON lines called .json, as NeMo writes them", json_lines(ROWS), right=SAME, file="t.json"),
        table("a JSON list", json.dumps(ROWS), right=SAME, file="t.json"),
        table("Parquet", parquet(ROWS), right=SAME, file="t.parquet"),
        table("byte order mark and CRLF", "\ufeff" + csv(ROWS, quoted=True, end="\r\n"), right=SAME),
        table("a column path", csv(renamed), right=SAME),
        table(
            "a column of another name",
            csv([{**r, "wav": r["path"], "path": None} for r in renamed]),
            "data.audio=wav",
            right=SAME,
        ),
        table(
            "no column of files",
            csv([{"x": r["path"], "label": r["label"]} for r in renamed]),
            refused=("no column", "audio"),
        ),
        table("a long row", csv(ROWS).replace("so yes,s4\n", "so yes,s4,x\n", 1), refused=("row 5\\b", "5 cells")),
        table("no rows", "audio_filepath,label\n", refused=("no rows",)),
        table("sounds stored in Parquet", stored(), right=every(count(24), labels("no", "yes")), file="t.parquet"),
    ]


def stored() -> bytes:
    """The recordings themselves, as `datasets` keeps them."""
    return parquet(
        [{"audio": {"bytes": FILES[f"p/{r['audio_filepath']}"], "path": None}, "label": r["label"]} for r in ROWS]
    )


def pieces() -> list[Case]:
    """Offset and duration, in seconds, cut the recording."""
    more = {"long.wav": sound(LONG)}

    def cut(
        name: str,
        right: Check | None = None,
        refused: tuple[str, ...] | None = None,
        rows: Any = json_lines,
        file: str = "t.jsonl",
        **cells: Any,
    ) -> Case:
        return table(
            name,
            rows(edited(3, audio_filepath="long.wav", **cells)),
            file=file,
            right=right,
            refused=refused,
            more=more,
        )

    def samples(start: float, end: float) -> Check:
        return every(count(24), waveform("long.wav", LONG[round(start * RATE) : round(end * RATE)]))

    parts = [
        {"audio_filepath": "long.wav", "offset": k * 0.25, "duration": 0.25, "label": ("no", "yes")[k % 2]}
        for k in range(16)
    ]

    @check("16 pieces that are all different")
    def different(seen: Seen, other: Any) -> str | None:
        found = [
            v.tobytes()
            for part in (seen.splits.train, seen.splits.validation, seen.splits.test)
            for v in part.x["audio"]
        ]
        return None if len(set(found)) == 16 else f"{len(set(found))} different of {len(found)}"

    place = ("row 3\\b|long.wav",)
    return [
        cut("offset and duration", samples(0.5, 1.25), offset=0.5, duration=0.75),
        cut("offset alone", samples(0.5, 4.0), offset=0.5),
        cut("duration alone", samples(0, 0.75), duration=0.75),
        cut("offset 0", samples(0, 0.5), offset=0, duration=0.5),
        cut("offset in CSV", samples(0.5, 1.25), rows=csv, file="t.csv", offset="0.5", duration="0.75"),
        cut("offset in CSV, exponents", samples(0.5, 1.25), rows=csv, file="t.csv", offset="5e-1", duration="7.5E-1"),
        cut("offset as a JSON text", samples(0.5, 1.25), place, offset="0.5", duration="0.75"),
        cut("offset null", samples(0, 4.0), offset=None, duration=None),
        cut("offset below 0", None, place, offset=-0.5, duration=0.75),
        cut("offset beyond the end", None, place, offset=9.0, duration=0.75),
        cut("offset at the very end", None, place, offset=4.0),
        cut("duration 0", None, place, offset=0.5, duration=0),
        cut("duration below 0", None, place, offset=0.5, duration=-1),
        cut("duration beyond the end", None, place, offset=3.5, duration=2.0),
        cut("duration rounded up", samples(3.5, 4.0), place, offset=3.5, duration=0.501),
        cut("offset a word", None, ("row 3\\b", "offset"), offset="abc", duration=0.5),
        cut("offset not a number", None, ("row 3\\b|line 3\\b",), offset=float("nan"), duration=0.5),
        cut("offset infinite", None, ("row 3\\b|line 3\\b|long.wav",), offset=float("inf"), duration=0.5),
        cut(
            "offset with a decimal comma",
            None,
            ("row 3\\b", "offset"),
            rows=csv,
            file="t.csv",
            offset="0,5",
            duration="0,75",
        ),
        cut("start and end", either(samples(0.5, 1.25), says("start", "end")), place, start=0.5, end=1.25),
        table(
            "one recording in 16 pieces",
            json_lines(parts),
            file="t.jsonl",
            right=every(count(16), different),
            more=more,
        ),
        table(
            "durations that equal the recordings'",
            json_lines(with_column("duration", lambda i: 0.3)),
            right=SAME,
            file="t.jsonl",
        ),
        table(
            "durations in milliseconds",
            json_lines(with_column("duration", lambda i: 300)),
            refused=("duration",),
            file="t.jsonl",
        ),
    ]


def paths() -> list[Case]:
    """Where the files are."""

    def absolute(path: Path) -> None:
        put(path, csv([{**r, "audio_filepath": str(path / "p" / r["audio_filepath"])} for r in ROWS]))

    def outside(path: Path) -> None:
        (path / "x.wav").write_bytes(sound(tone(1)))
        put(path, csv(edited(3, audio_filepath=str(path / "x.wav"))))

    def put(path: Path, manifest: str) -> None:
        for name, content in FILES.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
        (path / "p/t.csv").write_text(manifest)

    third = ROWS[2]["audio_filepath"]
    skip = "data.on_error=skip"
    return [
        table("absolute paths inside", absolute, right=SAME),
        table("an absolute path outside", outside, refused=("x.wav",)),
        table("a path that leads out", csv(edited(3, audio_filepath="../x.wav")), refused=("x.wav",)),
        table(
            "a path that goes up and comes back",
            csv(edited(3, audio_filepath=f"no/../{third}")),
            right=SAME,
            refused=("row 3\\b|no/",),
        ),
        table(
            "./ before the paths", csv([{**r, "audio_filepath": f"./{r['audio_filepath']}"} for r in ROWS]), right=SAME
        ),
        table("backslashes", csv(edited(3, audio_filepath=third.replace("/", "\\"))), right=SAME, refused=("1 of 24",)),
        table("a missing file", csv(edited(3, audio_filepath="no/none.wav")), refused=("1 of 24", "none.wav")),
        table("a web address", csv(edited(3, audio_filepath="https://example.org/a.wav")), refused=("example.org",)),
        table("an empty path", csv(edited(3, audio_filepath="")), refused=("row 3\\b", "audio_filepath")),
        table("a path of a folder", csv(edited(3, audio_filepath="no")), refused=("1 of 24|no\\b",)),
        table("a broken recording", csv(edited(3, audio_filepath="b.wav")), refused=("b.wav",), more={"b.wav": b"x"}),
        table(
            "a broken recording, skipped",
            csv(edited(3, audio_filepath="b.wav")),
            skip,
            right=every(count(23), says("b.wav")),
            more={"b.wav": b"x"},
        ),
        table("a row twice", csv([*ROWS, ROWS[0]]), right=count(25), refused=("row 25|00.wav",)),
    ]


def targets() -> list[Case]:
    """Classes and transcripts."""

    def named(*names: str) -> list[dict[str, Any]]:
        return [{**r, "label": names[i % len(names)]} for i, r in enumerate(ROWS)]

    gaps = [{**r, "label": "" if i % 8 == 5 else r["label"]} for i, r in enumerate(ROWS)]
    spoken = [{**r, "text": r["text"]} for r in ROWS]

    @check("21 rows, 3 without a class")
    def three(seen: Seen, other: Any) -> str | None:
        return None if sum(seen.data.rows[p] for p in ("train", "validation", "test")) == 21 else f"{seen.data.rows}"

    return [
        *(
            table(f"labels {' and '.join(names)}", csv(named(*names)), right=every(labels(*names), count(24)))
            for names in (("NA", "EU"), ("None", "null"), ("01", "1"), ("1.0", "1.5"), ("true", "false"))
        ),
        table(
            "labels 1 and 1.50 in JSON",
            json_lines(named("1", "1.50")).replace('"1"', "1").replace('"1.50"', "1.50"),
            right=either(labels("1", "1.50"), labels("1", "1.5")),
            file="t.jsonl",
        ),
        table(
            "labels with gaps",
            csv(gaps),
            right=every(three, labels("no", "yes"), says(r"\b3 (of 24 )?(rows|recordings)")),
        ),
        table(
            "labels with gaps, JSON",
            json_lines([{**r, "label": r["label"] or None} for r in gaps]),
            file="t.jsonl",
            right=every(three, says(r"\b3 (of 24 )?(rows|recordings)")),
        ),
        table("no labels", csv([{**r, "label": ""} for r in ROWS]), refused=("label",)),
        table(
            "no column label",
            csv([{"audio_filepath": r["audio_filepath"], "text": r["text"]} for r in ROWS]),
            refused=("no column label",),
        ),
        table(
            "a label of one row",
            csv([{**r, "label": "odd"} if i == 3 else r for i, r in enumerate(ROWS)]),
            refused=("class odd", "1 row"),
        ),
        table("transcripts", csv(spoken), CTC, right=count(24)),
        table("an empty transcript", csv(edited(3, text="")), CTC, refused=("row 3\\b", "text")),
        table("a transcript of spaces", csv(edited(3, text="  ")), CTC, refused=("row 3\\b", "text")),
        table(
            "a transcript that is longer than its sound", csv(edited(3, text="so yes " * 40)), CTC, refused=("02.wav",)
        ),
        table(
            "a transcript null in JSON",
            json_lines(edited(3, text=None)),
            CTC,
            refused=("row 3\\b", "text"),
            file="t.jsonl",
        ),
        table(
            "a transcript of digits in JSON",
            json_lines(edited(3, text=7)),
            CTC,
            right=count(24),
            refused=("text",),
            file="t.jsonl",
        ),
    ]


def speakers() -> list[Case]:
    """Parts that share no speaker."""
    who = "data.cluster=who"

    @check("no speaker in two parts")
    def apart(seen: Seen, other: Any) -> str | None:
        names = {r["audio_filepath"]: r["who"] for r in ROWS}
        sets = [
            {names["/".join(str(f).split("/")[-2:])] for f in part.x["file"]}
            for part in (seen.splits.train, seen.splits.validation, seen.splits.test)
        ]
        shared = sets[0] & sets[1] | sets[0] & sets[2] | sets[1] & sets[2]
        return f"speakers {sorted(shared)} are in two parts" if shared else None

    one_class_each = [{**r, "who": f"s{i // 8}", "label": f"k{i // 8}"} for i, r in enumerate(ROWS)]
    padded = [{**r, "who": f"{i % 6:02}" if i % 2 else f"{i % 6}"} for i, r in enumerate(ROWS)]
    return [
        table("speakers", csv(ROWS), who, right=every(apart, count(24))),
        table(
            "empty speaker cells",
            csv([{**r, "who": "" if i % 5 == 0 else r["who"]} for i, r in enumerate(ROWS)]),
            who,
            refused=("row 1\\b|speaker|who",),
        ),
        table(
            "speakers null in JSON",
            json_lines([{**r, "who": None if i % 5 == 0 else r["who"]} for i, r in enumerate(ROWS)]),
            who,
            refused=("row 1\\b|speaker|who",),
            file="t.jsonl",
        ),
        table(
            "speakers called None and NA",
            csv([{**r, "who": ("None", "NA", "nan", "s1", "s2")[i % 5]} for i, r in enumerate(ROWS)]),
            who,
            right=count(24),
        ),
        table("speakers 01 and 1", csv(padded), who, right=count(24)),
        table(
            "two speakers",
            csv([{**r, "who": f"s{i % 2}"} for i, r in enumerate(ROWS)]),
            who,
            refused=("2 clusters", "3"),
        ),
        table("one speaker", csv([{**r, "who": "anna"} for r in ROWS]), who, refused=("one cluster", "anna")),
        table("a class that only one speaker says", csv(one_class_each), who, refused=("class k\\d|k\\d",)),
        table(
            "labels for one speaker alone",
            csv([{**r, "label": r["label"] if r["who"] == "s0" else ""} for r in ROWS]),
            who,
            refused=("label|class|speaker",),
        ),
        table(
            "no such speaker column", csv(ROWS), "data.cluster=speaker", refused=("no column speaker", "data.cluster")
        ),
    ]
