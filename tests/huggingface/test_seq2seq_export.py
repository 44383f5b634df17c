"""Exports of encoder-decoders: constant positions, and the comparison of generated texts."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
import transformers
from tests.huggingface.encoder_decoder import saved_encoder_decoder

from warmstart.core.errors import UserError
from warmstart.core.spec import Spec, Vocabulary
from warmstart.data.preprocess import rebuild
from warmstart.huggingface.load import open_hub
from warmstart.huggingface.seq2seq import HuggingFaceSeq2Seq
from warmstart.loss.cross_entropy import cross_entropy
from warmstart.objective.seq2seq import Seq2Seq
from warmstart.run.saved import load_weights
from warmstart.training.export_check import check_generation

SIZES = {
    **{"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 16},
    **{"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
}


@pytest.mark.parametrize("kind", ["marian", "pegasus"])
def test_sinusoidal_positions_are_not_trained_and_an_export_has_the_same_outputs(tmp_path: Path, kind: str):
    torch.manual_seed(0)
    config = {"model_type": kind, "vocab_size": 30, **SIZES}
    spec = Spec("text", (6,), (), vocabulary=Vocabulary(30, padding=0, end=1))
    backbone = HuggingFaceSeq2Seq(spec, config)
    assert not any("embed_positions" in name for name, _ in backbone.named_parameters())
    x, ids = torch.randint(2, 30, (4, 6)), torch.randint(2, 30, (4, 5))
    optimizer = torch.optim.SGD(backbone.parameters(), 1.0)
    backbone.decode(backbone(x).tokens, None, ids).square().mean().backward()
    optimizer.step()
    backbone.eval().exported("seq2seq_lm", None, spec).save_pretrained(tmp_path)
    loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    with torch.no_grad():
        ours = backbone.decode(backbone(x).tokens, None, ids)
        assert torch.allclose(loaded(input_ids=x, decoder_input_ids=ids).logits, ours, atol=1e-6)


def test_another_generated_text_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WARMSTART_CACHE", str(tmp_path / "cache"))
    saved = open_hub(f"hf:{saved_encoder_decoder(tmp_path / 'model', 'bart')}")
    preprocessor = rebuild(saved.preprocessor)
    backbone = HuggingFaceSeq2Seq(saved.spec, saved.card["backbone"]["architecture"])
    load_weights(backbone, saved.weights, "bart")
    objective = Seq2Seq(backbone, saved.spec, cross_entropy, length=6)
    objective.read_texts(preprocessor)
    model = backbone.exported("seq2seq_lm", None, saved.spec)
    model.generation_config.update(max_new_tokens=6, max_length=None, decoder_start_token_id=backbone.start)
    rows = pd.DataFrame({"text": ["color of the big rose"]})

    def inputs_of(raw: pd.DataFrame) -> dict[str, torch.Tensor]:
        return {"input_ids": preprocessor.encode(raw)[:]}

    check_generation(model, inputs_of, (backbone, objective), preprocessor, rows)
    other = SimpleNamespace(modules=list, parameters=list, eval=list, generate=lambda **given: torch.tensor([[7, 8]]))
    with pytest.raises(UserError, match=r"not exported: SimpleNamespace of the folder generates .* trained model"):
        check_generation(other, inputs_of, (backbone, objective), preprocessor, rows)


def test_an_export_generates_no_more_tokens_than_the_decoder_has_positions(tmp_path: Path):
    spec = Spec("text", (6,), (), vocabulary=Vocabulary(30, padding=0, end=1))
    backbone = HuggingFaceSeq2Seq(spec, {"model_type": "marian", "vocab_size": 30, **SIZES})
    for length, expected in ((200, 16 - 1 - 2), (4, 4)):  # the start token and the prefix have positions as well
        objective = Seq2Seq(backbone, spec, cross_entropy, length=length)
        objective.prefix = (5, 6)
        objective.export(tmp_path)
        assert json.loads((tmp_path / "generation_config.json").read_text())["max_new_tokens"] == expected
