"""The transfer: a table of arms, budgets and seeds; paired; nothing done twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from warmstart.stage import transfer

SMALL = (
    "stage=transfer",
    "transfer.labels=[1,2]",
    "transfer.seeds=2",
    "trainer.max_steps=4",
    "trainer.val_check_interval=4",
    "pretrain.trainer.max_epochs=1",
)


def statuses(folder: Path) -> dict[str, str]:
    return {p.parent.name: json.loads(p.read_text())["id"] for p in sorted((folder / "runs").glob("*/run.json"))}


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

    before = statuses(folder)
    (folder / "runs" / "probe-2-seed1" / "run.json").write_text(
        (folder / "runs" / "probe-2-seed1" / "run.json").read_text().replace('"done"', '"running"')
    )
    again = cli("stage=transfer", f"resume={folder}")
    assert again.status == 0, again.err
    after = statuses(folder)
    assert {name for name in before if before[name] != after[name]} == {"probe-2-seed1"}
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
    base = pretrain.run(config.pretrain, tmp_path, "base")
    monkeypatch.setattr(finetune, "training", spy)
    for arm in config.transfer.arms:
        for seed in (0, 1):
            name = (arm, seed)
            with pytest.raises(Stop):
                finetune.run(transfer.arm_config(config, arm, str(base.path), 2, seed), tmp_path, f"{arm}{seed}")
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
