"""Pools of transfers with other test clusters, and the file with the clusters of the test rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from tests.records import change_run
from tests.report.conftest import RULES

from warmstart.core.errors import UserError
from warmstart.report.pool import read_pool
from warmstart.report.runs import read_transfer
from warmstart.report.transfer import summarize
from warmstart.run.folder import CLUSTERS
from warmstart.run.identity import config_sha256

ARMS = ("pretrained", "scratch")


@pytest.fixture
def fold(made: Callable[..., Path]) -> Callable[..., Path]:
    """A transfer with six seeds that is tested on rows of these clusters."""

    def build(
        names: list[str] | None, labels: int = 5, config: dict | None = None, seed: int = 0, seeds: int = 6
    ) -> Path:
        generator = np.random.default_rng([seed, len(names or [])])
        rows = len(names or "12345678")
        folder = made(
            {(arm, "steps", labels): generator.random((seeds, rows)) < 0.5 + 0.2 * (arm == ARMS[0]) for arm in ARMS}
        )
        changed = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        changed |= {"data": {"test_clusters": sorted(set(names or [])), "split": "cluster"}, **(config or {})}
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(changed)))
        if names is not None:
            np.save(folder / CLUSTERS, np.array(names))
        change_run(folder, config_sha256=config_sha256(changed))
        return folder

    return build


def test_a_pool_is_the_transfer_that_tests_on_all_its_rows(fold: Callable, cli: Callable):
    folders = [fold(["a"] * 12 + ["b"] * 8), fold(["c"] * 9), fold(["d"] * 15 + ["e"] * 15)]
    outcome = cli("stage=report", f"runs=[{','.join(map(str, folders))}]")
    assert outcome.status == 0
    (written,) = (outcome.folder / "report" / "digits").iterdir()
    report = json.loads((written / "report.json").read_text())
    assert [part["test_clusters"] for part in report["pooled"]["transfers"]] == [["a", "b"], ["c"], ["d", "e"]]
    for text in ((written / "report.md").read_text(), (written / "report.html").read_text(), outcome.err):
        assert "Pooled over 3 transfers" in text
        assert "(tested on d, e: 30 rows)" in " ".join(text.split())

    pool, parts = read_pool(folders), [read_transfer(folder) for folder in folders]
    assert list(pool.clusters) == [*"a" * 12, *"b" * 8, *"c" * 9, *"d" * 15, *"e" * 15]
    assert len(pool.runs) == len(parts[0].runs)
    for run, *same in zip(pool.runs, *(part.runs for part in parts), strict=True):
        scores = np.concatenate([part.scores(one) for part, one in zip(parts, same)])
        assert np.array_equal(pool.scores(run), scores)
        assert run.test == pytest.approx(scores.mean())
        assert run.cost["seconds"] == 1.0
    assert len(pool.bases) == 3
    (verdict,) = report["verdicts"]
    differences = [np.mean([run.test for run in pool.group(arm, "steps", 5)]) for arm in ARMS]
    assert verdict["n"] == 6
    assert verdict["difference"] == pytest.approx(differences[0] - differences[1])


def test_an_unfinished_run_of_one_fold_is_unfinished_in_the_pool(fold: Callable, rewrite: Callable):
    folders = [fold(["a"] * 8), fold(["b"] * 8)]
    for folder, count in zip(folders, (8, 9)):
        data = {"name": "digits", "fingerprint": "f", "rows": {"train": 40 + count, "test": count}}
        for run in read_transfer(folder).runs:
            rewrite(folder, run.name, data=data)
    rewrite(folders[1], "scratch-steps-5-seed3", status="failed", error="UserError: diverged")
    pool = read_pool(folders)
    (failed,) = (run for run in pool.runs if run.state != "done")
    assert (failed.name, failed.state, failed.test) == ("scratch-steps-5-seed3", "failed", None)
    shutil.rmtree(folders[0] / "runs" / "scratch-steps-5-seed5")
    assert [run.state for run in read_pool(folders).runs if run.state != "done"] == ["failed", "planned"]
    assert pool.runs[0].record["data"]["rows"] == {"train": 48, "test": 17}
    assert summarize(pool)["verdicts"][0]["flag"] == "1 of 6 scratch runs failed"


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"names": ["a"] * 4 + ["z"] * 4}, "are both tested on a: give transfers with different data.test_clusters"),
        ({"names": ["z"] * 8, "config": {"seed": 7}}, "cannot be pooled: seed is 0 and 7, but only"),
        ({"names": ["z"] * 8, "labels": 2}, "transfer.labels is [5] and [2]"),
        ({"names": None}, "has no clusters of test rows"),
    ],
    ids=["shared cluster", "seed", "labels", "no clusters"],
)
def test_transfers_that_cannot_be_pooled_are_refused(second: dict, message: str, fold: Callable, cli: Callable):
    refused = cli("stage=report", f"runs=[{fold(['a'] * 8)},{fold(**second)}]")
    assert refused.status == 2
    assert message in " ".join(refused.err.split())
    assert not (refused.folder / "report").exists()


def test_a_pool_has_the_seeds_that_all_transfers_have(fold: Callable):
    rules = {"seeds": "auto", "looks": [6, 12], "budgets": {"steps": list(ARMS)}, "arms": list(ARMS), "labels": [5]}
    config = {"transfer": {**RULES, **rules}}
    folders = [fold(["a"] * 8, config=config, seeds=12), fold(["b"] * 8, config=config)]
    report = summarize(read_pool(folders))
    assert [row["n"] for row in report["verdicts"]] == [6]
    assert report["looks"]["made"] == 1
    assert report["looks"]["reason"] == "the pooled transfers have no more seeds in common"


def test_transfers_with_several_starts_cannot_be_pooled(fold: Callable):
    folders = [fold(["a"] * 8), fold(["b"] * 8)]
    change_run(folders[1], starts={"given": {}})
    with pytest.raises(UserError, match=r"with transfer.starts, each transfer selects its own starts"):
        read_pool(folders)


def test_the_pretrainings_of_a_pool_are_counted(fold: Callable, cli: Callable, rewrite: Callable):
    folders = [fold(["a"] * 8), fold(["b"] * 8)]
    rewrite(folders[1], "pretrain", id="another", weights_sha256=64 * "f")
    outcome = cli("stage=report", f"runs=[{','.join(map(str, folders))}]")
    (written,) = (outcome.folder / "report" / "digits").iterdir()
    page = (written / "report.md").read_text()
    assert "2 pretrainings" in page
    assert f"All verdicts apply to these 2 pretrained backbones, weights {64 * '0'}, weights {64 * 'f'}, not" in page


def test_one_transfer_in_brackets_is_refused(fold: Callable, cli: Callable):
    refused = cli("stage=report", f"runs=[{fold(['a'] * 8)}]")
    assert refused.status == 2
    assert "give two transfers or more" in refused.err


def test_clusters_that_are_damaged_are_named(fold: Callable, cli: Callable):
    folder = fold(["a"] * 4 + ["b"] * 4)
    path = folder / CLUSTERS
    content = path.read_bytes()
    path.write_bytes(content.replace(b"b\0\0\0", b"a\0\0\0"))
    refused = cli("stage=report", f"runs={folder}")
    assert refused.status == 2
    assert f"{path} is damaged or was changed" in " ".join(refused.err.split())
    path.unlink()
    with pytest.raises(UserError, match=r"test_clusters.npy is missing"):
        summarize(read_transfer(folder))
    np.save(path, np.array(["a", "b", "c"]))
    change_run(folder)
    with pytest.raises(
        UserError, match=r"test_clusters.npy is damaged: it has 3 clusters of test rows, but .* 8 scores"
    ):
        summarize(read_transfer(folder))
