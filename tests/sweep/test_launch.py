"""Order of jobs, and the effect of a failure on the others; in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig

from warmstart import main
from warmstart.core.errors import WriteError
from warmstart.report.sweep import write_report
from warmstart.run.folder import RunFolder
from warmstart.run.manifest import HALVING, MANIFEST, Job, Manifest
from warmstart.stages.runner import StageRunner
from warmstart.sweep import launch
from warmstart.sweep.job import run_group, run_job
from warmstart.sweep.plan import Composer, grid
from warmstart.sweep.schedule import Rules

WORDS = ("stage=finetune", "init=scratch", "visualization=[]", "trainer.max_epochs=1", "trainer.log_every_n_steps=1")
HERE = {"workers": 0}


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Manifest]:
    """Three jobs of which the first diverges, frozen."""

    def call(change: Callable[[list[Job]], list[Job]] = list) -> Manifest:
        jobs = grid(Composer([main.CONF]), [*WORDS, "optimizer=sgd", "optimizer.lr=1e30,0.1,0.2"])
        manifest = Manifest(tmp_path / "sweep", "finetune", "digits", [], "val/accuracy", "max", {}, change(jobs))
        manifest.write()
        return manifest

    return call


def states(manifest: Manifest) -> list[str]:
    return [manifest.state(job.name) for job in manifest.jobs]


def attempts(manifest: Manifest) -> list[int]:
    return [manifest.attempts(job.name) for job in manifest.jobs]


def test_on_failure_stop_leaves_the_remaining_jobs_pending(planned):
    manifest = planned()
    launch.run(manifest, HERE, Rules("stop"), StageRunner())
    assert states(manifest) == ["failed", "planned", "planned"]
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert states(manifest) == ["failed", "done", "done"]
    assert attempts(manifest) == [1, 1, 1]


def test_a_failed_job_is_retried_as_often_as_set(planned):
    manifest = planned()
    launch.run(manifest, HERE, Rules(retries=2), StageRunner())
    assert states(manifest) == ["failed", "done", "done"]
    assert attempts(manifest) == [3, 1, 1]
    launch.run(manifest, HERE, Rules(retries=3), StageRunner())
    assert attempts(manifest) == [4, 1, 1]


def test_once_more_is_for_what_failed_before_and_not_for_what_fails_now(planned):
    manifest = planned(lambda jobs: [jobs[0], replace(jobs[0], name="other")])
    launch.run(manifest, HERE, Rules("stop"), StageRunner())
    assert attempts(manifest) == [1, 0]
    launch.run(manifest, HERE, Rules(retry_failed=True), StageRunner())
    assert attempts(manifest) == [2, 1]
    launch.run(manifest, HERE, Rules(retry_failed=True), StageRunner())
    assert attempts(manifest) == [3, 2]


def test_a_job_waits_for_what_it_needs_and_does_not_start_without(planned):
    def chain(jobs: list[Job]) -> list[Job]:
        bad, good, last = jobs
        return [replace(bad, needs=last.name), good, replace(last, needs=good.name)]

    manifest = planned(chain)
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert states(manifest) == ["failed", "done", "done"]
    ids = [manifest.record(job.name)["id"] for job in manifest.jobs]
    assert ids[1] < ids[2] < ids[0]


def test_what_needs_a_failed_job_stays_planned(planned):
    manifest = planned(lambda jobs: [jobs[0], jobs[1], replace(jobs[2], needs=jobs[0].name)])
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert states(manifest) == ["failed", "done", "planned"]


def test_a_job_that_another_process_holds_is_left_to_it(planned, capfd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("warmstart.sweep.job.LOCK_TIMEOUT", 0.2)
    manifest = planned()
    lock = manifest.lock(manifest.jobs[1].name)
    assert lock.acquire()
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert manifest.record(manifest.jobs[1].name) is None
    lock.release()
    launch.run(manifest, HERE, Rules(), StageRunner())
    assert states(manifest) == ["failed", "done", "done"]


def test_a_run_of_another_config_does_not_pass_for_the_job(planned):
    manifest = planned()
    launch.run(manifest, HERE, Rules(), StageRunner())
    second, third = (manifest.path(job.name) for job in manifest.jobs[1:])
    shutil.rmtree(second)
    shutil.copytree(third, second)
    outcome = run_job(manifest, manifest.jobs[1], StageRunner().run)
    assert outcome.state == "failed"
    assert "a run of another config" in outcome.error


def test_jobs_that_are_over_are_not_trained_together_again(planned):
    manifest = planned()
    launch.run(manifest, HERE, Rules(), StageRunner())
    before = [manifest.record(job.name) for job in manifest.jobs]
    assert "another process has run" in run_group(manifest, manifest.jobs[1:], StageRunner().run_group)
    assert [manifest.record(job.name) for job in manifest.jobs] == before


def test_a_job_with_an_interrupted_selection_is_not_grouped(planned):
    manifest = planned()
    halving = manifest.path(manifest.jobs[0].name) / HALVING / MANIFEST
    halving.parent.mkdir(parents=True)
    halving.touch()
    work = launch.grouped(manifest, manifest.jobs, 32, StageRunner())
    assert [[job.name for job in one.jobs] for one in work] == [
        [manifest.jobs[0].name],
        [job.name for job in manifest.jobs[1:]],
    ]


@pytest.mark.parametrize("size", [1, 32], ids=["alone", "in a group"])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_job_that_fails_before_it_has_a_record_is_not_started_for_ever(planned, monkeypatch, retries: int, size: int):
    started = []

    def full(run: RunFolder, config: DictConfig) -> None:
        started.append(run.path.name)
        raise WriteError(run.path / "config.yaml", "No space left on device")

    monkeypatch.setattr(RunFolder, "write_config", full)
    manifest = planned(lambda jobs: jobs[:2])
    failures = launch.run(manifest, {"workers": 0, "together": size}, Rules(retries=retries), StageRunner())
    names = [job.name for job in manifest.jobs]
    counts = [retries + 1, retries + (size == 1)]  # a group stops at its first job
    assert [started.count(name) for name in names] == counts
    assert list(failures) == names
    summary = write_report(manifest.folder, failures)
    assert summary["states"] == {"failed": 2}
    assert "config.yaml: No space left on device" in summary["jobs"][0]["error"]


def test_a_job_computes_with_the_threads_that_its_config_names(tmp_path: Path):
    (job,) = grid(Composer([main.CONF]), [*WORDS, "trainer.threads=2", "test=false"])
    manifest = Manifest(tmp_path / "sweep", "finetune", "digits", [], "val/accuracy", "max", {}, [job])
    manifest.write()
    assert launch.earlier_threads(manifest) is None
    launch.run(manifest, {**HERE, "threads": 1}, Rules(), StageRunner())
    assert manifest.record(job.name)["threads"] == 2
    assert torch.get_num_threads() == 1
    assert launch.earlier_threads(manifest) == 2
