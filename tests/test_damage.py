"""A subset of scripts/damage.py: damaged files are detected, also without their checksum."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import FAST
from warmstart import main
from warmstart.core.errors import UserError
from warmstart.data.storage import cache
from warmstart.report.sweep import write_report
from warmstart.run.checksums import read_record, write_checksums, write_record
from warmstart.run.folder import RunFolder
from warmstart.run.lock import Lock
from warmstart.run.manifest import Manifest, check_runs, record_runs
from warmstart.run.saved import open_model, read_preprocessor
from warmstart.stages.runner import StageRunner
from warmstart.sweep import launch, study
from warmstart.sweep.journal import Journal
from warmstart.sweep.plan import Composer, grid
from warmstart.sweep.schedule import Rules

SMALL = ("backbone.hidden=[8]", *FAST)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_text("{}")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_every_file_of_a_finished_run(cli):
    made = cli("stage=finetune", "init=scratch", *SMALL)
    run = made.run("finetune")
    names = ["run.json", "config.yaml", *sorted(f"model/{path.name}" for path in (run / "model").iterdir())]
    for number, name in enumerate(names):
        kept = (run / name).read_bytes()
        (flip, cut)[number % 2](run / name)
        seen = cli("stage=evaluate", "experiment=digits", f"run={run}")
        assert seen.status == 2, name
        assert str(run / name) in seen.error, name
        assert "Traceback" not in seen.err
        (run / name).write_bytes(kept)


def test_what_is_read_of_a_model_is_checked(cli):
    run = RunFolder.open(cli("stage=pretrain", *SMALL).run("pretrain"))
    model = run.path / "model"
    flip(model / "pretrained_model.pth")
    assert open_model(model, run).preprocessor == read_preprocessor(run)
    flip(model / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        open_model(model, run)
    read_preprocessor(run)
    flip(model / "preprocessor.json")
    with pytest.raises(UserError, match=r"preprocessor\.json is damaged"):
        read_preprocessor(run)
    write_checksums(model)
    with pytest.raises(UserError, match=r"preprocessor\.json is not the file that its run wrote"):
        read_preprocessor(run)


def test_the_latest_run_is_not_silently_an_older_one(cli):
    for _ in range(2):
        made = cli("stage=finetune", "init=scratch", *SMALL)
    newest = made.run("finetune")
    flip(newest / "run.json")
    seen = cli("stage=evaluate", "experiment=digits", "run=latest")
    assert seen.status == 0
    assert seen.err.count(f"warning: {newest / 'run.json'} is damaged") == 1


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a sweep of two jobs that has ended."""
    jobs = grid(Composer([main.CONF]), ["stage=finetune", "init=scratch", *SMALL, "seed=0,1"])
    folder = tmp_path_factory.mktemp("sweep") / "sweep"
    manifest = Manifest(folder, "finetune", "digits", [], "val/accuracy", "max", {"commit": ""}, jobs)
    manifest.write()
    launch.run(manifest, {"workers": 0}, Rules(), StageRunner())
    record_runs(manifest)
    return folder


@pytest.mark.parametrize("name", ["metrics.csv", "run.json"])
def test_a_run_of_a_sweep(ended: Path, tmp_path: Path, name: str):
    folder = shutil.copytree(ended, tmp_path / "sweep")
    path = min(folder.glob("runs/*")) / name
    flip(path)
    with pytest.raises(UserError, match=rf"{path} is damaged"):
        write_report(folder)


def test_a_record_that_was_written_again_after_its_sweep_had_ended(ended: Path, tmp_path: Path):
    folder = shutil.copytree(ended, tmp_path / "sweep")
    path = min(folder.glob("runs/*/run.json"))
    record = read_record(path)
    write_record(path, {**record, "metrics": {**record["metrics"], "val/accuracy": 1.0}})
    with pytest.raises(UserError, match=rf"{path} is damaged or was changed"):
        write_report(folder)
    plan = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**plan, "checksums": {}}))
    with pytest.raises(UserError, match=r"manifest.json is damaged"):
        write_report(folder)


def test_a_run_that_was_removed_is_run_again(ended: Path, tmp_path: Path):
    folder = shutil.copytree(ended, tmp_path / "sweep")
    removed = min(folder.glob("runs/*"))
    shutil.rmtree(removed)
    with pytest.raises(UserError, match=rf"{removed}/run.json is missing"):
        check_runs(Manifest.read(folder))
    check_runs(Manifest.read(folder), resumed=True)
    check_runs(Manifest.read(folder))


def operations(path: Path, tmp_path: Path) -> list[dict]:
    return list(Journal(path, Lock(tmp_path / "lock")).read_logs(0))


def test_the_journal_of_a_study(tmp_path: Path):
    path, logs = tmp_path / "study.log", [{"number": number} for number in range(4)]
    journal = Journal(path, Lock(tmp_path / "lock"))
    journal.append_logs(logs[:2])
    journal.append_logs(logs[2:])
    assert operations(path, tmp_path) == logs
    written = path.read_bytes()
    path.write_bytes(written[:-5])
    assert operations(path, tmp_path) == logs[:3]
    Journal(path, Lock(tmp_path / "lock")).append_logs(logs[3:])
    assert path.read_bytes() == written
    lines = written.splitlines(keepends=True)
    for harmed in (written.replace(b'"number":1', b'"number":7'), b"".join(lines[:1] + lines[2:]), b"\n" + written):
        path.write_bytes(harmed)
        with pytest.raises(UserError, match=r"study\.log is damaged: line \d+ does not match"):
            operations(path, tmp_path)


def test_a_study_that_lacks_what_it_held(tmp_path: Path):
    manifest = Manifest(tmp_path, "finetune", "digits", [], "val/accuracy", "max", {}, [])
    study.open_journal(manifest).append_logs([{"number": 0}, {"number": 1}])
    manifest.checksums[study.STUDY] = study.study_digest(manifest)
    study.check_study(manifest)
    path = tmp_path / study.STUDY
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"recorded operations are missing"):
        study.check_study(manifest)


@pytest.mark.parametrize("name", ["values.npy", "checksums.json"])
@pytest.mark.parametrize("harm", [flip, cut, Path.unlink, empty])
def test_a_damaged_cache_entry_is_recreated(tmp_path: Path, monkeypatch, capfd, name: str, harm: Callable):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path))

    def opened() -> list[int]:
        def make(folder: Path) -> None:
            np.save(folder / "values.npy", np.arange(5))

        return cache.entry("kind", "name", make, lambda folder: cache.arrays(folder, ["values"])[0].tolist())

    assert opened() == opened() == [0, 1, 2, 3, 4]
    assert capfd.readouterr().err == ""
    harm(tmp_path / "kind" / "name" / name)
    assert opened() == [0, 1, 2, 3, 4]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: {tmp_path / 'kind' / 'name' / name} is ")
    assert opened() == [0, 1, 2, 3, 4]
    assert capfd.readouterr().err == ""
