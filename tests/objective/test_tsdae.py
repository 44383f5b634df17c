"""TSDAE: what the encoder and the decoder see, and continued pretraining of a Hugging Face model on own texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import FAST
from tests.huggingface.test_text import saved_folder
from tests.objective.test_objectives import set_up
from tests.stages.test_text import on, own_cache, reviews  # noqa: F401

from warmstart.core.batch import Batch

SHORT = (*FAST, "data.batch_size=8", "feature_rows=0", "logger=[]", "objective=tsdae")


def test_the_encoder_sees_the_rest_of_a_text_in_order():
    backbone, objective, _ = set_up("tsdae")
    x = torch.arange(5, 25).repeat(50, 1)
    x[:, 0] = 2
    x[1, 2:] = 0
    mask = (x > 0).to(torch.uint8)
    mask[:, 10:] *= 2
    tokens, kept = objective.corrupt(backbone, Batch(x, mask=mask))
    assert kept.dtype == torch.uint8
    for row, types in zip(tokens[2:], kept[2:], strict=True):
        valid = row[types > 0].tolist()
        assert valid[0] == 2
        assert valid[1:] == sorted(set(valid[1:]))
        assert len(valid) == 1 + 19 - round(19 * 0.6)
        assert ((row >= 15) == (types == 2)).all()
    assert tokens[1].tolist() == [2, 6] + [0] * (tokens.shape[1] - 2)  # its only token is kept
    assert len({tuple(row) for row in tokens.tolist()}) > 40


def test_the_decoder_sees_the_vector_and_the_tokens_before():
    backbone, objective, batch = set_up("tsdae")
    objective.eval()
    pooled, weight = torch.randn(8, backbone.width), backbone.token_embedding.weight
    found = objective.decode(batch.x, pooled, weight)
    later = batch.x.clone()
    later[:, 10:] = 7
    torch.testing.assert_close(objective.decode(later, pooled, weight)[:, :10], found[:, :10])
    assert not torch.allclose(objective.decode(later, pooled, weight)[:, 10], found[:, 10], atol=1e-3)
    assert not torch.allclose(objective.decode(batch.x, pooled.flip(0), weight), found, atol=1e-3)
    lone = objective.step(backbone, Batch(torch.full((4, 1), 7)))
    assert (lone.loss.item(), lone.count) == (0.0, 0)


def test_a_model_is_pretrained_further_and_finetuned(cli, reviews: Path, tmp_path: Path):  # noqa: F811
    model = saved_folder(tmp_path / "bert", "bert")
    words = (*on(reviews), "data.tokenizer.context=32")
    done = cli("stage=pretrain", *words, f"init=hf:{model}", *SHORT, "data.pack=null", "trainer.max_steps=3")
    assert done.status == 0, done.err
    record = done.record("pretrain")
    assert (record["transfer"]["fraction"], record["transfer"]["head"]) == (1, "random")
    assert record["metrics"]["val/perplexity"] > 1
    run = done.run("pretrain")
    further = cli("stage=pretrain", *words, f"init={run}", *SHORT, "data.pack=null", "trainer.max_steps=1")
    assert further.record("pretrain")["transfer"]["head"] == "loaded"
    tuned = cli("stage=finetune", *words, *FAST, f"init={run}", "trainer.max_steps=1", "logger=[]")
    assert tuned.status == 0, tuned.err
    assert tuned.record("finetune")["transfer"]["fraction"] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("data.pack=16",), "data.pack=16: objective=tsdae has one vector per row: set data.pack=null"),
        (("objective.delete=1",), "objective.delete=1: must be a number above 0 and below 1"),
        (("experiment=digits", "backbone=vit"), "objective=tsdae needs a backbone that embeds tokens of a vocabulary"),
    ],
)
def test_what_does_not_fit_is_refused(cli, reviews: Path, words: tuple[str, ...], message: str):  # noqa: F811
    refused = cli("stage=pretrain", *(() if "experiment=digits" in words else on(reviews)), *SHORT, *words)
    assert refused.status == 2
    assert message in refused.error
