"""Run folders: exclusive, consistent at all times, with the correct status."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from warmstart.core.errors import Interrupted, Unmet, UserError, WriteError
from warmstart.run.checksums import write_record
from warmstart.run.files import write_atomically
from warmstart.run.folder import RunFolder
from warmstart.run.identity import config_sha256, derive_seed, new_id
from warmstart.run.lineage import latest

pytestmark = pytest.mark.quick

CONFIG = OmegaConf.create({"stage": "pretrain", "experiment": "digits", "seed": 3, "half": "${seed}"})


def test_runs_started_at_once_do_not_share_a_folder(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: RunFolder.create(CONFIG, tmp_path), range(40)))
    assert len({run.path for run in runs}) == 40
    assert len({new_id() for _ in range(1000)}) == 1000
    with pytest.raises(UserError, match="exists already"):
        RunFolder.create(CONFIG, tmp_path, runs[0].path.name)


def test_record_has_the_agreed_fields_and_the_resolved_config(tmp_path: Path):
    run = RunFolder.create(CONFIG, tmp_path)
    record = json.loads((run.path / "run.json").read_text())
    assert set(record) == {
        *("id", "stage", "experiment", "status", "seed", "config_sha256", "parent", "git", "environment"),
        *("threads", "data", "metrics", "transfer", "cost", "error", "checksums"),
    }
    assert record["status"] == "running"
    assert record["environment"]["torch"]
    assert run.config().half == 3
    assert record["config_sha256"] == config_sha256({"half": 3, "seed": 3, "experiment": "digits", "stage": "pretrain"})


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, "done"),
        (ValueError("bad"), "failed"),
        (UserError("worse"), "failed"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_status_is_true_however_the_run_ends(error: BaseException | None, status: str, tmp_path: Path):
    run = RunFolder.create(CONFIG, tmp_path)

    def work() -> None:
        with run.recording():
            assert RunFolder.open(run.path).record["status"] == "running"
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    record = RunFolder.open(run.path).record
    assert record["status"] == status
    assert (record["error"] is None) == (error is None)
    assert ("Traceback" in (run.path / "train.log").read_text()) == (status == "failed")


def test_a_write_that_breaks_off_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "file.json"
    write_atomically(path, "old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "new and longer")
    assert path.read_text() == "old"


def test_nan_never_gets_into_a_record(tmp_path: Path):
    run = RunFolder.create(CONFIG, tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        run.update(metrics={"val/loss": float("nan")})
    run.update(status="failed")
    run.lock.release()
    record = RunFolder.open(run.path).record
    assert (record["metrics"], record["status"]) == ({}, "failed")


def test_latest_takes_the_newest_finished_run_of_the_same_experiment_only(tmp_path: Path):
    for experiment, status, run_id in (
        ("digits", "done", "2026-a"),
        ("digits", "done", "2026-b"),
        ("digits", "failed", "2026-c"),
        ("digits", "running", "2026-d"),
        ("vectors", "done", "2026-e"),
    ):
        run = RunFolder.create(CONFIG, tmp_path / "pretrain" / experiment, run_id)
        run.update(status=status, id=run_id)
    assert latest(tmp_path, "pretrain", "digits").path.name == "2026-b"
    with pytest.raises(UserError, match="stage=pretrain experiment=table"):
        latest(tmp_path, "pretrain", "table")


def test_seeds_are_derived_by_name_and_independent():
    seeds = {derive_seed(root, name) for root in range(50) for name in ("subset", "backbone", "head", "order", "noise")}
    assert len(seeds) == 250
    assert derive_seed(1, "order") == derive_seed(1, "order")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have one signal come once a file of this name is in place."""
    original, left = os.replace, [KeyboardInterrupt]

    def replace(source: Path, target: Path) -> None:
        original(source, target)
        if Path(target).name == name and left:
            raise left.pop()

    monkeypatch.setattr("os.replace", replace)


@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
def test_a_signal_before_a_run_begins_leaves_no_folder_or_one_to_resume(name: str, tmp_path: Path, monkeypatch):
    interrupt_after(monkeypatch, name)
    with pytest.raises(KeyboardInterrupt) as error:
        RunFolder.create(CONFIG, tmp_path, "one")
    if name == "config.yaml":
        assert not (tmp_path / "one").exists()
    else:
        assert error.value.run == tmp_path / "one"
        assert RunFolder.open(tmp_path / "one").record["status"] == "interrupted"
        assert (tmp_path / "one/lock").stat().st_size == 0


def test_a_signal_once_a_run_is_done_names_nothing_to_resume(tmp_path: Path, monkeypatch):
    run = RunFolder.create(CONFIG, tmp_path)
    with pytest.raises(Interrupted) as error, run.recording():
        interrupt_after(monkeypatch, "run.json")
    assert error.value.run is None
    assert RunFolder.open(run.path).record["status"] == "done"


def test_a_verdict_that_was_not_asked_for_is_a_run_that_is_done(tmp_path: Path):
    run = RunFolder.create(CONFIG, tmp_path)
    with pytest.raises(Unmet), run.recording():
        raise Unmet("hurts")
    assert RunFolder.open(run.path).record["status"] == "done"


def test_who_takes_the_lock_continues_from_the_record_of_who_had_it(tmp_path: Path):
    first = RunFolder.create(CONFIG, tmp_path)
    second = RunFolder.open(first.path)
    with first.recording():
        first.note(metrics={"val/loss": 1.0})
    second.hold()
    assert (second.record["status"], second.record["metrics"]) == ("done", {"val/loss": 1.0})
    second.lock.release()


def test_a_record_that_cannot_be_written_as_done_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = RunFolder.create(CONFIG, tmp_path)

    def full(path: Path, record: dict) -> None:
        if record["status"] == "done":
            raise WriteError(path, "No space left on device")
        write_record(path, record)

    monkeypatch.setattr("warmstart.run.folder.write_record", full)
    with pytest.raises(WriteError), run.recording():
        pass
    assert run.record["status"] == RunFolder.open(run.path).record["status"] == "failed"


def test_what_a_user_can_mend_is_no_error_of_the_disk(tmp_path: Path):
    run = RunFolder.create(CONFIG, tmp_path)
    with pytest.raises(UserError, match="table"), run.recording():
        raise UserError("table.csv cannot be read: Permission denied")


def test_a_run_of_an_older_version_is_refused_in_a_line_that_names_it(tmp_path: Path):
    run = RunFolder.create(CONFIG, tmp_path)
    for version in ("0.1.0", "0.0.9"):
        write_record(run.path / "run.json", {**run.record, "environment": {"warmstart": version}})
        with pytest.raises(UserError, match=f"written by warmstart {version}, which .* cannot read: create it again"):
            RunFolder.open(run.path)
    write_record(run.path / "run.json", {**run.record, "environment": {"warmstart": "0.10.0"}})
    assert RunFolder.open(run.path).record["id"] == run.record["id"]
