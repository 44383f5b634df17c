"""CPU threads from the number of free cores, recorded and printed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from warmstart.run import cores
from warmstart.run.cores import Choice, Load, Snapshot, Usage

CPUS = cores.usable_cpus()


@pytest.mark.parametrize(
    ("loads", "threads", "reason", "is_shared"),
    [
        ([Load(2, 0.1)], 2, "0 of 2 cores are busy", False),
        ([Load(2, 0.4)], 1, "1 of 2 cores is busy", True),
        ([Load(2, 1.1)], 1, "1 of 2 cores is busy", True),
        ([Load(2, 7.5)], 1, "2 of 2 cores are busy", True),
        ([Load(8, 2.0)], 6, "2 of 8 cores are busy", True),
        ([Load(1, 0.0)], 1, "0 of 1 cores are busy", False),
        ([Load(64, 20.0), Load(4, 1.0)], 3, "1 of 4 cores is busy", True),
        ([Load(64, 62.0), Load(4, 0.0)], 2, "62 of 64 cores are busy", True),
    ],
    ids=["idle", "half", "one", "overloaded", "eight", "single", "quota", "quota_of_a_busy_machine"],
)
def test_a_thread_per_free_core(loads, threads, reason, is_shared):
    assert cores.choose(loads) == (threads, reason, is_shared)


def test_what_this_process_used_is_not_load():
    then = Snapshot(10.0, 5.0, {"machine": Usage(2, 100.0)})
    now = Snapshot(12.0, 6.5, {"machine": Usage(2, 103.5)})
    assert cores.load(then, now) == [Load(2, 1.0)]


def test_without_counters_the_load_average_decides(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.5, 0.0, 0.0), raising=False)
    assert cores.load(Snapshot(0.0, 0.0, {}), Snapshot(1.0, 1.0, {})) == [Load(len(CPUS), 1.5)]


def test_counters_are_those_of_the_usable_cpus_and_of_the_groups_that_limit_them(tmp_path: Path):
    ticks = os.sysconf("SC_CLK_TCK")
    line = f"{ticks} {ticks} {ticks} 900 900 0 0 {ticks} 500 0\n"
    (tmp_path / "proc/self").mkdir(parents=True)
    lines = [f"cpu{cpu} {line}" for cpu in [*CPUS, max(CPUS) + 1]]
    (tmp_path / "proc/stat").write_text(f"cpu {line}{''.join(lines)}intr 5\n")
    (tmp_path / "proc/self/cgroup").write_text("1:cpu:/\n0::/outer/inner\n")
    for group, limit in {"outer": "350000 100000", "outer/inner": "max 100000"}.items():
        folder = tmp_path / "sys/fs/cgroup" / group
        folder.mkdir(parents=True)
        (folder / "cpu.max").write_text(limit + "\n")
        (folder / "cpu.stat").write_text("usage_usec 2500000\nnr_periods 0\n")
    usage = cores.snapshot(tmp_path).usage
    assert usage["machine"] == Usage(len(CPUS), 4.0 * len(CPUS))
    assert [usage[name] for name in usage if name != "machine"] == [Usage(3, 2.5)]


@pytest.fixture
def one_thread_after() -> Iterator[None]:
    """For tests that change what torch computes with."""
    yield
    torch.set_num_threads(1)


def test_automatic_threads_are_recorded_and_printed(cli):
    first = cli("stage=pretrain", "visualization=[]", "trainer.max_epochs=1", "feature_rows=0")
    assert first.record("pretrain")["threads"] == 1
    assert "1 CPU thread: OMP_NUM_THREADS=1" in first.err


def test_a_run_has_the_threads_it_was_given_and_again_when_it_is_rerun(cli, one_thread_after):
    first = cli("stage=pretrain", "visualization=[]", "trainer.max_epochs=1", "feature_rows=0", "trainer.threads=2")
    assert first.record("pretrain")["threads"] == 2
    assert "2 CPU threads: trainer.threads=2" in first.err
    again = cli("stage=rerun", f"run={first.run('pretrain')}")
    assert again.record("pretrain")["threads"] == 2


def test_a_resumed_run_has_the_threads_of_its_record(tmp_path: Path, one_thread_after):
    (tmp_path / "run.json").write_text(json.dumps({"threads": 2}))
    resumed = {"stage": "finetune", "trainer": {"threads": "auto"}}
    cores.configure(OmegaConf.create(resumed), tmp_path)
    assert cores.describe() == f"2 CPU threads: recorded in {tmp_path}"


@pytest.mark.parametrize(
    ("given", "is_shared", "policy"),
    [({}, True, "passive"), ({}, False, None), ({"GOMP_SPINCOUNT": "9"}, True, None)],
    ids=["shared", "alone", "chosen_by_the_user"],
)
def test_threads_on_a_shared_machine_wait_asleep(given, is_shared, policy, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "environ", dict(given))
    cores.set_waiting(Choice(3, "", is_shared))
    assert os.environ.get("OMP_WAIT_POLICY") == policy


def test_a_damaged_record_has_no_threads(tmp_path: Path):
    for text in ("{", "[]", "{}", json.dumps({"threads": True}), json.dumps({"threads": "2"})):
        (tmp_path / "run.json").write_text(text)
        assert cores.recorded_threads(tmp_path) is None


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "True"])
def test_no_number_of_threads_is_refused(value: str, cli):
    refused = cli("stage=finetune", f"trainer.threads={value}")
    assert refused.status == 2
    assert f"trainer.threads={value.replace('True', 'true')}: must be a whole number above 0" in refused.error
