"""Jobs in the process that runs them: what is written when a signal comes at a bad moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstart.run.manifest import Job, Manifest
from warmstart.stage import together
from warmstart.sweep.job import run_together


def test_a_signal_while_jobs_are_set_up_leaves_none_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    jobs = [Job(name, {}, {"stage": "finetune", "experiment": "digits"}) for name in ("a", "b")]
    manifest = Manifest(tmp_path / "sweep", "finetune", "digits", [], None, "max", {}, jobs)
    manifest.write()

    def signalled(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(together, "run", signalled)
    with pytest.raises(KeyboardInterrupt):
        run_together(manifest, jobs)
    for job in jobs:
        record = manifest.record(job.name)
        assert (record["status"], record["error"]) == ("interrupted", "interrupted by the user")
        assert manifest.state(job.name) == "interrupted"
