"""Static embeddings as a pretraining without training steps: `init=static:`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.conftest import FAST
from tests.huggingface.test_image import saved_folder as image_folder
from tests.huggingface.test_text import saved_folder
from tests.stages.test_text import on, own_cache, reviews  # noqa: F401
from torch.nn.functional import cosine_similarity

from warmstart.huggingface import load
from warmstart.run.folder import RunFolder
from warmstart.run.saved import open_model
from warmstart.training.components import build_seeded

NARROW = ("backbone=tiny", "backbone.width=8", "data.tokenizer.vocabulary=200", "data.tokenizer.context=32")
EMBEDDING = "stem.embedding.weight"
SHORT = (*FAST, "data.batch_size=8", "feature_rows=0")


def test_tokens_of_like_contexts_get_like_vectors_and_later_runs_start_from_them(cli, reviews: Path):  # noqa: F811
    words = (*on(reviews), *NARROW)
    made = cli("stage=pretrain", *words, *SHORT, "init=static:pmi")
    assert made.status == 0, made.err
    record = made.record("pretrain")
    assert (record["status"], record["cost"]["steps"], record["parent"]) == ("done", 0, None)
    saved = open_model(made.run("pretrain") / "model")
    names = json.loads(json.loads((made.run("pretrain") / "model" / "preprocessor.json").read_text())["tokenizer"])
    vectors = {name: saved.weights[EMBEDDING][number] for name, number in names["model"]["vocab"].items()}

    def similarity(one: str, other: str) -> float:
        return float(cosine_similarity(vectors[one], vectors[other], dim=0))

    assert similarity("lovely", "clever") > similarity("lovely", "stale") + 0.3
    config = RunFolder.open(made.run("pretrain")).config()
    random = build_seeded(config.backbone, config.seed, "backbone", spec=saved.spec).state_dict()
    different = {name for name, value in random.items() if not torch.equal(value, saved.weights[name])}
    assert different == {EMBEDDING}
    before, after = random[EMBEDDING], saved.weights[EMBEDDING]
    assert torch.allclose(before.norm(dim=1), after.norm(dim=1))
    assert (before != after).any(1).sum() == record["static"]["tokens"] < len(after)

    start = made.run("pretrain")
    further = cli("stage=pretrain", *words, *SHORT, "debug=one_batch", f"init={start}")
    assert further.status == 0, further.err
    tuned = cli("stage=finetune", *words, *FAST, "debug=one_batch", f"init={start}")
    assert tuned.record("finetune")["transfer"]["fraction"] == 1
    assert tuned.record("finetune")["parent"]["id"] == record["id"]


def test_a_teacher_gives_the_vectors_and_is_the_parent_also_of_a_rerun(cli, reviews: Path, tmp_path: Path, monkeypatch):  # noqa: F811
    teacher = saved_folder(tmp_path / "bert", "bert")
    opened = []
    monkeypatch.setattr(load, "open_hub", lambda name, real=load.open_hub: opened.append(name) or real(name))
    made = cli("stage=pretrain", *on(reviews), *NARROW, *SHORT, f"init=static:hf:{teacher}")
    assert made.status == 0, made.err
    assert opened == [f"hf:{teacher}"]
    first = made.record("pretrain")
    assert first["parent"]["path"] == f"static:hf:{teacher}"
    assert 0 < first["static"]["tokens"] <= first["static"]["vocabulary"]
    again = cli("stage=rerun", f"run={made.run('pretrain')}")
    assert again.record("pretrain")["rerun"]["verdict"] == "equal"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("stage=pretrain", "init=static:glove"),
            "init=static:glove: give static:pmi, static:hf:NAME_OR_DIR or static:patches",
        ),
        (("stage=pretrain", "init=shuffled:static:pmi"), "init=shuffled:static:pmi: give static:pmi"),
        (("stage=pretrain", "init=static:hf:/nowhere"), "init=static:hf:/nowhere: there is no such folder"),
        (("stage=pretrain", "init=static:pmi", "backbone.width=64"), "fewer than backbone.width=64"),
        (("stage=pretrain", "init=static:pmi", "snapshots=2"), "snapshots=0"),
        (
            ("stage=pretrain", "init=static:pmi", "objective=distill", "teacher=hf:MODEL"),
            "teacher=hf:MODEL: init=static:pmi has no training steps: remove it, or choose another init",
        ),
        (("stage=pretrain", "init=static:patches"), "sets the filters of a convolution, but backbone=transformer on"),
        (("stage=finetune", "init=static:pmi"), "make a run with stage=pretrain init=static:pmi"),
        (("stage=transfer", "arm.probe.init=static:pmi", "transfer.arms=[probe]"), "stage=pretrain init=static:pmi"),
    ],
)
def test_what_does_not_fit_is_refused(cli, reviews: Path, words: tuple[str, ...], message: str):  # noqa: F811
    refused = cli(words[0], *on(reviews), *NARROW, *words[1:])
    assert refused.status == 2
    assert message in refused.error
    assert len(refused.err.splitlines()) <= 3


def test_models_of_other_data_are_refused(cli, reviews: Path, tmp_path: Path):  # noqa: F811
    teacher = image_folder(tmp_path / "vit", "vit")
    refused = cli("stage=pretrain", *on(reviews), *NARROW, *SHORT, f"init=static:hf:{teacher}")
    assert (refused.status, "the teacher takes image data" in refused.error) == (2, True)
    refused = cli("stage=pretrain", "experiment=digits", *FAST, "init=static:pmi")
    assert (refused.status, "backbone=mlp on data=digits has none" in refused.error) == (2, True)


IMAGES = ("experiment=digits", "backbone=resnet", "backbone.widths=[6]", "backbone.blocks=[1]", *FAST)


def test_whitened_patches_become_the_filters_of_the_first_convolution(cli):
    made = cli("stage=pretrain", *IMAGES, "init=static:patches")
    assert made.status == 0, made.err
    record = made.record("pretrain")
    assert (record["status"], record["cost"]["steps"], record["static"]) == ("done", 0, {"filters": 6})
    saved = open_model(made.run("pretrain") / "model")
    config = RunFolder.open(made.run("pretrain")).config()
    random = build_seeded(config.backbone, config.seed, "backbone", spec=saved.spec).state_dict()
    assert {name for name, value in random.items() if not torch.equal(value, saved.weights[name])} == {"stem.0.weight"}
    before, after = random["stem.0.weight"].flatten(1), saved.weights["stem.0.weight"].flatten(1)
    assert torch.allclose(before.norm(dim=1), after.norm(dim=1))
    assert after.sum(1).abs().max() < 1e-5  # constant patches have no similarity
    tuned = cli("stage=finetune", *IMAGES, "debug=one_batch", "strategy=frozen_stem")
    assert tuned.record("finetune")["parent"]["id"] == record["id"]
    assert torch.equal(open_model(tuned.run("finetune") / "model").weights["stem.0.weight"].flatten(1), after)


def test_other_data_than_images_has_no_patches(cli):
    words = ("stage=pretrain", "experiment=speech", "backbone=resnet", "objective=contrastive", "data/augment=noise")
    refused = cli(*words, *FAST, "init=static:patches")
    assert (refused.status, "has no patches: choose another init" in refused.error) == (2, True)
