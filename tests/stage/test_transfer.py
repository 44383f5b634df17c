"""The transfer: a table of arms, budgets and seeds; paired; nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from warmstart.run.folder import RunFolder
from warmstart.stage import transfer

SMALL = (
    "stage=transfer",
    "transfer.labels=[1,2]",
    "transfer.seeds=2",
    "trainer.max_steps=4",
    "trainer.val_check_interval=4",
    "pretrain.trainer.max_epochs=1",
)


def statuses(folder: Path) -> dict[str, tuple[str, str, int]]:
    """Id, status and time of change of every run."""
    found = {}
    for path in sorted((folder / "runs").glob("*/run.json")):
        record = json.loads(path.read_text())
        found[path.parent.name] = (record["id"], record["status"], path.stat().st_mtime_ns)
    return found


def test_table_report_and_runs(cli):
    outcome = cli(*SMALL)
    assert outcome.status == 0, outcome.err
    folder = outcome.run("transfer")
    report = json.loads((folder / "report.json").read_text())
    assert len(report["table"]) == 4 * 2
    assert len(report["runs"]) == 4 * 2 * 2
    for row in report["table"]:
        values = [
            r["value"]
            for r in report["runs"]
            if (r["arm"], r["labels_per_class"]) == (row["arm"], row["labels_per_class"])
        ]
        assert row["metric"] == "test/accuracy"
        assert row["n"] == 2
        assert row["mean"] == pytest.approx(np.mean(values))
        assert row["std"] == pytest.approx(np.std(values, ddof=1))
    assert {row["arm"] for row in report["table"]} == {"pretrained", "scratch", "probe", "random_probe"}
    assert (folder / "report.png").stat().st_size > 10_000
    assert "random_probe" in (folder / "report.md").read_text()
    assert "random_probe" in outcome.out

    # One run broke off after its last checkpoint, another before its first; a third is untouched.
    for name in ("probe-2-seed1", "scratch-1-seed0"):
        path = folder / "runs" / name / "run.json"
        path.write_text(path.read_text().replace('"done"', '"running"'))
    (folder / "runs" / "scratch-1-seed0" / "checkpoints" / "last.ckpt").unlink()
    before = statuses(folder)
    again = cli("stage=transfer", f"resume={folder}")
    assert again.status == 0, again.err
    after = statuses(folder)
    assert {name for name in before if before[name] != after[name]} == {"probe-2-seed1", "scratch-1-seed0"}
    assert {status for _, status, _ in after.values()} == {"done"}
    assert before["probe-2-seed1"][0] == after["probe-2-seed1"][0]
    assert before["scratch-1-seed0"][0] != after["scratch-1-seed0"][0]
    redone = json.loads((folder / "report.json").read_text())
    assert redone["table"] == report["table"]

    rebuilt = cli("stage=report", f"runs={folder}")
    assert rebuilt.status == 0
    assert json.loads((folder / "report.json").read_text()) == redone


def test_arms_of_one_seed_share_subset_order_and_head(composed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Each arm is stopped just before it trains, and what it would have trained on and from is compared."""
    from warmstart.stage import finetune, pretrain

    seen = {}

    class Stop(Exception):
        pass

    def spy(run, config, module, data, callbacks):
        first = [batch.y.tolist() for batch in data.train_dataloader()]
        head = torch.cat([p.detach().flatten() for p in module.objective.parameters()])
        backbone = torch.cat([p.detach().flatten() for p in module.backbone.parameters()])
        seen[name] = (data.parts["train"][0], first, head, backbone, module.seed)
        raise Stop

    config = composed(*SMALL, f"output_dir={tmp_path}")
    whole = OmegaConf.create(OmegaConf.to_container(config, resolve=True)["pretrain"])
    base = pretrain.run(whole, RunFolder.create(whole, tmp_path, "base"))
    monkeypatch.setattr(finetune, "training", spy)
    for arm in config.transfer.arms:
        for seed in (0, 1):
            name = (arm, seed)
            with pytest.raises(Stop):
                finetune.run(transfer.arm_config(config, arm, str(base.path), 2, seed))
    for seed in (0, 1):
        one = seen["pretrained", seed]
        for arm in config.transfer.arms:
            other = seen[arm, seed]
            assert torch.equal(one[0], other[0])
            assert one[1] == other[1]
            assert torch.equal(one[2], other[2])
            assert one[4] == other[4]
    assert torch.equal(seen["pretrained", 0][3], seen["probe", 1][3])
    assert torch.equal(seen["scratch", 0][3], seen["random_probe", 0][3])
    assert not torch.equal(seen["scratch", 0][3], seen["scratch", 1][3])
    assert not torch.equal(seen["scratch", 0][3], seen["pretrained", 0][3])
    assert not torch.equal(seen["scratch", 0][0], seen["scratch", 1][0])


def test_a_diverged_arm_is_counted_and_does_not_stop_the_rest(cli):
    outcome = cli(*SMALL, "transfer.arms=[scratch,probe]", "+arm.scratch.optimizer.lr=1e30", "transfer.labels=[2]")
    assert outcome.status == 0, outcome.err
    report = json.loads((outcome.run("transfer") / "report.json").read_text())
    scratch, probe = report["table"]
    assert (scratch["n"], scratch["failed"], scratch["mean"]) == (0, 2, None)
    assert (probe["n"], probe["failed"]) == (2, 0)
    assert all("diverged" in run["error"] for run in report["runs"] if run["arm"] == "scratch")
    assert "2 failed" in outcome.out
    assert "nan" not in outcome.out.lower()


def test_all_labels_and_unknown_arms(cli):
    outcome = cli(*SMALL, "transfer.labels=[all]", "transfer.seeds=1", "transfer.arms=[scratch]")
    assert outcome.status == 0, outcome.err
    assert json.loads((outcome.run("transfer") / "report.json").read_text())["table"][0]["labels_per_class"] == "all"
    unknown = cli(*SMALL, "transfer.arms=[scrach]")
    assert unknown.status == 2
    assert "there is no arm scrach" in unknown.error


def test_what_an_arm_could_not_do_is_refused_before_the_pretraining(cli):
    for words, message in (
        (("transfer.labels=[900]",), "labels_per_class=900"),
        (("transfer.labels=[0]",), "transfer.labels=0"),
        (("transfer.labels=[1,1]",), "different values"),
        (("transfer.labels=3",), "in brackets"),
        (("transfer.arms=[]",), "in brackets"),
        (("objective=regression",), "objective=regression"),
    ):
        outcome = cli(*SMALL, *words)
        assert outcome.status == 2
        assert message in outcome.error
        assert not outcome.folder.exists()


def test_shares_of_the_rows_are_budgets_too(cli):
    words = ("experiment=vectors", "data.rows=400", "objective=regression", "loss=mse", "transfer.labels=[0.1,all]")
    outcome = cli(*SMALL, *words, "transfer.arms=[scratch]", "pretrain.data.batch_size=64")
    assert outcome.status == 0, outcome.err
    report = json.loads((outcome.run("transfer") / "report.json").read_text())
    assert [row["labels_per_class"] for row in report["table"]] == [0.1, "all"]
    assert report["mode"] == "min"


@pytest.mark.parametrize("experiment", ["digits", "vectors", "cifar10", "table", "images"])
def test_pretraining_and_finetuning_split_the_data_alike_whatever_is_overridden(experiment: str, composed):
    needs = {"table": ["data.root=x", "data.target=y"], "images": ["data.root=x"]}.get(experiment, [])
    config = composed("stage=transfer", f"experiment={experiment}", *needs)
    tied = OmegaConf.to_container(config)["pretrain"]
    own = {"batch_size", "augment", "_target_"}
    for key, value in tied["data"].items():
        assert key in own or value == f"${{data.{key}}}", key
    assert tied["backbone"] == "${backbone}"
