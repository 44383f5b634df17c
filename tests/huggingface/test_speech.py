"""Speech models of transformers as backbones: equal outputs, including padded batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformers import AutoFeatureExtractor, AutoModelForCTC

from warmstart.core.errors import UserError
from warmstart.core.spec import Spec
from warmstart.data.preprocess import rebuild
from warmstart.data.sources.audio.spoken_digits import read_packaged
from warmstart.huggingface.load import open_hub
from warmstart.huggingface.speech import HuggingFaceSpeech
from warmstart.run.saved import load_weights

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8, 8],
    "conv_kernel": [10, 3, 2],
    "conv_stride": [5, 2, 2],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "num_feat_extract_layers": 3,
}
SPARSE = {
    **SMALL,
    "conv_kernel": [10, 8, 4],
    "conv_stride": [8, 8, 5],
}  # 50 frames a second, as the published ones have
CAPITALS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAOINHSRDLUMWCFGYPBVKXJQZ"]
KINDS = ("wav2vec2", "hubert", "wavlm")
SAMPLES = 400


def pair(kind: str, norm: str = "layer") -> tuple[HuggingFaceSpeech, torch.nn.Module]:
    """A backbone and transformers' own model, with the same random weights."""
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[kind](**SMALL, feat_extract_norm=norm)
    theirs = transformers.AutoModel.from_config(config).eval()
    ours = HuggingFaceSpeech(Spec("speech", (SAMPLES,)), {**config.to_dict(), "model_type": kind})
    weights = {f"model.{name}": value for name, value in theirs.state_dict().items()}
    assert load_weights(ours, weights, "test")["fraction"] == 1.0
    return ours.eval(), theirs


def saved_folder(folder: Path, kind: str, norm: str = "layer", ctc: bool = True, **overrides: object) -> Path:
    """A small recogniser with random weights and capitals as labels, as transformers saves it; or its trunk."""
    torch.manual_seed(0)
    size = {"vocab_size": len(CAPITALS), "pad_token_id": 0}
    config = transformers.CONFIG_MAPPING[kind](**SPARSE, **size, feat_extract_norm=norm)
    model = (AutoModelForCTC if ctc else transformers.AutoModel).from_config(config)
    model.save_pretrained(folder)
    settings = {"sampling_rate": 16_000, "do_normalize": True, "return_attention_mask": norm == "layer", **overrides}
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "padding_value": 0.0}
    (folder / "preprocessor_config.json").write_text(json.dumps({**extractor, **settings}))
    if ctc:
        (folder / "vocab.json").write_text(json.dumps({label: number for number, label in enumerate(CAPITALS)}))
    return folder


def padded(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.arange(SAMPLES) < torch.tensor(lengths)[:, None]
    return torch.randn(len(lengths), SAMPLES, generator=torch.Generator().manual_seed(0)) * mask, mask


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_frames_are_those_of_transformers(kind: str):
    ours, theirs = pair(kind)
    x, mask = padded([SAMPLES, 250])
    alone = ours(x)
    assert torch.allclose(alone.tokens, theirs(x).last_hidden_state, atol=1e-6)
    assert torch.allclose(alone.pooled, alone.tokens.mean(1))
    masked = ours(x, mask)
    assert torch.allclose(masked.tokens, theirs(x, attention_mask=mask.long()).last_hidden_state, atol=1e-6)
    assert masked.pooled.shape == (2, ours.width)


@pytest.mark.parametrize(("kind", "norm"), [*((kind, "layer") for kind in KINDS), ("wav2vec2", "group")])
@torch.no_grad()
def test_a_spoken_digit_from_a_folder_is_heard_as_by_transformers(tmp_path: Path, kind: str, norm: str):
    folder = saved_folder(tmp_path, kind, norm, sampling_rate=8000)
    saved = open_hub(f"hf:{folder}")
    backbone = HuggingFaceSpeech(saved.spec, saved.card["backbone"]["architecture"])
    assert load_weights(backbone, saved.weights, "test")["fraction"] == 1.0
    preprocessor = rebuild(saved.preprocessor)
    rows = [0, 500] if norm == "layer" else [0]  # its extractor normalises padding too where there are no masks
    digits = read_packaged().iloc[rows]
    x, mask = preprocessor.encode(digits).padded(slice(0, len(rows)))
    extractor, model = AutoFeatureExtractor.from_pretrained(folder), AutoModelForCTC.from_pretrained(folder).eval()
    inputs = extractor(list(digits.audio), sampling_rate=8000, padding=True, return_tensors="pt")
    tokens = backbone.eval()(x, mask).tokens
    torch.testing.assert_close(tokens, model.base_model(**inputs).last_hidden_state, atol=1e-5, rtol=0)
    logits = torch.nn.functional.linear(tokens, saved.head["head.weight"], saved.head["head.bias"])
    torch.testing.assert_close(logits, model(**inputs).logits.roll(-1, 2), atol=1e-5, rtol=0)  # the blank is the last
    assert saved.spec.labels == ("<s>", "</s>", "<unk>", "▁", *CAPITALS[5:])
    assert preprocessor.seconds == 0.04


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_padding_changes_neither_valid_frames_nor_their_mean(kind: str):
    ours, _ = pair(kind)
    x, mask = padded([SAMPLES, 250])
    valid = ours.token_mask(mask)
    short = ours(x[1:, :250])
    both = ours(x + 3 * ~mask, mask)
    assert valid.sum(1).tolist() == [both.tokens.shape[1], short.tokens.shape[1]]
    assert torch.allclose(both.tokens[1][valid[1]], short.tokens[0], atol=1e-5)
    assert torch.allclose(both.pooled[1], short.pooled[0], atol=1e-5)


@torch.no_grad()
def test_a_model_made_without_masks_sees_zeros_and_the_mean_leaves_them_out():
    ours, theirs = pair("wav2vec2", "group")
    x, mask = padded([SAMPLES, 250])
    features = ours(x + ~mask, mask)
    expected = theirs(x).last_hidden_state
    assert torch.allclose(features.tokens, expected, atol=1e-6)
    assert torch.allclose(features.pooled[1], expected[1, ours.token_mask(mask)[1]].mean(0), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_mask_of_frames_is_that_of_transformers_and_never_empty(kind: str):
    ours, theirs = pair(kind)
    lengths = [SAMPLES, 251, 100, 40]
    _, mask = padded(lengths)
    frames = ours.token_mask(mask)
    assert torch.equal(frames, theirs._get_feature_vector_attention_mask(frames.shape[1], mask.long()))
    assert ours.token_mask(padded([3])[1]).sum() == 1


def test_training_draws_from_the_seed_alone():
    ours, _ = pair("wav2vec2")
    ours.train()
    x, _ = padded([SAMPLES])
    torch.manual_seed(0)
    first = ours(x).pooled
    torch.manual_seed(0)
    assert torch.equal(first, ours(x).pooled)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_depth(kind: str):
    ours, _ = pair(kind)
    depths = ours.depths()
    for name, _ in ours.named_parameters():
        assert sum(name == prefix or name.startswith(f"{prefix}.") for prefix in depths) == 1, name
    assert depths["model.feature_extractor"] == 0
    assert depths["model.encoder.layers.1"] == 2


def test_what_is_no_speech_or_too_short_is_refused():
    with pytest.raises(UserError, match="a bert is not a model of raw speech"):
        HuggingFaceSpeech(Spec("speech", (SAMPLES,)), {"model_type": "bert"})
    ours, _ = pair("wav2vec2")
    with pytest.raises(UserError, match=rf"20 samples are shorter .*: {ours.shortest} or more are needed"):
        ours(torch.zeros(1, 20))
    assert ours(torch.zeros(1, ours.shortest)).tokens.shape[1] == 1


@torch.no_grad()
def test_a_trained_classifier_of_sound_is_one_linear_head(tmp_path: Path):
    saved_folder(tmp_path, "wav2vec2", ctc=False)
    torch.manual_seed(0)
    config = transformers.AutoConfig.from_pretrained(tmp_path, num_labels=3, classifier_proj_size=7)
    config.id2label, config.label2id = {0: "b", 1: "c", 2: "a"}, {"b": 0, "c": 1, "a": 2}
    theirs = transformers.AutoModelForAudioClassification.from_config(config).eval()
    theirs.save_pretrained(tmp_path)
    saved = open_hub(f"hf:{tmp_path}")
    assert (saved.card["task"], saved.spec.labels) == ("sequence_classification", ("a", "b", "c"))
    backbone = HuggingFaceSpeech(saved.spec, saved.card["backbone"]["architecture"]).eval()
    load_weights(backbone, saved.weights, "test")
    x = torch.randn(2, SAMPLES * 4)
    ours = torch.nn.functional.linear(backbone(x).pooled, saved.head["head.weight"], saved.head["head.bias"])
    torch.testing.assert_close(ours, theirs(x).logits[:, [2, 0, 1]], atol=1e-5, rtol=0)
