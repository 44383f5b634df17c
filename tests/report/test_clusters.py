"""Reports whose test rows are in clusters, and reports on small test sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from tests.records import change_run

from warmstart.report.clusters import find_clusters
from warmstart.report.runs import read_transfer
from warmstart.report.transfer import show, summarize, write_report
from warmstart.run.identity import config_sha256
from warmstart.run.scores import CLUSTERS, SCORES

ROWS = 480


def scores(mean: float, seed: int, seeds: int = 10, rows: int = ROWS) -> np.ndarray:
    """Scores (S, N) of 0 and 1 of independent rows."""
    return (np.random.default_rng(seed).random((seeds, rows)) < mean) * 1.0


def numbers(folder: Path) -> dict:
    """The report without its page."""
    return summarize(read_transfer(folder))


def with_clusters(folder: Path, names: list[str], column: str | None) -> Path:
    """Give a transfer's test rows clusters of equal size, named in the column."""
    np.save(folder / CLUSTERS, np.repeat(names, ROWS // len(names)))
    config = OmegaConf.load(folder / "config.yaml")
    config.data = {"cluster": column}
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config))
    change_run(folder, config_sha256=config_sha256(OmegaConf.to_container(config)))
    return folder


def test_few_clusters_are_named_wherever_a_verdict_is(made, capsys: pytest.CaptureFixture):
    cells = {("pretrained", "steps", 1): scores(0.8, 1), ("scratch", "steps", 1): scores(0.6, 2)}
    plain = numbers(made(cells))
    folder = with_clusters(made(cells), ["george", "jackson"], "speaker")
    report = write_report(folder)
    named = "these 2 speakers (george, jackson)"
    assert report["clusters"] == {
        "count": 2,
        "noun": "speakers",
        "names": ["george", "jackson"],
        "scope": "these",
        "these": named,
        "restriction": report["clusters"]["restriction"],
    }
    assert report["clusters"]["restriction"].startswith("There are fewer than 5 clusters of test rows")
    sentence = report["headline"]["sentence"]
    assert f"on 480 test rows of {named} only: helps" in sentence
    assert sentence.endswith("; the result does not extend to others.")
    assert report["verdicts"][0]["interval"] == plain["verdicts"][0]["interval"]  # about the rows within them
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text()
        verdicts = text[text.index("Verdicts</h2>" if name == "report.html" else "## Verdicts") :]
        assert f"on {named} only" in verdicts[: verdicts.index("Checks")]
        assert text.count(f"All results are on {named} only; they do not extend to others.") >= 2
    capsys.readouterr()
    show(report)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count(f"{named} only") >= 1


def test_verdicts_on_five_clusters_or_more_are_about_others_too(made):
    effects = np.repeat([0.3, -0.25, 0.2, -0.15, 0.25, 0.05, -0.2, 0.2], 60)
    cells = {
        ("pretrained", "steps", 1): scores(0.6 + effects, 1),
        ("scratch", "steps", 1): scores(0.6, 2),
        ("pretrained", "steps", 4): scores(0.9, 3),
        ("scratch", "steps", 4): scores(0.7, 4),
    }
    plain = numbers(made(cells))
    report = numbers(with_clusters(made(cells), list("abcdefgh"), "country"))
    assert report["clusters"]["scope"] == "population"
    assert "on 480 test rows of 8 countries:" in report["headline"]["sentence"]
    assert "only" not in report["headline"]["sentence"]
    assert [row["verdict"] for row in plain["verdicts"]] == ["helps", "helps"]
    assert [row["verdict"] for row in report["verdicts"]] == ["cannot tell", "helps"]
    first = report["verdicts"][0]
    assert first["seeds_needed"] is None
    assert first["clusters_needed"] == -(-first["rows_needed"] // 60) > 8
    widths = [one["labels_saved"][0]["interval"] for one in (plain, report)]
    assert widths[0] != widths[1]  # drawn by cluster


def test_one_cluster_with_most_rows_restricts_the_results_to_these_clusters(made):
    cells = {("pretrained", "steps", 1): scores(0.8, 1), ("scratch", "steps", 1): scores(0.6, 2)}
    plain = numbers(made(cells))
    folder = with_clusters(made(cells), list("abcdef"), "speaker")
    np.save(folder / CLUSTERS, np.repeat(list("abcdef"), [455, 5, 5, 5, 5, 5]))
    change_run(folder)
    report = write_report(folder)
    assert report["clusters"]["scope"] == "these"
    assert "of these 6 speakers (a, b, c, d, e and 1 more) only: helps" in report["headline"]["sentence"]
    assert report["verdicts"][0]["interval"] == plain["verdicts"][0]["interval"]
    assert "One of the clusters has most of the test rows" in (folder / "report.md").read_text()


def test_a_metric_without_scores_by_row_is_about_these_clusters_only(made):
    cells = {("pretrained", "steps", 1): scores(0.8, 1), ("scratch", "steps", 1): scores(0.6, 2)}
    folder = with_clusters(made(cells), list("abcdef"), "speaker")
    for path in (folder / "runs").glob(f"*/{SCORES}"):
        path.unlink()
        change_run(path.parent)
    report = write_report(folder)
    assert (report["clusters"]["scope"], report["verdicts"][0]["verdict"]) == ("these", "helps")
    assert "on these 6 speakers" in report["headline"]["sentence"]
    text = (folder / "report.md").read_text()
    assert "The metric is no mean over test rows" in text
    assert "the variance of the test set is that over the 6 speakers" not in text


def test_the_noun_is_the_column_if_it_is_a_word():
    names = np.array(["a", "b"])
    nouns = [
        find_clusters(names, column).noun for column in (None, "speaker", "body", "class", "passage_id", 3, "speakers")
    ]
    assert nouns == ["clusters", "speakers", "bodies", "classes", "clusters", "clusters", "speakers"]
    assert find_clusters(None) is None
    assert len(find_clusters(np.array(["x" * 400, "y"])).these) < 80


def test_a_test_set_that_is_too_small_is_the_first_warning(made, capsys: pytest.CaptureFixture):
    shared = scores(0.5, 0, 1, 15)
    cells = {("pretrained", "steps", 1): np.repeat(shared, 10, 0), ("scratch", "steps", 1): np.full((10, 15), 0.3)}
    folder = made(cells)
    change_run(folder, bounds=[0, 1])
    report = write_report(folder)
    (row,) = report["verdicts"]
    assert (row["verdict"], row["seeds_needed"]) == ("cannot tell", None)
    assert row["rows_needed"] > 15
    points = f"{100 * row['detectable']:.2g}"
    warning = f"differences below {points} points are detected with a probability below 80 %, with any number of seeds"
    assert report["warnings"][0] == f"15 test rows: {warning}"
    needed = f"no number of seeds suffices on this test set: it is too small, {row['rows_needed']:,} test rows would"
    assert needed in (folder / "report.md").read_text()
    assert needed in (folder / "report.html").read_text()
    capsys.readouterr()
    show(report)
    assert f"{row['rows_needed']:,} test rows" in " ".join(capsys.readouterr().out.split())
    assert "on 15 test rows" in report["headline"]["sentence"]
    assert "15 test rows ·" in (folder / "report.md").read_text()


def test_a_large_test_set_has_no_such_warning(made):
    cells = {("pretrained", "steps", 1): scores(0.8, 1), ("scratch", "steps", 1): scores(0.6, 2)}
    assert not [line for line in numbers(made(cells))["warnings"] if "are detected" in line]


def test_intervals_of_bounded_scores_stay_within_bounds(made):
    few = np.repeat((np.arange(6) > 0) * 1.0, 5).reshape(6, 5).T
    cells = {("pretrained", "steps", 1): few, ("scratch", "steps", 1): 1.0 - np.eye(5, 6) - few}
    folder = made(cells)
    free = numbers(folder)
    change_run(folder, bounds=[0.0, 1.0])
    kept = numbers(folder)
    assert free["table"][0]["interval"][1] > 1
    assert kept["table"][0]["interval"] == [free["table"][0]["interval"][0], 1.0]
    assert free["verdicts"][0]["interval"][1] > 1
    assert kept["verdicts"][0]["interval"][1] == 1.0
    assert kept["verdicts"][0]["p"] == free["verdicts"][0]["p"]
