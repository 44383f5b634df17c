"""The report of a transfer as HTML, Markdown and TensorBoard curves."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.records import change_run
from tests.report.conftest import BROWSER, FLAGS, made_transfer, needs_browser

from warmstart.report.figure import FOREGROUND, limits, off_axis, verdict_text
from warmstart.report.transfer import write_report
from warmstart.report.transfer_page import plain
from warmstart.run.checksums import write_record

MEASURE = """
const outside = [...document.querySelectorAll("svg")].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const own = text.getBoundingClientRect();
    return own.left < box.left - 1 || own.right > box.right + 1 || own.top < box.top - 1 || own.bottom > box.bottom + 1;
  }).map(text => text.textContent);
});
parent.postMessage(JSON.stringify({
  width: innerWidth, scroll: document.documentElement.scrollWidth, outside,
  drawn: [...document.querySelectorAll("svg")].map(svg => svg.getBoundingClientRect().height > 150),
  first: document.querySelector("h1").innerText,
}), "*");
"""
FRAME = """<!doctype html><body><script>
addEventListener("message", event => { document.body.dataset.seen = event.data; });
</script><iframe src="measured.html" style="border: 0; width: {width}px; height: 2000px"></iframe></body>
"""  # since a window is never narrower than 500 pixels
EVIL = "</script><b id=injected>`a|b` & $x$"
TITLES = {
    "labels": "Score by label count",
    "difference": "Difference by label count",
    "noise": "Paired differences",
    "time": "Time to target score",
    "multiplier": "Label efficiency",
    "length": "Pretraining length",
    "extrapolation": "More labels or more pretraining",
}


class Elements(HTMLParser):
    """Every element of a page with its attributes, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str):
        if data.strip() and self.found[-1][0] != "style":
            self.texts.append(data.strip())


def scores(mean: float, seed: int) -> np.ndarray:
    """Scores (S, N) of 0 and 1: six seeds that differ a little."""
    rng = np.random.default_rng(seed)
    return (rng.random((6, 400)) < mean + rng.normal(0, 0.01, (6, 1))) * 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on two budgets, a length curve, a run that failed, and text that looks like HTML."""
    cells = {("pretrained", "steps", 1): scores(0.8, 1), ("scratch", "steps", 1): scores(0.6, 2)}
    cells |= {("shuffled", "steps", 1): scores(0.6, 3), ("pretrained", "steps", 5): scores(0.9, 4)}
    cells |= {("scratch", "steps", 5): scores(0.9, 4), ("shuffled", "steps", 5): scores(0.8, 5)}
    cells |= {("pretrained", "converged", 1): scores(0.8, 1), ("scratch", "converged", 1): scores(0.79, 2)}
    cells |= {("pretrained", "converged", 5): scores(0.8, 1), ("scratch", "converged", 5): scores(0.79, 2)}
    cells |= {(f"pretrained@{number}", "steps", 1): scores(0.7 + 0.03 * number, number) for number in (1, 2, 3)}
    taken = [{"number": number, "step": 10**number, "val/loss": 1 / number} for number in (1, 2, 3)]
    curves = {"pretrained": [0.5, 0.7, 0.8], "scratch": [0.2, 0.5, 0.6], "shuffled": [0.3, 0.5, 0.6]}
    folder = tmp_path_factory.mktemp("page") / "transfer"
    made_transfer(folder, cells, curves=curves, snapshots=taken, rules={"comment": EVIL})
    plan = json.loads((folder / "manifest.json").read_text())
    write_record(folder / "manifest.json", {**plan, "experiment": EVIL, "words": [f"note={EVIL}"]})
    change_run(folder / "runs" / "shuffled-steps-5-seed2", status="failed", error=f"{EVIL}\nsecond line", metrics={})
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text()


def opened(folder: Path, width: int) -> dict:
    """What a browser of this width makes of the page."""
    text = (folder / "report.html").read_text()
    (folder / "measured.html").write_text(text.replace("</body>", f"<script>{MEASURE}</script></body>"))
    page = folder / "frame.html"
    page.write_text(FRAME.replace("{width}", str(width)))
    command = [BROWSER, *FLAGS, "--window-size=1400,2000", f"--user-data-dir={folder / 'browser'}", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "CONSOLE" not in done.stderr
    (body,) = (attributes for tag, attributes in Elements(done.stdout).found if tag == "body")
    return json.loads(body["data-seen"])


@needs_browser
@pytest.mark.parametrize("width", [360, 1200])
def test_the_page_fits_a_phone_and_a_desk(folder: Path, report: dict, width: int):
    seen = opened(folder, width)
    assert seen["width"] == width
    assert seen["scroll"] <= width
    assert seen["drawn"] == [True] * 5
    assert seen["outside"] == []
    assert seen["first"].split() == ["▲", "helps", "against", "scratch", *report["headline"]["sentences"][0].split()]


def test_the_page_asks_nothing_of_the_network_and_runs_nothing(page: str):
    elements = Elements(page).found
    assert not {"script", "link", "iframe", "img", "object", "embed"} & {tag for tag, _ in elements}
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]
    places = [attributes[name] for _, attributes in elements for name in ("src", "href") if name in attributes]
    places += re.findall(r"url\(([^)]*)\)", page)
    assert places
    assert all(place.startswith("#") for place in places)
    assert "http" not in page
    assert "@import" not in page


def test_the_sentence_comes_first_and_each_figure_says_what_it_shows(report: dict, page: str):
    elements = Elements(page)
    sentence = elements.texts.index(report["headline"]["sentences"][0])
    assert "▲ helps against scratch" in elements.texts[:sentence]
    places = [elements.texts.index(title) for title in TITLES.values()]
    assert [sentence, *places] == sorted([sentence, *places])
    warned = [place for place, text in enumerate(elements.texts) if text == "warning:"]
    assert len(warned) == len(report["warnings"]) > 0
    assert sentence < warned[0] <= warned[-1] < places[0]
    figures = {attributes["aria-label"] for tag, attributes in elements.found if tag == "svg"}
    assert len(figures) == 5
    mean = report["table"][0]["mean"]
    assert any(f"pretrained: {mean:.3g} at 1 (" in text for text in figures)
    assert any("pretrained against scratch, at equal steps" in text and "at 1: helps" in text for text in figures)
    assert any("scratch: 0.2 after 10 steps, 0.6 after 30 steps" in text for text in figures)
    assert any("generic validation loss: 1 after 10 steps" in text for text in figures)


def test_ids_are_unique_and_all_references_have_one(page: str):
    ids = [attributes["id"] for _, attributes in Elements(page).found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]*)\)", page)) | set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    assert FOREGROUND not in page[page.index("<body>") :]


def test_what_looks_like_html_is_only_text(folder: Path, page: str):
    text = (folder / "report.md").read_text()
    elements = Elements(page)
    assert "injected" not in {attributes.get("id") for _, attributes in elements.found}
    assert sum(EVIL in part for part in elements.texts) >= 5  # experiment, warning, failed run, command, settings
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert "<b" not in prose
    assert r"&lt;/script>" not in prose
    assert r"\`a\|b\`" in prose


def test_the_text_holds_nothing_that_a_terminal_acts_upon():
    assert plain("a\x1b[2J\u202eb\r\n*c*") == r"a\\x1b\[2J\\u202eb \*c\*"


def test_the_text_says_the_same(folder: Path, report: dict):
    text = (folder / "report.md").read_text()
    assert text.startswith(f"# {report['headline']['sentences'][0]}\n")
    assert "![score by label count](report.png)" in text
    assert "![difference by label count](difference.png)" in text
    assert "· 400 test rows ·" in text
    for heading in (*TITLES.values(), "Verdicts", "Checks", "Learning rates", "Rules", "Reproduce", "Settings"):
        assert f"## {heading}\n" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    heads = [table.splitlines()[0] for table in tables]
    first = ["arm"] + ["labels"] * 2 + ["more of"]
    assert [head.split("|")[1].strip() for head in heads] == first + ["arm"] * 5 + ["run"]
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in tables[0].splitlines()[2:]]
    assert [row[:2] for row in rows] == [[row["arm"], row["against"]] for row in report["verdicts"]]
    assert rows[0][5] == f"{report['verdicts'][0]['difference']:+.3g}"
    assert {row[10] for row in rows} >= {"▲ helps", "■ equivalent", "● cannot tell: 1 of 6 shuffled runs failed"}
    assert "python train.py stage=report runs=" in text
    assert "None" not in text


def test_seeds_that_would_not_help_are_not_a_number(made: Callable[..., Path]):
    rng = np.random.default_rng(0)
    noise = (rng.random((1, 400)) < 0.5) * 1.0
    cells = {("pretrained", "steps", 1): np.repeat(noise, 6, 0), ("scratch", "steps", 1): np.full((6, 400), 0.49)}
    folder = made(cells)
    (row,) = write_report(folder)["verdicts"]
    assert (row["verdict"], row["seeds_needed"]) == ("cannot tell", None)
    for name in ("report.md", "report.html"):
        assert "no number of seeds suffices on this test set" in (folder / name).read_text()


def test_what_was_not_measured_has_no_section(made: Callable[..., Path]):
    folder = made({("pretrained", "steps", 1): scores(0.8, 1)[:2], ("trivial", "steps", 1): scores(0.1, 2)[:2]})
    for path in (folder / "runs").glob("*/metrics.csv"):
        path.unlink()
        change_run(path.parent)
    report = write_report(folder)
    page = (folder / "report.html").read_text()
    assert report["headline"]["verdict"] is None
    assert "no verdict" in page
    shown = [title for title in TITLES.values() if title in page]
    assert shown == [TITLES["labels"]]


def test_rebuilt_pages_are_equal(folder: Path):
    names = ("report.html", "report.md", "report.png", "difference.png")
    before = [(folder / name).read_bytes() for name in names]
    write_report(folder)
    assert [(folder / name).read_bytes() for name in names] == before
    assert before[2].startswith(b"\x89PNG")


def test_tensorboard_reads_the_verdict_and_the_curves(folder: Path, report: dict):
    curves = folder / "curves"
    events = EventAccumulator(str(curves / "verdict")).Reload()
    (event,) = events.Tensors("verdict")
    text = event.tensor_proto.string_val[0].decode()
    assert events.summary_metadata["verdict"].plugin_data.plugin_name == "text"
    assert text.startswith(f"**▲ helps against scratch**: {report['headline']['sentence']}")
    assert text.count("\n- warning: ") == len(report["warnings"])
    assert text.count("\n| pretrained | scratch |") == 4
    names = {path.name for path in curves.iterdir()}
    assert {"verdict", "pretrained-steps-1", "scratch-converged-5", "shuffled-steps-5"} <= names
    events = EventAccumulator(str(curves / "scratch-steps-1")).Reload()
    for tag in ("val/accuracy", "band/val/accuracy/low", "band/val/accuracy/high"):
        points = events.Tensors(tag)
        assert [point.step for point in points] == [9, 19, 29]
        assert [point.tensor_proto.float_val[0] for point in points] == pytest.approx([0.2, 0.5, 0.6])


def test_an_arm_far_off_does_not_flatten_the_curves():
    rows = [
        {"arm": arm, "labels_per_class": labels, "mean": mean, "interval": [mean - 0.02, mean + 0.02]}
        for arm, means in {"a": (0.7, 0.9), "b": (0.6, 0.8), "near": (0.5, 0.7), "far": (0.1, 0.1)}.items()
        for labels, mean in zip((1, 5), means)
    ]
    report = {"table": rows, "verdicts": [{"arm": "a", "against": "b", "budget": "steps"}], "headline": {}}
    low, high = limits(report)
    assert 0.4 < low < 0.5
    assert 0.9 < high < 1
    assert off_axis([row for row in rows if row["arm"] == "far"], (low, high)) == " (0.1, below)"
    assert off_axis([row for row in rows if row["arm"] == "near"], (0.6, high)) == " (0.5, below at 1)"
    assert off_axis([row for row in rows if row["arm"] == "a"], (low, high)) == ""
    assert limits({"table": rows[:1], "verdicts": []}) is not None


def test_label_counts_are_drawn_by_their_rows_and_the_words_have_shapes(made: Callable[..., Path]):
    cells = {
        (arm, "steps", labels): scores(mean, seed)
        for seed, labels in enumerate(("all", "<=20", 1))
        for arm, mean in (("pretrained", 0.8), ("scratch", 0.5))
    }
    folder = made(cells)
    report = write_report(folder)
    assert [row["labels"] for row in report["labels"]] == [1, "<=20", "all"]
    text = (folder / "report.md").read_text()
    assert "with all labels, up to 20 and 1 label per class" in text.replace("labels per class", "label per class")
    assert "▲ helps at 1 (" in text
    assert "▲ helps at ≤20 (" in text
    assert (folder / "curves" / "pretrained-steps-max20").is_dir()
    assert [verdict_text(word) for word in ("hurts", "equivalent", "cannot tell", None)] == [
        "▼ hurts",
        "■ equivalent",
        "● cannot tell",
        "✕ no verdict",
    ]
