"""A failed write ends a run or a sweep with one line; with free space it resumes."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from scripts.forked import Ended, command

SMALL = ["visualization=[]", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "hydra.launcher.workers=0"]
CHECKPOINT = 2**19  # bytes: more than all other files of such a run, and less than a checkpoint


def limited(words: list[str], folder: Path, size: int | None = None) -> Ended:
    """Run the command where no file can become larger than `size`."""

    def limit() -> None:
        if size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return command([*words, f"output_dir={folder / 'outputs'}"], folder, limit)


def statuses(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["status"] for path in folder.rglob("run.json")]


def check(ended: Ended, folder: Path, status: int, *parts: str) -> None:
    assert ended.status == status, ended.err
    assert not ended.crashed, ended.err
    assert len(ended.errors) == 1
    assert all(part in ended.err for part in parts)
    assert not list(folder.rglob(".*.tmp"))


def test_a_run(tmp_path: Path):
    full = limited(["stage=pretrain", *SMALL], tmp_path, CHECKPOINT)
    check(full, tmp_path, 1, "checkpoints/best.ckpt: File too large", "next: python train.py resume=")
    assert statuses(tmp_path) == ["failed"]
    (run,) = (tmp_path / "outputs").glob("pretrain/*/*")
    assert limited([f"resume={run}"], tmp_path).status == 0
    assert statuses(tmp_path) == ["done"]


def test_a_sweep(tmp_path: Path):
    words = ["-m", "stage=finetune", "init=scratch", "sweep.preflight=false", *SMALL, "seed=0,1"]
    full = limited(words, tmp_path, CHECKPOINT)
    check(full, tmp_path, 3, "error: 2 jobs of 2 failed", "best.ckpt: File too large", "sweep.retries=1")
    assert statuses(tmp_path) == ["failed", "failed"]
    (sweep,) = (tmp_path / "outputs").glob("sweep/*/*/*")
    assert "best.ckpt: File too large" in (sweep / "jobs.csv").read_text()


def test_a_sweep_whose_plan_has_no_room(tmp_path: Path):
    words = ["-m", "stage=finetune", "init=scratch", "sweep.preflight=false", *SMALL, "seed=0,1"]
    check(limited(words, tmp_path, 2**10), tmp_path, 1, "manifest.json: File too large")
    assert not list((tmp_path / "outputs").glob("sweep/*/*/*"))


def test_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    full = limited(["stage=pretrain", "experiment=shakespeare", "optimizer=adamw", *SMALL[:1]], tmp_path, 2**16)
    check(full, tmp_path, 1, "error: cannot write ", "cache/tokens/")
    assert not list((tmp_path / "cache").rglob(".*"))
