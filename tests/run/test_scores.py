"""The clusters of test rows are verified while a run is unfinished, resumed and done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from warmstart.core.errors import Interrupted, UserError
from warmstart.run.folder import CLUSTERS, RunFolder
from warmstart.run.scores import read_clusters, save_clusters

pytestmark = pytest.mark.quick


def interrupt_after(call: Callable, *arguments: object) -> None:
    call(*arguments)
    raise KeyboardInterrupt


def test_clusters_keep_their_checksum_until_the_run_is_done(tmp_path: Path):
    config = OmegaConf.create({"stage": "transfer", "experiment": "digits", "seed": 0})
    run, names = RunFolder.create(config, tmp_path), np.array(["anna", "bo", "anna"], dtype=object)
    with pytest.raises(Interrupted), run.recording():
        interrupt_after(save_clusters, run, names)
    assert list(read_clusters(run.path)) == list(names)
    content = (run.path / CLUSTERS).read_bytes()
    (run.path / CLUSTERS).write_bytes(content.replace(b"b\0\0\0o", b"a\0\0\0o"))
    resumed = RunFolder.open(run.path)
    with pytest.raises(UserError, match=f"{CLUSTERS} is damaged or was changed"), resumed.recording():
        read_clusters(run.path)
    (run.path / CLUSTERS).write_bytes(content)
    with RunFolder.open(run.path).recording():
        pass
    assert list(read_clusters(run.path)) == list(names)
    (run.path / CLUSTERS).unlink()
    with pytest.raises(UserError, match=f"{CLUSTERS} is missing"):
        read_clusters(run.path)


def test_independent_rows_have_no_file(tmp_path: Path):
    run = RunFolder.create(OmegaConf.create({"stage": "transfer", "experiment": "digits", "seed": 0}), tmp_path)
    with run.recording():
        save_clusters(run, None)
    assert read_clusters(run.path) is None
