from __future__ import annotations

from pathlib import Path

import pytest

from warmstart.data import schema
from warmstart.data.schema import missing_columns

pytestmark = pytest.mark.quick


def record(kind: str, *columns: str, separator: str | None = None) -> dict:
    return {"data": {"inputs": {"kind": kind, "columns": list(columns), "separator": separator}}}


def test_the_table_to_predict_for_is_written_as_those_of_the_run(tmp_path: Path):
    path = tmp_path / "t.csv"
    path.write_text("a~b,c\n1~2\n")
    missing = missing_columns({"input": str(path), "data": {}})
    assert missing(record("table", "a", "b,c", separator="~")) == []
    assert missing(record("table", "a", "b,c")) == ["a", "b,c"]


def test_a_folder_to_predict_for_is_no_table(tmp_path: Path):
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,cat\n")
    assert missing_columns({"input": str(tmp_path), "data": {}})(record("image", "photo")) == []
    assert missing_columns({"data": {"root": str(tmp_path)}})(record("table", "photo")) == ["photo"]


def test_a_json_document_is_no_table(tmp_path: Path):
    path = tmp_path / "squad.json"
    path.write_text('{"version": "1.1", "data": []}')
    assert missing_columns({"input": str(path), "data": {}})(record("text", "question", "context")) == []
    path.write_text('[{"question": "Who?"}]')
    assert missing_columns({"input": str(path), "data": {}})(record("text", "question", "context")) == ["context"]


def test_a_table_is_read_once_and_only_when_a_run_needs_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reads = []
    monkeypatch.setattr(schema, "columns_of", lambda *given: reads.append(given) or ["a"])
    missing = missing_columns({"data": {"root": str(tmp_path)}})
    assert missing(record("text", "a")) == missing({"data": None}) == [] == reads
    assert missing(record("table", "a")) == []
    assert missing(record("table", "b")) == ["b"]
    assert len(reads) == 1
