"""Atomic writes: a failed step leaves the old file or folder, and no temporary files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from warmstart.core.errors import WriteError
from warmstart.run.files import adding_folder, replacing, replacing_folder, write_atomically

pytestmark = pytest.mark.quick


def fail_renaming_to(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the rename of a new file or folder to `target` fail; that of an old one back to it succeeds."""
    replace, failed = os.replace, []

    def failing(source: Path, path: Path) -> None:
        if path == target and not failed:
            failed.append(source)
            raise OSError(errno.EIO, "no answer")
        replace(source, path)

    monkeypatch.setattr(os, "replace", failing)


def test_the_old_folder_is_renamed_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model"
    for content in ("old", "new"):
        with replacing_folder(path) as folder:
            (folder / "weights").write_text(content)
    assert (path / "weights").read_text() == "new"
    fail_renaming_to(path, monkeypatch)
    with pytest.raises(WriteError), replacing_folder(path) as folder:
        (folder / "weights").write_text("newest")
    assert (path / "weights").read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["sync", "rename"])
def test_the_file_that_was_to_be_kept_stays_the_current_one(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "last"
    path.write_text("old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "no answer")

    if step == "sync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        fail_renaming_to(path, monkeypatch)
    with pytest.raises(WriteError), replacing(path, tmp_path / "previous") as temporary:
        temporary.write_text("new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP], ids=["EINVAL", "ENOTSUP"])
def test_a_file_system_that_syncs_no_folders(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fsync = os.fsync

    def only_files(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    write_atomically(tmp_path / "file", "content")
    assert (tmp_path / "file").read_text() == "content"


def test_the_first_to_finish_a_folder_wins(tmp_path: Path):
    path = tmp_path / "entry"
    with adding_folder(path) as second:
        (second / "who").write_text("second")
        with adding_folder(path) as first:
            (first / "who").write_text("first")
    assert (path / "who").read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
