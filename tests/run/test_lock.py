"""Locks: one holder at a time, released with its process, and a heartbeat where flock is not shared."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from warmstart.core.errors import UserError
from warmstart.run.lock import STALE_SECONDS, Lock

pytestmark = pytest.mark.quick


def test_one_holder_at_a_time(tmp_path: Path):
    first, second = Lock(tmp_path / "a"), Lock(tmp_path / "a")
    assert not first.is_held()
    assert first.acquire()
    assert second.is_held()
    assert not second.acquire()
    first.release()
    assert not second.is_held()
    assert second.acquire(timeout=1)
    second.release()


def test_a_killed_holder_frees_it(tmp_path: Path):
    code = (
        "import sys, time, pathlib; from warmstart.run.lock import Lock;"
        "lock = Lock(pathlib.Path(sys.argv[1])); lock.acquire(); lock.start_heartbeat();"
        "print('held', flush=True); time.sleep(99)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert Lock(tmp_path / "a").is_held()
    assert json.loads((tmp_path / "a").read_text())["pid"] == holder.pid
    holder.kill()
    holder.wait()
    assert not Lock(tmp_path / "a").is_held()


def test_looking_does_not_make_it_held(tmp_path: Path):
    lock = Lock(tmp_path / "a")
    assert lock.acquire()
    lock.release()
    seen: list[bool] = []
    threads = [
        threading.Thread(target=lambda: seen.extend(Lock(tmp_path / "a").is_held() for _ in range(300))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 600
    assert not any(seen)


def test_a_fresh_heartbeat_of_another_host_counts_until_it_is_stale_or_given_back(tmp_path: Path, monkeypatch):
    path = tmp_path / "a"
    path.write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
    lock = Lock(path)
    assert lock.is_held()
    assert not lock.acquire()
    old = time.time() - STALE_SECONDS - 1
    os.utime(path, (old, old))
    assert lock.acquire()
    lock.start_heartbeat()
    lock.release()
    monkeypatch.setattr("socket.gethostname", lambda: "third")
    assert Lock(path).acquire()


def test_another_host_sees_who_holds_a_lock_and_says_for_whom_it_waits(tmp_path: Path, monkeypatch, capfd):
    lock = Lock(tmp_path / "a")
    assert lock.acquire()
    monkeypatch.setattr("fcntl.flock", lambda *_: None)  # as where locks do not reach other hosts
    monkeypatch.setattr("warmstart.run.lock.NOTICE_SECONDS", 0.05)
    here = socket.gethostname()
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    assert Lock(tmp_path / "a").is_held()
    assert not Lock(tmp_path / "a").acquire(0.2)
    line = f"waiting for process {os.getpid()} on {here}, which holds {tmp_path / 'a'}"
    assert capfd.readouterr().err.splitlines() == [line]
    lock.release()
    assert Lock(tmp_path / "a").acquire()


def test_a_folder_without_support_for_locks_is_named(tmp_path: Path):
    (tmp_path / "locks").write_text("")
    with pytest.raises(UserError, match="cannot lock"):
        Lock(tmp_path / "locks" / "a").acquire()
