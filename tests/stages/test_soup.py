"""Soups and WiSE-FT: averaging, selection, refused combinations, and the result as a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from tests.conftest import Outcome
from tests.records import change_run

from warmstart.run.folder import RunFolder
from warmstart.run.manifest import Job, Manifest
from warmstart.stages.finetune import run as finetune
from warmstart.stages.soup import mix, moved_norms

RESNET = ("backbone=resnet", "backbone.widths=[4]", "backbone.blocks=[1]")
SHORT = ("stage=finetune", "visualization=[]", "trainer.max_epochs=1", "data.labels_per_class=20")


def pretrain(cli, *words: str) -> Path:
    outcome = cli(
        "stage=pretrain", "trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "visualization=[]", *words
    )
    assert outcome.status == 0, outcome.err
    return outcome.run("pretrain")


def sweep(folder: Path, composed, jobs: list[tuple[str, ...]]) -> Path:
    """A sweep's folder whose jobs have been run one after the other."""
    configs = [composed(*SHORT, *words) for words in jobs]
    plain = [{k: v for k, v in OmegaConf.to_container(one, resolve=True).items() if k != "sweep"} for one in configs]
    planned = [Job(str(number), {}, config) for number, config in enumerate(plain)]
    manifest = Manifest(folder, "finetune", "digits", [], "val/accuracy", "max", {}, planned)
    manifest.write()
    for job in planned:
        config = OmegaConf.create(job.config)
        finetune(config, RunFolder.create(config, manifest.path(job.name).parent, job.name))
    return folder


@pytest.fixture
def base(cli) -> Path:
    return pretrain(cli)


@pytest.fixture
def two(base: Path, composed, tmp_path: Path) -> Path:
    return sweep(tmp_path / "two", composed, [(f"init={base}", f"optimizer.lr={rate}") for rate in (0.003, 0.01)])


def record_of(outcome: Outcome) -> dict:
    assert outcome.status == 0, outcome.err
    return outcome.record("soup")


def test_a_uniform_soup_is_the_mean_and_a_run_like_others(two: Path, base: Path, cli, tmp_path: Path):
    made = cli("stage=soup", f"runs={two}", "method=uniform")
    record = record_of(made)
    ones = [json.loads((two / "runs" / name / "run.json").read_text()) for name in "01"]
    assert [parent["id"] for parent in record["parents"]] == [one["id"] for one in ones]
    assert record["parent"]["id"] == base.name
    assert record["soup"]["shares"] == [0.5, 0.5]
    own, *theirs = (load_file(path / "model/head.safetensors") for path in (made.run("soup"), *two.glob("runs/*")))
    for name, value in own.items():
        torch.testing.assert_close(value, (theirs[0][name] + theirs[1][name]) / 2)
    tested = {name: value for name, value in record["metrics"].items() if name.startswith("test")}
    assert cli("stage=evaluate", "run=latest").record("evaluate")["metrics"] == tested
    rows = tmp_path / "rows.csv"
    rows.write_text("\n".join(",".join(["0"] * 64) for _ in range(2)))
    predicted = cli("stage=predict", "run=latest", f"input={rows}")
    assert predicted.record("predict")["parent"]["id"] == record["id"], predicted.err


def test_a_greedy_soup_is_never_worse_on_validation_than_its_best_run(two: Path, cli):
    record = record_of(cli("stage=soup", f"runs={two}"))
    alone = [json.loads(path.read_text())["metrics"]["val/accuracy"] for path in two.glob("runs/*/run.json")]
    assert record["metrics"]["val/accuracy"] >= max(alone)
    (tried,) = record["soup"]["tried"]
    assert tried["alone"] == pytest.approx(min(alone))
    assert tried["taken"] == (record["soup"]["shares"] == [0.5, 0.5])


def test_wise_goes_from_the_start_to_the_end(two: Path, base: Path, cli):
    made = cli("stage=soup", f"runs={two / 'runs' / '0'}", "method=wise")
    record, folder = record_of(made), made.run("soup")
    curve = record["soup"]["tried"]
    assert [point["alpha"] for point in curve] == [tenths / 10 for tenths in range(11)]
    end = json.loads((two / "runs/0/run.json").read_text())
    assert curve[-1]["val/accuracy"] == pytest.approx(end["metrics"]["val/accuracy"])
    assert record["metrics"]["val/accuracy"] == max(point["val/accuracy"] for point in curve)
    alpha = record["soup"]["shares"][1]
    start, finish, own = (load_file(path / "model/model.safetensors") for path in (base, two / "runs/0", folder))
    for name, value in own.items():
        torch.testing.assert_close(value, (1 - alpha) * start[name] + alpha * finish[name])
    assert (folder / "wise.png").stat().st_size > 1000
    assert "100,val/accuracy" in (folder / "metrics.csv").read_text()


def test_norm_statistics_are_recomputed_where_they_moved(cli, composed, tmp_path: Path):
    torch.manual_seed(0)
    states = [{"a.running_mean": torch.ones(2), "b.running_mean": torch.full((2,), float(n))} for n in range(2)]
    assert moved_norms(states) == {"b"}
    assert torch.equal(mix(states, [0.5, 0.5])["a.running_mean"], torch.ones(2))
    base = pretrain(cli, "objective=contrastive", "data/augment=shift", *RESNET)
    jobs = [(f"init={base}", *RESNET, f"optimizer.lr={rate}") for rate in (0.003, 0.01)]
    folder = sweep(tmp_path / "norms", composed, jobs)
    own = load_file(cli("stage=soup", f"runs={folder}", "method=uniform").run("soup") / "model/model.safetensors")
    ones = [load_file(folder / "runs" / name / "model/model.safetensors") for name in "01"]
    name = "stem.1.running_var"
    assert own["stem.1.running_mean"].isfinite().all()
    assert not torch.allclose(own[name], (ones[0][name] + ones[1][name]) / 2, rtol=1e-3)


def test_runs_that_cannot_be_averaged_are_refused(two: Path, base: Path, cli, composed, tmp_path: Path):
    other = pretrain(cli, "seed=1")
    strangers = sweep(tmp_path / "strangers", composed, [(f"init={base}",), (f"init={other}",)])
    wide = pretrain(cli, "backbone.hidden=[32]")
    scratch = sweep(tmp_path / "scratch", composed, [("init=scratch",)])
    one = tmp_path / "one"
    shutil.copytree(two, one)
    change_run(one / "runs/1", status="failed")
    none = tmp_path / "none"
    shutil.copytree(scratch, none)
    shutil.rmtree(none / "runs/0")
    relabelled = tmp_path / "relabelled"
    shutil.copytree(two, relabelled)
    card = relabelled / "runs/1/model/config.json"
    card.write_text(card.read_text().replace('"labels": ["0"', '"labels": ["zero"').replace('"0",', '"zero",'))
    change_run(relabelled / "runs/1")
    wider = tmp_path / "wider"
    sweep(wider, composed, [(f"init={base}",), (f"init={wide}", "backbone.hidden=[32]")])
    parents = [json.loads((wider / "runs" / name / "run.json").read_text())["parent"] for name in "01"]
    change_run(wider / "runs/1", parent={**parents[1], "weights_sha256": parents[0]["weights_sha256"]})
    for words, message in (
        ((f"runs={strangers}",), "have different initial weights"),
        ((f"runs={relabelled}",), "have different labels"),
        ((f"runs={wider}",), "have different backbones (backbone.hidden): [256, 256] and [32]"),
        ((f"runs={one}",), "one run is done"),
        ((f"runs={none}",), "no run is done"),
        ((f"runs={two / 'runs' / '0'}",), "is a single run: give the folder"),
        ((f"runs={two}", "method=wise"), "is a sweep, but method=wise takes a single run"),
        ((f"runs={scratch / 'runs' / '0'}", "method=wise"), "a soup needs runs with trained initial weights"),
        ((f"runs={two}", "method=best"), "must be greedy, uniform or wise"),
        ((f"runs={tmp_path / 'nowhere'}",), "is not the folder of a sweep"),
    ):
        outcome = cli("stage=soup", *words)
        assert outcome.status == 2, words
        assert message in outcome.error
        assert len(outcome.error.splitlines()) == 1
