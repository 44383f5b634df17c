"""The HTML page of a sweep."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path

import pytest
from tests.records import write_run
from tests.report.conftest import BROWSER, FLAGS, needs_browser

from warmstart.report.sweep import write_report
from warmstart.run.manifest import Job, Manifest


def make_sweep(folder: Path, metric: str | None = "val/accuracy", started: int = 7) -> Path:
    """Two losses by two rates by two seeds: the third run failed, the fourth was pruned, the last did not start."""
    cells = itertools.product(("mse", "focal"), (1e-4, 0.1), (0, 1))
    values = [{"loss": loss, "optimizer.lr": lr, "seed": seed} for loss, lr, seed in cells]
    jobs = [Job(f"{number}", own, {"number": number}) for number, own in enumerate(values)]
    manifest = Manifest(folder / "sweep", "finetune", "digits", [], metric, "max", {}, jobs)
    manifest.write()
    ends = {2: ("failed", "</script><b id=injected>it broke</b>"), 3: ("pruned", "behind")}
    for number, job in enumerate(jobs[:started]):
        status, error = ends.get(number, ("done", None))
        record = {
            "status": status,
            "error": error,
            "metrics": {"val/accuracy": 0.5 + 0.05 * number} if not error else {},
        }
        run = manifest.path(job.name)
        run.mkdir()
        rows = "".join(f"{step},val/accuracy,{1 - 1 / (step + number + 1)}\n" for step in range(1, 500))
        (run / "metrics.csv").write_text("step,name,value\n" + rows)
        write_run(run, {"id": job.name, "stage": "finetune", **record})
    return manifest.folder


def opened(folder: Path, script: str = "", *flags: str) -> str:
    """The document after its scripts have run, and another one behind them."""
    write_report(folder)
    page = folder / "sweep.html"
    page.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    command = [BROWSER, *FLAGS, *flags, f"--user-data-dir={folder / 'browser'}", page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def part(document: str, name: str) -> str:
    return re.search(rf'<section class="card" id="{name}">.*?</section>', document, re.DOTALL).group()


@needs_browser
def test_every_run_is_drawn_and_an_error_message_is_only_text(tmp_path: Path):
    document = opened(make_sweep(tmp_path))
    assert "data-error" not in document
    lines = re.findall(r'<path class="job (\w+)', part(document, "parallel"))
    assert sorted(lines) == ["done"] * 5 + ["failed", "planned", "pruned"]
    assert len(re.findall(r'<circle class="job ', part(document, "scatters"))) == 2 * 8
    assert len(re.findall(r'<path class="band"', part(document, "curves"))) == 2
    assert part(document, "curves").count("<span data-c=") == 3
    assert "Too few configurations" in part(document, "importance")
    assert 'class="rise"' in part(document, "budget")
    assert "&lt;/script&gt;&lt;b id=injected&gt;it broke" in part(document, "failed")
    assert "<b id=" not in document
    assert "NaN" not in document


@needs_browser
def test_pointing_at_a_row_lights_its_configuration_up_everywhere(tmp_path: Path):
    point = "document.querySelector('#ranking tr[data-c]').dispatchEvent(new MouseEvent('mouseover', {bubbles: true}));"
    fits = "document.body.dataset.fits = document.documentElement.scrollWidth <= innerWidth;"
    first = "document.body.dataset.first = D.configurations[0]"
    document = opened(make_sweep(tmp_path), point + fits + first, "--window-size=500,2000")  # as on a phone
    assert 'data-fits="true"' in document
    assert 'viewBox="0 0 360 ' in part(document, "parallel")
    assert 'data-first="loss ' in document
    hot = re.findall(r'<(\w+)[^>]* class="[\w ]*\bhot"[^>]*>', document)
    assert hot.count("tr") == 1
    assert part(document, "parallel").count(" hot") == 2
    assert 'class="focus"' in document


@needs_browser
@pytest.mark.parametrize(
    ("metric", "started", "states"), [("val/accuracy", 0, {"planned"}), (None, 2, {"done", "planned"})]
)
def test_a_page_without_scores_shows_states(tmp_path: Path, metric: str | None, started: int, states: set[str]):
    document = opened(make_sweep(tmp_path, metric, started))
    assert "data-error" not in document
    assert set(re.findall(r'<path class="job (\w+)', part(document, "parallel"))) == states
    assert 'id="scatters"' not in document
    assert "None" not in document


@needs_browser
def test_a_script_error_is_left_on_the_page(tmp_path: Path):
    assert 'data-error="Uncaught Error: on purpose"' in opened(
        make_sweep(tmp_path, started=0), "throw Error('on purpose')"
    )


def test_the_page_asks_nothing_of_the_network(tmp_path: Path):
    folder = make_sweep(tmp_path)
    write_report(folder)
    text = (folder / "sweep.html").read_text()
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script[^>]* src=|<link|@import|url\(", text)


def test_a_thousand_runs_make_a_light_page(tmp_path: Path):
    values = [{"loss": loss, "lr": lr, "seed": seed} for loss in "ab" for lr in range(100) for seed in range(5)]
    jobs = [Job(f"{number:03d}", own, {"number": number}) for number, own in enumerate(values)]
    manifest = Manifest(tmp_path / "sweep", "finetune", "digits", [], "val/loss", "min", {}, jobs)
    manifest.write()
    rows = "step,name,value\n" + "".join(f"{step},val/loss,{1 / step}\n" for step in range(1, 1001))
    for number, job in enumerate(jobs):
        run = manifest.path(job.name)
        run.mkdir()
        record = {"id": job.name, "stage": "finetune", "status": "done", "metrics": {"val/loss": number / 1000}}
        if number < 10:
            (run / "metrics.csv").write_text(rows)
        write_run(run, record)
    write_report(manifest.folder)
    text = (manifest.folder / "sweep.html").read_text()
    assert len(text) < 400_000
    assert text.count("<tr data-c=") == 50
    assert "The first 50 of 200" in text
    data = json.loads(re.search(r'id="data">(.*?)</script>', text).group(1))
    assert len(data["jobs"]) == 1000
    assert [len(line["x"]) for curve in data["curves"] for line in curve["lines"]] == [100, 100]
