"""Checkpoints are verified when loaded; a damaged one is named, and the previous one is used."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from warmstart.core.errors import UserError, WriteError
from warmstart.training.checkpoint import AtomicCheckpointIO, copy, find_checkpoint, read_checkpoint


def save(path: Path, step: int, best_step: int, size: int = 10) -> None:
    callbacks = {"BestAndLast": {"best_step": best_step}}
    state = {"global_step": step, "callbacks": callbacks, "log": {}, "w": torch.ones(size)}
    AtomicCheckpointIO().save_checkpoint(state, path)


def validate(folder: Path, step: int, best_step: int) -> None:
    """Write what a run writes after a validation."""
    if step == best_step:
        save(folder / "best.ckpt", step, best_step)
        copy(folder / "best.ckpt", folder / "last.ckpt")
    else:
        save(folder / "last.ckpt", step, best_step)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_changed_bit_anywhere_is_detected_and_so_is_a_missing_checksum(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    save(path, 1, 1)
    sound = path.read_bytes()
    assert torch.equal(read_checkpoint(path)["w"], torch.load(path, weights_only=True)["w"])
    for position in range(0, len(sound), 7):
        flip(path, position)
        with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
            read_checkpoint(path)
        path.write_bytes(sound)
    start = sound.rindex(b"\nsha256 ")
    for changed in (sound[:start], sound[: start + 8], sound[:start] + b"\nsha256 " + b" " * 64, b""):
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"last\.ckpt is damaged"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("best_step", "damaged", "step"),
    [
        (3, ["last"], 3),  # best.ckpt is the same
        (2, ["last"], 2),
        (3, ["best"], 3),
        (2, ["best"], 2),  # the weights of the best are in previous.ckpt
        (1, ["last", "previous"], 1),
        (1, ["best"], None),
        (1, ["last", "previous", "best"], None),
    ],
)
def test_the_newest_checkpoint_that_has_the_best_weights(
    best_step: int, damaged: list[str], step: int | None, tmp_path: Path, capsys: pytest.CaptureFixture
):
    for number in (1, 2, 3):
        validate(tmp_path, number, min(number, best_step))
    for name in damaged:
        flip(tmp_path / f"{name}.ckpt", 100)
    if step is None:
        with pytest.raises(UserError, match=f"damaged: {', '.join(f'{name}.ckpt' for name in damaged)}.* start the"):
            find_checkpoint(tmp_path)
        return
    assert find_checkpoint(tmp_path)["global_step"] == step
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(damaged)
    for line, name in zip(lines, damaged):
        assert f"{name}.ckpt is damaged" in line
        assert f"step {step}" in line
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == step
    assert read_checkpoint(tmp_path / "best.ckpt")["global_step"] == min(step, best_step)
    assert find_checkpoint(tmp_path)["global_step"] == step


def test_no_more_is_read_than_is_needed_and_no_file_is_kept_open(tmp_path: Path):
    for number in (1, 2):
        validate(tmp_path, number, 1)
    flip(tmp_path / "previous.ckpt", 100)
    state = find_checkpoint(tmp_path)
    assert state["global_step"] == 2
    assert (tmp_path / "previous.ckpt").exists()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("best_step", [3, 2])
def test_killed_between_any_two_writes(best_step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    replace = os.replace
    for number in range(4):
        folder = tmp_path / str(number)
        validate(folder, 1, 1)
        validate(folder, 2, 2)
        left = [number]

        def killed(*paths, left: list[int] = left) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            replace(*paths)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            try:
                validate(folder, 3, best_step)
            except KeyboardInterrupt:
                is_complete = False
            else:
                is_complete = True
        step = find_checkpoint(folder)["global_step"]
        assert step in ((3,) if is_complete else (2, 3))
        assert read_checkpoint(folder / "best.ckpt")["global_step"] == min(step, best_step)
        assert not list(folder.glob(".*"))


@pytest.fixture
def small_disk() -> Iterator[None]:
    """No file may have more than 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path, small_disk: None):
    path = tmp_path / "last.ckpt"
    save(path, 1, 1)
    with pytest.raises(WriteError, match=r"cannot write .*last\.ckpt: File too large"):
        save(path, 2, 2, size=100_000)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert read_checkpoint(path)["global_step"] == 1


def test_a_failing_sync_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    validate(tmp_path, 1, 1)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "no answer")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WriteError):
        save(tmp_path / "last.ckpt", 2, 1)
    assert read_checkpoint(tmp_path / "last.ckpt")["global_step"] == 1
