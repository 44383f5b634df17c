"""JSON rows that exceed the limits are refused, and numbers of any size are read exactly."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstart.core.errors import UserError
from warmstart.data.readers.records import read_records

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("number", ["1e999999999", "1e99999999999999999999", "-1e-99999999999999999999", "1" * 10_000])
def test_a_number_that_no_float_holds_stays_as_it_is_written(number: str, tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"n": {number}}}\n{{"n": 1.0}}\n')
    assert read_records(path).n.tolist() == [number, "1"]


@pytest.mark.parametrize("depth", [60, 900, 100_000])
@pytest.mark.parametrize("form", ["lines", "list"])
def test_rows_that_are_nested_without_end_are_refused(form: str, depth: int, tmp_path: Path):
    row = '{"x": ' + "[" * depth + "1" + "]" * depth + "}"
    path = tmp_path / "t.json"
    path.write_text(f"[{row}]" if form == "list" else f"{row}\n")
    with pytest.raises(UserError, match=r"(line 1|it) is nested too deeply"):
        read_records(path)
