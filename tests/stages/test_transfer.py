"""Transfer: paired arms, budgets and seeds; no repeated run; no selection on the test split."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from tests.records import change_run

from warmstart.config.rewrite import changed
from warmstart.data.sources.image.digits import Digits
from warmstart.run.folder import RunFolder
from warmstart.run.manifest import Manifest
from warmstart.training.callbacks.curves import Curves
from warmstart.transfer import tuning
from warmstart.transfer.arms import Sizes, arm_config, finetunings

SMALL = (
    "stage=transfer",
    "transfer.labels=[1,2]",
    "transfer.seeds=2",
    "trainer.max_steps=4",
    "trainer.val_check_interval=4",
    "pretrain.trainer.max_epochs=1",
)
FOUR = "transfer.arms=[pretrained,scratch,probe,random_probe]"
ONE = ("transfer.labels=[2]", "transfer.seeds=1", "transfer.arms=[pretrained,scratch]")


def reported(outcome) -> dict:
    return json.loads((outcome.run("transfer") / "report.json").read_text())


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / "runs" / name / "run.json").read_text())


def statuses(folder: Path) -> dict[str, tuple[str, str, int]]:
    """Id, status and time of change of every run."""
    found = {}
    for path in sorted((folder / "runs").glob("*/run.json")):
        record = json.loads(path.read_text())
        found[path.parent.name] = (record["id"], record["status"], path.stat().st_mtime_ns)
    return found


def test_table_report_and_runs(cli):
    outcome = cli(*SMALL, FOUR)
    assert outcome.status == 0, outcome.err
    folder = outcome.run("transfer")
    report = json.loads((folder / "report.json").read_text())
    assert json.loads((folder / "run.json").read_text())["bounds"] == [0.0, 1.0]
    assert report["test_rows"] == len(np.load(next(folder.glob("runs/*/test_scores.npy"))))
    assert len(report["table"]) == 4 * 2
    assert len(report["tables"]["converged"]) == 2 * 2
    assert len(report["runs"]) == 4 * 2 * 2 + 2 * 2 * 2
    for row in report["table"]:
        values = [
            r["value"]
            for r in report["runs"]
            if (r["arm"], r["labels_per_class"], r["budget"]) == (row["arm"], row["labels_per_class"], "steps")
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
        change_run(folder / "runs" / name, status="running")
    shutil.rmtree(folder / "runs" / "scratch-1-seed0" / "checkpoints")
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
    from warmstart.stages import finetune, pretrain

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
    monkeypatch.setattr(finetune, "Session", spy)
    arms = ("pretrained", "scratch", "probe", "random_probe", "shuffled")
    for arm in arms:
        for seed in (0, 1):
            name = (arm, seed)
            with pytest.raises(Stop):
                finetune.run(arm_config(config, arm, str(base.path), 2, seed))
    for seed in (0, 1):
        one = seen["pretrained", seed]
        for arm in arms:
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
    shuffled, pretrained = seen["shuffled", 0][3], seen["pretrained", 0][3]
    assert not torch.equal(shuffled, pretrained)
    assert torch.equal(shuffled.sort().values, pretrained.sort().values)
    name = ("more labels", 0)
    with pytest.raises(Stop):
        finetune.run(arm_config(config, "scratch", str(base.path), 5, 0))
    few, more = ({row.numpy().tobytes() for row in seen[key][0]} for key in (("scratch", 0), name))
    assert few < more


def test_a_diverged_arm_is_counted_and_does_not_stop_the_rest(cli):
    words = ("transfer.arms=[scratch,probe]", "+arm.scratch.optimizer.lr=1e30", "transfer.labels=[2]")
    outcome = cli(*SMALL, *words, "transfer.budgets.converged=[]", "arm.probe.against=scratch")
    assert outcome.status == 0, outcome.err
    report = reported(outcome)
    scratch, probe = report["table"]
    assert (scratch["n"], scratch["failed"], scratch["mean"]) == (0, 2, None)
    assert (probe["n"], probe["failed"]) == (2, 0)
    assert all("diverged" in run["error"] for run in report["runs"] if run["arm"] == "scratch")
    assert "2 failed" in outcome.out
    assert "nan" not in outcome.out.lower()
    (row,) = report["verdicts"]
    assert row["flag"] == "2 of 2 scratch runs failed"
    assert row["difference"] is None
    assert any("2 of 2 scratch runs failed" in line for line in report["warnings"])


def test_all_labels_and_unknown_arms(cli):
    outcome = cli(*SMALL, "transfer.labels=[all,'<=123']", "transfer.arms=[trivial,linear]", "transfer.seeds=1")
    assert outcome.status == 0, outcome.err
    report = reported(outcome)
    trivial, _, linear, fewer = report["table"]
    assert (trivial["labels_per_class"], fewer["labels_per_class"]) == ("all", "<=123")
    assert trivial["mean"] < 0.15 < 0.9 < linear["mean"]
    few, every = report["labels"]
    assert (few["labels"], every["labels"]) == ("<=123", "all")
    assert 1000 < few["rows"] < every["rows"]  # some classes have fewer than 123
    folder = outcome.run("transfer")
    assert (folder / "runs" / "linear-max123-seed0").is_dir()
    again = cli("stage=transfer", f"resume={folder}")
    assert again.status == 0, again.err
    assert "up to 123 labels per class" in (folder / "report.md").read_text()
    unknown = cli(*SMALL, "transfer.arms=[scrach]")
    assert unknown.status == 2
    assert "unknown arm scrach" in unknown.error


def test_what_an_arm_could_not_do_is_refused_before_the_pretraining(cli):
    for words, message in (
        (("transfer.labels=[900]",), "labels_per_class=900"),
        (("transfer.labels=[0]",), "transfer.labels=[0]: must be a list"),
        (("transfer.labels=['<=0']",), "'<=N' for up to N rows per class"),
        (("transfer.labels=['<x']",), "'<=N' for up to N rows per class"),
        (("data.labels_per_class='<=-1'",), "'<=N' for up to N rows per class"),
        (("transfer.labels=[1,1]",), "different values"),
        (("transfer.labels=3",), "in brackets"),
        (("transfer.arms=[]",), "in brackets"),
        (("+transfer.budgets.forever=[scratch]",), "no such budget"),
        (("transfer.budgets.converged=3",), "give a list of arms"),
        (("transfer.budgets.converged=[scrach]",), "give a list of arms"),
        (("+arm.mine.against=scratch", "transfer.arms=[scratch,mine]"), "arm.mine.init=pretrained"),
        (("transfer.pretrain_seeds=3",), "must divide"),
        (("transfer.require=help",), "transfer.require=help"),
        (("transfer.seeds=auto", "transfer.looks=[10,5]"), "transfer.looks=[10, 5]: give two or more increasing"),
        (("transfer.seeds=auto", "transfer.looks=[3,10]"), "numbers of seeds, from 5"),
        (("transfer.seeds=auto", "transfer.looks=[5,150]"), "more than 20 times the seeds of the first"),
        (("transfer.seeds=auto", "transfer.pretrain_seeds=2"), "transfer.seeds=auto needs 5 independent units"),
        (("+arm.trivial.length=3",), "arm.trivial.length"),
        (("arm.probe.against=random",), "no such arm"),
        (("objective=regression",), "objective=regression"),
    ):
        outcome = cli(*SMALL, *words)
        assert outcome.status == 2
        assert message in outcome.error
        assert not outcome.folder.exists()


def test_an_arm_may_have_another_backbone_with_settings_of_its_own(composed):
    words = ("+backbone@arm.wide.backbone=vit", "+arm.wide.init=scratch", "arm.wide.backbone.width=16")
    config = composed(*SMALL, *words)
    own = arm_config(config, "wide", "scratch", 2, 0).backbone
    assert own._target_.endswith("Transformer")
    assert own.width == 16
    assert "hidden" not in own
    assert arm_config(config, "scratch", "scratch", 2, 0).backbone == config.backbone


def test_shares_of_the_rows_are_budgets_too(cli):
    words = ("experiment=vectors", "data.rows=400", "objective=regression", "loss=mse", "transfer.labels=[0.1,all]")
    outcome = cli(*SMALL, *words, "transfer.arms=[pretrained,scratch]", "pretrain.data.batch_size=64")
    assert outcome.status == 0, outcome.err
    report = reported(outcome)
    assert [row["labels_per_class"] for row in report["table"]] == [0.1, "all"] * 2
    assert report["mode"] == "min"
    means = {(row["arm"], row["labels_per_class"]): row["mean"] for row in report["table"]}
    for row in report["verdicts"][:2]:
        oriented = means["scratch", row["labels"]] - means["pretrained", row["labels"]]
        assert row["difference"] == pytest.approx(oriented, rel=1e-4)  # the means of the table are of float32


@pytest.mark.parametrize(
    "experiment", ["digits", "vectors", "transfer_conflict", "cifar10", "table", "images", "sst2", "text", "recordings"]
)
def test_pretraining_and_finetuning_split_the_data_alike_whatever_is_overridden(experiment: str, composed):
    needs = {"table": ["data.root=x", "data.target=y"], "images": ["data.root=x"], "recordings": ["data.root=x"]}
    needs["text"] = ["data.root=x", "data.text=x", "data.target=y"]
    needs = needs.get(experiment, [])
    config = composed("stage=transfer", f"experiment={experiment}", *needs)
    tied = OmegaConf.to_container(config)["pretrain"]
    own = {"batch_size", "augment", "pack", "separate", "tokenizer", "frames", "_target_"}
    is_same = tied["data"]["_target_"] == config.data._target_
    for key, value in tied["data"].items() if is_same else ():
        assert key in own or value == f"${{data.{key}}}", key
    assert tied["backbone"] == "${backbone}"


def test_each_arm_has_the_rate_of_its_backbone_also_when_resumed(composed, tmp_path: Path):
    hub = {"_target_": "warmstart.huggingface.image.HuggingFaceImages", "architecture": {"model_type": "vit"}}
    config = composed(
        *("stage=transfer", "experiment=cifar10", "transfer.labels=[2]", "transfer.seeds=1"),
        "transfer.arms=[hub,scratch,scratch_long]",
    )
    hub = {"init": "scratch", "length": "${transfer.seeds}", "backbone": hub}
    long = {**config.arm.scratch_long, "backbone": hub["backbone"]}
    long["optimizer"] = OmegaConf.to_container(config.arm.scratch_long.optimizer)
    config = changed(config, {"arm": {**config.arm, "hub": hub, "scratch_long": long}})
    saved = RunFolder.create(config, tmp_path).config()
    for own in (config, saved):
        jobs = finetunings(own, tmp_path, Sizes({2: 20}, examples=30_000))
        rates = {job.values["arm"]: job.config["optimizer"]["lr"] for job in jobs}
        assert rates == {"hub": 0.0001, "scratch": 0.001, "scratch_long": 0.0001}
    assert OmegaConf.to_container(saved)["arm"]["hub"]["length"] == 1


def test_arms_use_settings_of_the_transfer(composed):
    config = changed(composed("stage=transfer"), {"data.batch_size": "${transfer.seeds}"})
    assert arm_config(config, "scratch", "scratch", 2, 0).data.batch_size == config.transfer.seeds


def test_budgets_lengthen_the_arms_they_are_about(composed, tmp_path: Path):
    words = ("trainer.max_steps=200", "trainer.val_check_interval=20", "transfer=full", "transfer.seeds=1")
    config = composed("stage=transfer", *words, "transfer.labels=[2]", "pretrain.snapshots=0", f"output_dir={tmp_path}")
    jobs = {job.name: job.config for job in finetunings(config, tmp_path, Sizes({2: 20}, examples=30_000))}
    assert jobs["scratch-total-2-seed0"]["trainer"]["max_steps"] == 200 + 30_000 // 20
    assert "pretrained-total-2-seed0" not in jobs  # the run at equal steps counts at both budgets
    warm, cold = (jobs[f"{arm}-converged-2-seed0"] for arm in ("pretrained", "scratch"))
    assert warm["trainer"]["max_steps"] == 400
    assert cold["trainer"]["min_steps"] == cold["trainer"]["max_steps"] == 3 * 400
    assert warm["patience"] == cold["patience"] == 10
    assert warm["trainer"]["max_steps"] / warm["trainer"]["val_check_interval"] == 400 / 20
    assert cold["trainer"]["max_steps"] / cold["trainer"]["val_check_interval"] == 400 / 20
    baselines = [name for name in jobs if name.startswith(("trivial", "linear"))]
    assert baselines == ["trivial-2-seed0", "linear-2-seed0"]


def test_an_arm_may_have_its_own_length_and_tuning(composed, tmp_path: Path):
    words = ("trainer.max_steps=200", "trainer.val_check_interval=20", "transfer=strong", "transfer.seeds=1")
    config = composed("stage=transfer", *words, "transfer.labels=[2]", f"output_dir={tmp_path}")
    sizes = Sizes({2: 20}, examples=30_000)
    jobs = {job.name: job.config for job in finetunings(config, tmp_path, sizes)}
    long, short = jobs["scratch_long-2-seed0"], jobs["scratch-2-seed0"]
    assert (short["trainer"]["max_steps"], long["trainer"]["max_steps"]) == (200, 2000)
    assert (long["trainer"]["val_check_interval"], long["patience"], short["patience"]) == (20, 20, None)
    assert not {"length", "tune", "against"} & set(long)
    trials = {job.name: job.config for job in tuning.trials(config, tmp_path, sizes)}
    assert {job.split("-")[1] for job in trials} == {"scratch_long"}
    assert {one["optimizer"]["lr"] for one in trials.values()} == {0.0001, 0.001, 0.01}
    assert {one["trainer"]["max_steps"] for one in trials.values()} == {2000}
    assert {one["seed"] for one in trials.values()} == {1000, 1001}


def test_scratch_long_is_tuned_alone_and_works_with_one_label_per_class(cli):
    words = ("transfer=strong", "transfer.arms=[pretrained,scratch_long]", "transfer.labels=[1]", "transfer.seeds=1")
    outcome = cli(*SMALL, *words, "arm.scratch_long.tune=2", "transfer.budgets.converged=[]")
    assert outcome.status == 0, outcome.err
    folder, report = outcome.run("transfer"), reported(outcome)
    assert len([*folder.glob("runs/tune-scratch_long-*")]) == len([*folder.glob("runs/tune-*")]) == 4
    assert (
        record(folder, "scratch_long-1-seed0")["cost"]["steps"] > record(folder, "pretrained-1-seed0")["cost"]["steps"]
    )
    assert [(row["arm"], row["against"]) for row in report["verdicts"]] == [("pretrained", "scratch_long")]
    (own,) = report["own_training"]
    assert own["sentence"].startswith(
        "scratch_long trains for up to 10 times the steps, until validation has not improved"
    )
    assert own["sentence"] in outcome.err
    rates = {one["arm"]: one["lr"] for one in report["tuning"]}
    assert rates["pretrained"] == 0.001
    assert rates["scratch_long"] in (0.0001, 0.01)


def test_seeds_are_added_until_the_verdicts_are_settled(cli):
    words = ("transfer.seeds=auto", "transfer.looks=[5,6]", "transfer.labels=[2]")
    settled = cli(*SMALL, *words, "transfer.arms=[linear,trivial]", "+arm.linear.against=trivial")
    assert settled.status == 0, settled.err
    report = reported(settled)
    assert [row["verdict"] for row in report["verdicts"]] == ["helps"]
    assert (report["looks"]["seeds"], report["looks"]["reason"]) == (5, "every verdict is settled")
    assert len(report["runs"]) == 2 * 5


def test_seeds_are_added_up_to_the_most_and_a_resumed_plan_stays_the_same(cli, command):
    same = ("+arm.twin.init=scratch", "+arm.twin.against=scratch", "+arm.twin.patience=9")  # trained like scratch
    words = ("transfer.seeds=auto", "transfer.looks=[5,6]", "transfer.labels=[1]", "transfer.margin=0")
    words = (*SMALL, *same, *words, "transfer.arms=[scratch,twin]", "transfer.budgets.converged=[]")
    outcome = cli(*words, "trainer.max_steps=1", "trainer.val_check_interval=1")
    assert outcome.status == 0, outcome.err
    folder, report = outcome.run("transfer"), reported(outcome)
    assert "1 of 1 verdicts are not settled with 5 seeds: running 6" in outcome.err
    assert [row["verdict"] for row in report["verdicts"]] == ["cannot tell"]
    assert (report["looks"]["seeds"], report["looks"]["reason"]) == (6, "the maximum of 6 seeds is reached")
    assert "2 of 2 looks made, with 6 seeds: the maximum of 6 seeds is reached." in outcome.err
    shutil.rmtree(folder / "runs" / "twin-1-seed5")
    change_run(folder, status="interrupted")
    before = statuses(folder)
    assert "remove transfer.seeds=auto" in command(f"resume={folder}", "transfer.seeds=auto").error
    resumed = cli("stage=transfer", f"resume={folder}")
    assert resumed.status == 0, resumed.err
    after = statuses(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"twin-1-seed5"}
    assert reported(resumed)["verdicts"] == report["verdicts"]


def test_tuning_is_equal_and_never_sees_the_test_split(cli, monkeypatch: pytest.MonkeyPatch):
    words = (*SMALL, *ONE, "transfer.tune=3", "transfer.budgets.converged=[]")
    first = cli(*words)
    assert first.status == 0, first.err
    folder = first.run("transfer")
    trials = [path.name for path in folder.glob("runs/tune-*")]
    assert sorted(name.split("-")[1] for name in trials) == ["pretrained"] * 6 + ["scratch"] * 6
    for name in trials:
        assert not any(metric.startswith("test/") for metric in record(folder, name)["metrics"])
        assert not (folder / "runs" / name / "test_scores.npy").exists()
    chosen = {one["arm"]: one["lr"] for one in reported(first)["tuning"]}
    for arm, rate in chosen.items():
        rates = {}
        for name in trials:
            if name.split("-")[1] == arm:
                config = OmegaConf.load(folder / "runs" / name / "config.yaml")
                rates.setdefault(config.optimizer.lr, []).append(record(folder, name)["metrics"]["val/accuracy"])
        assert rate == max(rates, key=lambda rate: np.mean(rates[rate]))
    assert "learning rates selected on validation data" in first.err
    before = reported(first)

    load = Digits.load

    def with_another_test_split(self, target):
        splits = load(self, target)
        splits.test.y = np.roll(splits.test.y, 1)
        return splits

    monkeypatch.setattr(Digits, "load", with_another_test_split)
    second = cli(*words)
    assert second.run("transfer") != folder
    assert reported(second)["tuning"] == before["tuning"]
    assert reported(second)["table"] != before["table"]


def test_no_learning_rate_is_chosen_before_every_tuning_run_has_ended(cli, monkeypatch: pytest.MonkeyPatch):
    original, name = Curves.on_train_batch_end, "tune-scratch-2-rate0-seed1000"

    def on_a_full_disk(self, trainer, *args):
        if name in str(trainer.default_root_dir):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "metrics.csv")
        original(self, trainer, *args)

    def is_planned() -> bool:
        return any("arm" in job.values for job in Manifest.read(folder).jobs)

    alone = ("transfer.arms=[scratch]", "transfer.seeds=2", "transfer.tune=2", "transfer.budgets.converged=[]")
    with monkeypatch.context() as full:
        full.setattr(Curves, "on_train_batch_end", on_a_full_disk)
        stopped = cli(*SMALL, *ONE, *alone)
        folder = stopped.run("transfer")
        for attempt in (1, 2):
            assert stopped.status == 1
            assert "cannot write metrics.csv: No space left on device" in stopped.error
            assert record(folder, name)["sweep"]["attempts"] == attempt
            assert not is_planned()
            stopped = cli("stage=transfer", f"resume={folder}")

    lock = Manifest.read(folder).lock(name)
    assert lock.acquire()
    change_run(folder / "runs" / name, status="running", error=None)
    waiting = cli("stage=transfer", f"resume={folder}")
    lock.release()
    assert waiting.status == 2
    assert f"{name} is not done" in waiting.error
    assert not is_planned()

    resumed = cli("stage=transfer", f"resume={folder}")
    assert resumed.status == 0, resumed.err
    assert record(folder, name)["status"] == "done"
    assert is_planned()


def test_several_pretrainings_share_the_seeds_out(cli):
    words = ("transfer.pretrain_seeds=2", "transfer.arms=[pretrained,scratch]", "transfer.labels=[2]")
    outcome = cli(*SMALL, *words, "transfer.seeds=4", "transfer.budgets.converged=[]")
    assert outcome.status == 0, outcome.err
    folder, report = outcome.run("transfer"), reported(outcome)
    bases = [record(folder, f"pretrain{number}") for number in (0, 1)]
    assert bases[0]["weights_sha256"] != bases[1]["weights_sha256"]
    for seed in range(4):
        parent = record(folder, f"pretrained-2-seed{seed}")["parent"]
        assert parent["weights_sha256"] == bases[seed % 2]["weights_sha256"]
    assert [row["n"] for row in report["verdicts"]] == [2]
    assert "2 paired pretrainings are too few" in report["headline"]["sentence"]


def test_snapshots_are_finetuned_too(cli):
    words = ("pretrain.snapshots=3", "transfer.arms=[pretrained,scratch]", "transfer.labels=[2]")
    outcome = cli(*SMALL, *words, "transfer.budgets.converged=[]")
    assert outcome.status == 0, outcome.err
    folder, length = outcome.run("transfer"), reported(outcome)["pretraining_length"]
    taken = record(folder, "pretrain")["snapshots"]
    assert [point["step"] for point in length["points"]] == [one["step"] for one in taken] == [3, 7, 20]
    for number, point in enumerate(length["points"], start=1):
        scores = [record(folder, f"snapshot{number}-2-seed{seed}")["metrics"]["test/accuracy"] for seed in (0, 1)]
        assert point["score"] == pytest.approx(np.mean(scores))
        assert point["generic_loss"] == taken[number - 1]["val/loss"]
    assert (
        record(folder, "snapshot1-2-seed0")["parent"]["weights_sha256"] != record(folder, "pretrain")["weights_sha256"]
    )


def test_a_required_verdict_that_is_not_reached_is_exit_status_4(cli):
    outcome = cli(*SMALL, *ONE, "transfer.seeds=2", "transfer.require=helps", "transfer.budgets.converged=[]")
    assert outcome.status == 4
    assert "transfer.require=helps, but the verdict is: none" in outcome.error
    assert outcome.record("transfer")["status"] == "done"
    assert reported(outcome)["headline"]["verdict"] is None


def test_a_pretraining_on_the_test_rows_is_noticed(cli):
    outcome = cli(*SMALL, *ONE, "transfer.seeds=2", "pretrain.data.split_seed=1", "transfer.budgets.converged=[]")
    assert outcome.status == 0, outcome.err
    overlap = outcome.record("transfer")["overlap"]
    ours, theirs = Digits(0).load(None), Digits(1).load(None)
    seen = {row.tobytes() for row in theirs.train.x}
    assert overlap["exact"] == [row for row, x in enumerate(ours.test.x) if x.tobytes() in seen]
    assert (
        f"{len(overlap['exact'])} of 270 test rows are also pretraining rows of digits"
        in reported(outcome)["warnings"][0]
    )
    alone = cli("stage=pretrain", "visualization=[]", "trainer.max_epochs=1", "data.split_seed=1")
    warned = cli("stage=finetune", "visualization=[]", "trainer.max_epochs=1", f"init={alone.run('pretrain')}")
    assert "including rows that data.split_seed=0 uses for testing" in warned.err


def test_what_was_changed_after_it_was_done_is_refused(cli):
    outcome = cli(*SMALL, *ONE, "transfer.seeds=2", "transfer.budgets.converged=[]")
    folder = outcome.run("transfer")
    for name in ("run.json", "test_scores.npy", "metrics.csv"):
        path = folder / "runs" / "scratch-2-seed1" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b" ")
        changed = cli("stage=report", f"runs={folder}")
        assert changed.status == 2
        assert f"{path} is damaged or was changed" in changed.error
        path.unlink()
        assert f"{path} is missing" in cli("stage=report", f"runs={folder}").error
        path.write_bytes(whole)
    path = folder / "config.yaml"
    whole = path.read_text()
    path.write_text(whole.replace("margin: 0.01", "margin: 0.5"))
    assert f"{path} is damaged or was changed" in cli("stage=report", f"runs={folder}").error
    change_run(folder)
    assert "the rules of its verdicts" in cli("stage=report", f"runs={folder}").error
    path.write_text(whole)
    change_run(folder)
    assert cli("stage=report", f"runs={folder}").status == 0
