"""Mixed precision is used if the processor supports it, and a job of Slurm is like any other run."""

from __future__ import annotations

from pathlib import Path

import pytest

from warmstart.training.trainer import build_trainer, native_precision


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("fpu avx512_bf16 sse", "bf16-mixed"), ("amx_tile amx_bf16", "bf16-mixed"), ("fpu avx512f", None), ("", None)],
)
def test_auto_asks_the_processor(flags: str, precision: str | None, tmp_path: Path):
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\nflags : {flags}\n")
    assert native_precision("cpu", path) == precision
    assert native_precision("cpu", tmp_path / "absent") is None


def test_the_trainer_gets_the_resolved_precision(composed, tmp_path: Path):
    config = composed("stage=finetune", "trainer.precision=auto", "trainer.accelerator=cpu").trainer
    assert build_trainer(config, tmp_path, None, []).precision == (native_precision("cpu") or "32-true")
    config = composed("stage=finetune", "trainer.accelerator=cpu").trainer
    assert build_trainer(config, tmp_path, None, []).precision == "32-true"


def test_the_trainer_ignores_a_job_of_slurm(composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    job = {"SLURM_NTASKS": "2", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    config = composed("stage=finetune", "trainer.accelerator=cpu").trainer
    assert build_trainer(config, tmp_path, None, []).world_size == 1
