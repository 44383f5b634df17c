"""Distillation: targets are the outputs of a frozen teacher, cached, and counted as cost; and refused teachers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from tests.conftest import FAST
from tests.huggingface.test_text import opened, saved_folder
from tests.records import change_run
from tests.stages.test_resume import stop_at

from warmstart import main
from warmstart.data.preprocess import rebuild
from warmstart.run.folder import RunFolder
from warmstart.training.assemble import assemble

DISTILL = ("stage=pretrain", "objective=distill", *FAST, "logger=[]", "feature_rows=0")


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARMSTART_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, own_cache: None) -> dict[str, Path]:
    """A finetuned and a pretrained run of the digits, copies that cannot be used, and a text model."""
    outputs = tmp_path_factory.mktemp("runs")
    for words in (("stage=finetune", "init=scratch", "trainer.max_epochs=3"), ("stage=pretrain",)):
        with initialize_config_dir(version_base="1.3", config_dir=str(main.CONF)):
            config = compose("train", overrides=[*FAST, *words, "logger=[]", f"output_dir={outputs}"])
        assert main.run(config) == 0
    found = {
        name: next((outputs / stage).glob("*/*")) for name, stage in (("TUNED", "finetune"), ("PLAIN", "pretrain"))
    }
    for name in ("FAILED", "DAMAGED"):
        found[name] = shutil.copytree(found["TUNED"], outputs / name)
    change_run(found["FAILED"], status="failed")
    with open(found["DAMAGED"] / "model/model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    return {**found, "BERT": saved_folder(outputs / "bert", "bert")}


def test_students_match_features_and_logits_and_the_teacher_is_recorded_and_paid_for(cli, folders: dict[str, Path]):
    teacher, every = folders["TUNED"], ("trainer.max_epochs=5", "trainer.check_val_every_n_epoch=5")
    features = cli(*DISTILL, f"teacher={teacher}", *every)
    assert features.status == 0, features.err
    record, known = features.record("pretrain"), json.loads((teacher / "run.json").read_text())
    assert record["metrics"]["val/cosine"] > 0.8
    assert record["teacher"]["id"] == known["id"]
    assert record["teacher"]["weights_sha256"] == known["weights_sha256"]
    cost = record["cost"]
    assert 0 < cost["teacher_seconds"] < cost["seconds"]
    assert features.err.count("computing the outputs") == 2

    again = cli(*DISTILL, f"teacher={teacher}", "objective.cosine=false", "loss=huber", "trainer.max_steps=2")
    assert again.status == 0, again.err
    assert "computing the outputs" not in again.err
    assert again.record("pretrain")["cost"]["teacher_seconds"] == cost["teacher_seconds"]

    logits = cli(*DISTILL, "objective=distill_logits", f"teacher={teacher}", "data/augment=noise", *every)
    assert logits.status == 0, logits.err
    assert logits.record("pretrain")["metrics"]["val/agreement"] > 0.7
    finetuned = cli("stage=finetune", *FAST, "logger=[]", "trainer.max_steps=2")
    assert finetuned.record("finetune")["transfer"]["fraction"] == 1


def test_a_damaged_entry_of_the_cache_is_computed_again(cli, folders, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    words = (*DISTILL, f"teacher={folders['TUNED']}", "trainer.max_steps=1")
    assert cli(*words).status == 0
    for path in (tmp_path / "cache").rglob("outputs.npy"):
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    second = cli(*words)
    assert second.err.count("this cache entry is rebuilt") == second.err.count("computing the outputs") == 2
    one, two = (json.loads((run / "run.json").read_text())["metrics"] for run in second.runs("pretrain"))
    assert one == two


@pytest.fixture
def texts(tmp_path: Path) -> tuple[str, ...]:
    """Settings of a table of texts of different lengths."""
    lines = [" ".join(["the plot", "w11 w12 w13"][n % 2] for _ in range(1 + n % 5)) + f" w{n}" for n in range(60)]
    pd.DataFrame({"text": lines, "label": ["good", "bad"] * 30}).to_csv(tmp_path / "texts.csv", index=False)
    return f"data.root={tmp_path / 'texts.csv'}", "data.text=text", "data.target=label", "data.tokenizer.context=16"


def test_a_text_has_the_features_that_the_teacher_gives_it_alone(cli, folders, texts):
    done = cli("experiment=text", *texts, "backbone=tiny", *DISTILL, f"teacher=hf:{folders['BERT']}")
    assert done.status == 0, done.err
    assert "data.pack=128 is not used" in done.err
    data, _, lineage = assemble(RunFolder.open(done.run("pretrain")).config())
    assert lineage["teacher"]["path"] == f"hf:{folders['BERT']}"
    backbone, saved = opened(folders["BERT"])
    texts, targets = data.given["train"].x, data.parts["train"][1]
    assert targets.dtype == torch.float16
    assert len(texts) == len(targets)
    for number in range(0, len(texts), 7):
        x, mask = rebuild(saved.preprocessor).encode(texts.iloc[[number]]).padded(slice(None))
        with torch.no_grad():
            torch.testing.assert_close(targets[[number]].float(), backbone(x, mask).pooled, atol=2e-3, rtol=2e-3)


def test_a_token_has_the_features_that_the_teacher_gives_it_alone_and_the_student_its_tokenizer(cli, folders, texts):
    words = ("experiment=text", *texts, "backbone=tiny", "backbone.dropout=0.0", *DISTILL, "objective=distill_tokens")
    done = cli(*words, "data.pack=null", f"teacher=hf:{folders['BERT']}", "trainer.max_epochs=20")
    assert done.status == 0, done.err
    metrics = done.record("pretrain")["metrics"]
    assert metrics["val/token_cosine"] > 0.3
    assert metrics["val/cosine"] > 0.3
    data, _, _ = assemble(RunFolder.open(done.run("pretrain")).config())
    backbone, saved = opened(folders["BERT"])
    preprocessor = rebuild(saved.preprocessor).adapted(data.source.preprocessor())
    rows, targets = data.given["train"].x, data.parts["train"][1]
    assert targets.values.dtype == "float16"
    for number in range(0, len(rows), 7):
        x, mask = preprocessor.encode(rows.iloc[[number]]).padded(slice(None))
        assert torch.equal(x, data.parts["train"][0][[number]])
        with torch.no_grad():
            features = backbone(x, mask)
        expected = torch.cat([features.pooled[:, None], features.tokens], 1)
        torch.testing.assert_close(targets[[number]].float(), expected, atol=2e-3, rtol=2e-3)
    center = data.spec.center[len(data.spec.center) // 2 :]
    flat = targets[:].float()[:, 1:][data.parts["train"][0].padded(slice(None))[1]]
    torch.testing.assert_close(torch.tensor(center), flat.mean(0), atol=1e-4, rtol=1e-3)

    own = cli(*words, "objective=masked_tokens", "trainer.max_steps=1").run("pretrain")
    refused = cli(*words, "data.pack=null", f"teacher=hf:{folders['BERT']}", f"init={own}")
    assert refused.status == 2
    assert "its tokens are not those of init: set init=scratch" in refused.error
    again = cli(*words, "data.pack=null", f"teacher={own}", f"init={own}", "trainer.max_steps=1")
    assert again.status == 0, again.err


def test_a_run_is_not_resumed_with_another_teacher(cli, folders, tmp_path: Path, monkeypatch):
    teacher = shutil.copytree(folders["TUNED"] / "model", tmp_path / "teacher")
    words = (*DISTILL, f"teacher={teacher}", "trainer.max_epochs=2")
    with monkeypatch.context() as patch:
        stop_at(patch, 25)
        stopped = cli(*words)
    assert stopped.status == 130
    shutil.rmtree(teacher)
    shutil.copytree(folders["PLAIN"] / "model", teacher)
    run = stopped.run("pretrain")
    refused = cli(f"resume={run}")
    assert refused.status == 2
    assert f"{teacher} has changed since {run} was started" in refused.error
    shutil.rmtree(teacher)
    shutil.copytree(folders["TUNED"] / "model", teacher)
    resumed = cli(f"resume={run}")
    assert resumed.status == 0, resumed.err
    record = resumed.record("pretrain")
    assert record["cost"]["teacher_seconds"] == record["teacher"]["seconds"]
    shutil.rmtree(teacher)
    shutil.copytree(folders["PLAIN"] / "model", teacher)
    later = cli("stage=finetune", *FAST, "forgetting=true", f"init={run}")
    assert later.status == 2
    assert f"the teacher of {run}, {teacher}, has changed since that run" in later.error


def test_a_report_states_what_the_teacher_cost_and_that_it_has_seen_labels(cli, folders):
    pretraining = ("objective@pretrain.objective=distill", f"pretrain.teacher={folders['TUNED']}")
    short = ("pretrain.trainer.max_epochs=1", "pretrain.feature_rows=0", "visualization@pretrain.visualization=[]")
    words = ("transfer.arms=[pretrained,scratch]", "transfer.labels=[2]", "transfer.seeds=1", "trainer.max_steps=12")
    other = ("data.split_seed=1", "transfer.budgets.converged=[]", "logger=[]")
    done = cli("stage=transfer", *pretraining, *short, *words, *other)
    assert done.status == 0, done.err
    assert f"{folders['TUNED']} was trained with data.split_seed=0, including rows that data.split_seed=1" in done.err
    page = (done.run("transfer") / "report.md").read_text()
    assert "s for the outputs of its teacher." in page
    assert f"the teacher of the pretraining, {folders['TUNED']}/model, was trained on labels" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "objective=distill needs a teacher: set teacher"),
        (("objective=denoise", "teacher=TUNED"), "objective=denoise has no teacher: remove it, or choose objective="),
        (("teacher=latest",), "teacher=latest: no such folder; give hf:NAME_OR_DIR or a run folder"),
        (("teacher=random:hf:x",), "teacher=random:hf:x: no such folder; give hf:NAME_OR_DIR or a run folder"),
        (("teacher=hf:/nowhere",), "teacher=hf:/nowhere: there is no such folder"),
        (("teacher=FAILED",), "is not finished: its status is failed"),
        (("teacher=DAMAGED",), "model.safetensors is damaged"),
        (("objective=distill_logits", "teacher=PLAIN"), "has no head for classes"),
        (("teacher=hf:BERT",), "is for text data, but data=digits is image"),
        (("objective=distill_tokens", "teacher=PLAIN"), "has no tokens: objective=distill_tokens needs a teacher for"),
        (("loss=cross_entropy", "teacher=TUNED"), "loss=cross_entropy is incompatible with objective=distill"),
    ],
)
def test_wrong_teachers_are_refused(words: tuple[str, ...], message: str, cli, folders):
    for name, path in folders.items():
        words = tuple(word.replace(name, str(path)) for word in words)
    refused = cli(*DISTILL, *words)
    assert refused.status == 2
    assert message in refused.error
    assert len(refused.err.splitlines()) <= 2
    assert refused.runs("pretrain") == []


def test_blocks_that_were_asked_for_are_refused(command, folders):
    refused = command(*DISTILL, "experiment=shakespeare", "data.pack=64", f"teacher=hf:{folders['BERT']}")
    assert refused.status == 2
    assert "data.pack=64: objective=distill has one target per row: set data.pack=null" in refused.err
