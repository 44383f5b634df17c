"""What more labels and more pretraining would bring: known curves, intervals, and real curves of small models."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scripts import calibrate_extrapolation

from warmstart.report.extrapolation import extrapolation, title
from warmstart.report.power_law import forecast
from warmstart.report.runs import Transfer, read_transfer
from warmstart.report.transfer import show, summarize, write_report

COUNTS = np.array([10, 20, 40, 80])


def law(n, asymptote: float = 0.1, exponent: float = 0.7):
    """Accuracy: one minus a power law of the error."""
    return 1 - asymptote - 2.0 * np.asarray(n, float) ** -exponent


def noisy(n, sd: float, rng: np.random.Generator, **shape: float) -> np.ndarray:
    """Scores (K, 5) around the law."""
    return law(n, **shape)[:, None] + rng.normal(0, sd, (len(n), 5))


def test_intervals_cover_the_truth_of_known_power_laws_and_narrow_with_less_noise():
    rng = np.random.default_rng(0)
    covered, widths = [], {0.003: [], 0.03: []}
    for _ in range(20):
        shape = {"asymptote": rng.uniform(0, 0.1), "exponent": rng.uniform(0.3, 1.0)}
        for sd, found in widths.items():
            (one,) = forecast(COUNTS, noisy(COUNTS, sd, rng, **shape), [320], "max", 1000)
            covered.append(one.low <= law(320, **shape) <= one.high)
            found.append(one.high - one.low)
            assert 0 <= one.low <= one.score <= one.high <= 1
    assert np.mean(covered) >= 0.9
    assert np.mean(widths[0.003]) < 0.7 * np.mean(widths[0.03])


def test_a_flat_curve_stays_flat_and_a_rising_one_is_continued():
    rng = np.random.default_rng(1)
    (flat,) = forecast(COUNTS, 0.5 + rng.normal(0, 0.002, (4, 5)), [160], "max", 1000)
    assert flat.low < 0.5 < flat.high
    assert abs(flat.score - 0.5) < 0.02
    (rising,) = forecast(COUNTS, noisy(COUNTS, 0.002, rng), [160], "max", 1000)
    assert rising.low > law(80)


def test_an_error_metric_is_the_mirror_image():
    scores = noisy(COUNTS, 0.01, np.random.default_rng(2))
    up, down = forecast(COUNTS, scores, [160], "max", 1000)[0], forecast(COUNTS, 1 - scores, [160], "min", 1000)[0]
    assert (1 - down.score, 1 - down.high, 1 - down.low) == pytest.approx((up.score, up.low, up.high))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_scores_at_a_bound_have_finite_intervals_within_it(value: float):
    (one,) = forecast(COUNTS, np.full((4, 3), value), [640], "max", 100)
    assert 0 <= one.low <= one.high <= 1
    assert one.low <= value <= one.high


def drawn(mean: float, seed: int) -> np.ndarray:
    """Scores (S, N) of 0 and 1."""
    rng = np.random.default_rng(seed)
    return (np.arange(300) < 300 * (mean + rng.normal(0, 0.005, (6, 1)))) * 1.0


def cells(labels: list[int], steps: int = 0) -> dict:
    """Scores of two arms, and of snapshots of the pretraining."""
    found = {("pretrained", "steps", n): drawn(law(10 * n, 0.05), n) for n in labels}
    found |= {("scratch", "steps", n): drawn(law(10 * n, 0.2), 50 + n) for n in labels}
    return found | {
        (f"pretrained@{n}", "steps", labels[0]): drawn(1 - 0.95 * 2 ** (-0.4 * n), 90 + n) for n in range(1, steps + 1)
    }


SNAPSHOTS = [{"number": n, "step": 10 * 2**n, "val/loss": 1 / n} for n in (1, 2, 3, 4)]


def test_the_report_says_what_more_of_each_would_bring_and_which_is_cheaper(made, capsys):
    transfer = read_transfer(made(cells([1, 2, 4, 8], 4), snapshots=SNAPSHOTS))

    def at_prices(label: float | None, hour: float | None) -> Transfer:
        rules = {**transfer.rules, "price": {"label": label, "hour": hour}}
        return replace(transfer, config={**transfer.config, "transfer": rules})

    report = summarize(at_prices(0.1, 10.0))
    found = report["extrapolation"]
    arm = found["labels"][0]
    assert (arm["arm"], arm["rows"], arm["seeds"]) == ("pretrained", [10, 20, 40, 80], 6)
    assert [one["rows"] for one in arm["forecasts"]] == [160, 320, 640]
    assert arm["forecasts"][0]["cost"] == pytest.approx(8.0)
    low, high = arm["forecasts"][2]["interval"]
    assert low < law(640, 0.05) < high
    length = found["pretraining"]
    assert length["steps"] == [20, 40, 80, 160]
    assert [one["steps"] for one in length["forecasts"]] == [320, 640, 1280]
    assert length["hour"] is None  # it is more than eight times as long
    assert found["cheaper"]["cheaper"] == "pretraining"  # five seconds cost less than a label
    assert extrapolation(at_prices(1e-4, 1000.0))["cheaper"]["cheaper"] == "labels"
    assert extrapolation(at_prices(None, 10.0))["cheaper"] is None
    show(report)
    printed = " ".join("".join(capsys.readouterr()).split())
    assert "pretrained with another 80 labelled rows (160 in total)" in printed
    assert "more pretraining is cheaper" in printed


def test_the_title_counts_units_if_only_the_pretraining_is_extrapolated(made):
    rules = {"seeds": "auto", "looks": [6, 12]}
    report = summarize(read_transfer(made(cells([1, 2], 4), snapshots=SNAPSHOTS, rules=rules)))
    assert report["extrapolation"]["labels"] == []
    assert "over 6 new seeds" in title(report)


def test_with_two_label_counts_and_no_snapshots_nothing_is_said(made):
    folder = made(cells([1, 2]))
    assert write_report(folder)["extrapolation"] is None
    assert "More labels or more pretraining" not in (folder / "report.html").read_text()
    assert json.loads((folder / "report.json").read_text())["extrapolation"] is None


def test_prices_that_are_no_prices_are_refused(cli):
    for price in ("{label:cheap,hour:1}", "{label:-1,hour:1}", "{label:1,hour:1}"):
        outcome = cli(f"transfer.price={price}")
        assert outcome.status == 2
        assert "transfer.price" in outcome.error
        assert not outcome.folder.exists()


def test_intervals_cover_larger_counts_of_small_models_on_real_data(monkeypatch):
    cheap = {name: calibrate_extrapolation.CLASSIFIERS[name] for name in ("k-NN", "naive Bayes", "centroids")}
    monkeypatch.setattr(calibrate_extrapolation, "CLASSIFIERS", cheap)
    tasks = [next(calibrate_extrapolation.tables()), *calibrate_extrapolation.digits()]
    table = calibrate_extrapolation.measured(curve for task in tasks for curve in calibrate_extrapolation.curves(task))
    covers = table.groupby("method")["covers"].mean()
    assert covers[calibrate_extrapolation.OURS] >= 0.9 > covers["constant"]
