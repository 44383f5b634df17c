"""A rerun gives the same weights, and reports differences if it does not."""

from __future__ import annotations

import json

from tests.conftest import FAST
from tests.records import change_run, write_run

from warmstart.stages.rerun import compare


def test_the_same_config_gives_the_same_weights(cli):
    cli("stage=pretrain", *FAST)
    first = cli("stage=finetune", *FAST).run("finetune")
    outcome = cli("stage=rerun", f"run={first}")
    assert outcome.status == 0, outcome.err
    again = json.loads((outcome.run("finetune") / "run.json").read_text())
    record = json.loads((first / "run.json").read_text())
    assert again["rerun"] == {"of": record["id"], "verdict": "equal"}
    assert again["weights_sha256"] == record["weights_sha256"]
    assert again["parent"]["weights_sha256"] == record["parent"]["weights_sha256"]
    assert "equal" in outcome.out


def test_a_probe_with_another_head_is_not_equal(cli):
    cli("stage=pretrain", *FAST)
    first = cli("stage=finetune", "strategy=linear_probe", *FAST).run("finetune")
    (first / "config.yaml").write_text((first / "config.yaml").read_text().replace("seed: 0\n", "seed: 5\n"))
    change_run(first)
    outcome = cli("stage=rerun", f"run={first}")
    again = json.loads((outcome.run("finetune") / "run.json").read_text())
    assert again["weights_sha256"] == json.loads((first / "run.json").read_text())["weights_sha256"]
    assert again["rerun"]["verdict"] != "equal"


def test_another_number_is_called_different_and_other_versions_named(cli):
    first = cli("stage=pretrain", *FAST).run("pretrain")
    record = json.loads((first / "run.json").read_text())
    record["model_sha256"] = {}
    record["metrics"]["val/loss"] += 0.5
    record["environment"]["torch"] = "1.0"
    write_run(first, record)
    outcome = cli("stage=rerun", f"run={first}")
    assert json.loads((outcome.run("pretrain") / "run.json").read_text())["rerun"]["verdict"] == "different"
    assert "torch was 1.0" in outcome.err
    refused = cli("stage=rerun", "run=nowhere")
    assert refused.status == 2


def test_without_metrics_another_model_is_different():
    then, now = ({"model_sha256": {"model.safetensors": digest}, "metrics": {}} for digest in "01")
    assert (compare(then, then), compare(then, now)) == ("equal", "different")
