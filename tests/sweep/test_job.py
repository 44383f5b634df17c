"""Jobs in one process: records after a signal at any point."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstart.run.manifest import Job, Manifest
from warmstart.sweep import job as sweep_job
from warmstart.sweep.job import run_group, run_job


@pytest.fixture
def planned(tmp_path: Path) -> Manifest:
    """Two jobs, frozen."""
    jobs = [Job(name, {}, {"stage": "finetune", "experiment": "digits"}) for name in ("a", "b")]
    manifest = Manifest(tmp_path / "sweep", "finetune", "digits", [], None, "max", {}, jobs)
    manifest.write()
    return manifest


def test_a_signal_while_jobs_are_set_up_leaves_none_running(planned):
    def signalled(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_group(planned, planned.jobs, signalled)
    for job in planned.jobs:
        record = planned.record(job.name)
        assert (record["status"], record["error"]) == ("interrupted", "interrupted by the user")
        assert planned.state(job.name) == "interrupted"


def test_a_signal_while_another_process_is_at_work_leaves_its_record_alone(planned, monkeypatch: pytest.MonkeyPatch):
    def signalled(*_):
        raise KeyboardInterrupt

    def never(*_):
        raise AssertionError

    other = planned.lock("b")
    assert other.acquire()
    sweep_job.open_run(planned, planned.by_name["b"], other)
    before = planned.record("b")
    monkeypatch.setattr("warmstart.run.lock.time.sleep", signalled)
    for run in (lambda: run_job(planned, planned.by_name["b"], never), lambda: run_group(planned, planned.jobs, never)):
        with pytest.raises(KeyboardInterrupt):
            run()
        assert planned.record("b") == before
        assert planned.state("b") == "running"
    other.release()
