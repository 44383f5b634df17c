"""CSV tables for spreadsheets: texts that look like formulas are escaped, numbers are not."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest

from warmstart.report.leaderboard import escape, jobs_csv, leaderboard_csv, rank, to_csv
from warmstart.report.runs import read_transfer, runs_csv

pytestmark = pytest.mark.quick


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\uff1d1+1", "-", "=", "-x", "\t-0.5", "-inf"],
    ids=ascii,
)
def test_a_text_that_would_run_gets_an_apostrophe(text: str):
    shown = "'" + text.replace("\r", "\n")
    assert escape(text) == shown
    (head, row) = csv.reader(io.StringIO(to_csv([text], [{text: text}]), newline=""))
    assert head == row == [shown]


@pytest.mark.parametrize("cell", [-0.5, -1, "-0.5", "+1e-5", "-3", "a=b", "a-b", "", None, True, math.nan], ids=repr)
def test_numbers_and_other_texts_stay_as_they_are(cell: object):
    assert escape(cell) is cell
    assert to_csv(["x"], [{"x": cell, "y": 1}]).splitlines()[1:] == ['""' if cell in ("", None) else str(cell)]


def test_the_tables_of_a_sweep_hold_no_formulas_from_its_runs():
    job = {
        "name": "job0",
        "state": "done",
        "values": {"loss": "=cmd|' /C calc'!A0", "@key": -0.5},
        "configuration": "a",
        "score": -0.5,
        "metrics": {"val/loss": -0.5, "=metric": 1.0},
        "seconds": 1.0,
        "steps": 1,
        "error": "-error",
    }
    tables = [jobs_csv([job]), leaderboard_csv(rank([job], "val/loss", "min"), "val/loss")]
    for table in tables:
        cells = [cell for row in csv.reader(io.StringIO(table)) for cell in row]
        assert {"'=cmd|' /C calc'!A0", "'@key", "-0.5"} <= set(cells)
        assert [cell for cell in cells if cell[:1] in "=+-@" and cell not in ("", "-0.5")] == []
    assert "'=metric" in tables[0].splitlines()[0]
    assert "'-error" in tables[0].splitlines()[1]


def test_a_carriage_return_does_not_begin_a_row():
    rows = list(csv.reader(io.StringIO(to_csv(["x"], [{"x": "a\r=1\r\nb"}]), newline="")))
    assert rows == [["x"], ["a\n=1\nb"]]


def test_the_table_of_a_transfer_holds_no_formulas_from_its_plan(made):
    scores = {(arm, "steps", 1): np.ones((2, 3)) for arm in ("@SUM", "pretrained")}
    folder = made(scores)
    rows = list(csv.DictReader(io.StringIO(runs_csv(read_transfer(folder)))))
    assert {row["arm"] for row in rows} == {"'@SUM", "pretrained"}
    assert {row["test"] for row in rows} == {"1.0"}
