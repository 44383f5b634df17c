"""Export: a trunk and its head as a model of transformers, with equal logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from warmstart.backbone.stem import FeatureStem, TextStem
from warmstart.backbone.transformer import Transformer
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec, Vocabulary
from warmstart.huggingface.export import exported

LENGTH = 24
VOCABULARY = Vocabulary(40, padding=0, unknown=1, begin=2, end=3, mask=4, special=(0, 1, 2, 3, 4))
SPEC = Spec("text", (LENGTH,), ("no", "maybe", "yes"), vocabulary=VOCABULARY)
MODERNBERT = {"mlp": "geglu", "bias": False, "position": "rotary"}
LLAMA = {"mlp": "swiglu", "norm": "rms", "bias": False, "position": "rotary", "causal": True}
SETTINGS = {
    "modernbert": MODERNBERT,
    "modernbert in windows": MODERNBERT | {"window": 3, "global_every": 2},
    "modernbert with the rest": MODERNBERT | {"bias": True, "tied": False, "pooling": "cls", "mlp": "swiglu"},
    "llama": LLAMA,
    "llama in groups": LLAMA | {"kv_heads": 2},
    "qwen3": LLAMA | {"qk_norm": True, "kv_heads": 2},
    "llama with the rest": LLAMA | {"bias": True, "tied": False, "kv_heads": 1, "mlp": "geglu"},
}
TASKS = {None: 0, "sequence_classification": 3, "token_classification": 3, "question_answering": 2}
CASES = [
    (name, task)
    for name, settings in SETTINGS.items()
    for task in (*TASKS, "causal_lm" if settings.get("causal") else "masked_lm")
]


def make(settings: dict, task: str | None) -> tuple[Transformer, nn.Module | None]:
    torch.manual_seed(0)
    trunk = Transformer(SPEC, TextStem, **{"width": 32, "depth": 4, "heads": 4, **settings}).eval()
    head = None if task is None else trunk.head(task, TASKS.get(task, VOCABULARY.size)).eval()
    for module in (trunk, head):
        for parameter in () if module is None else module.parameters():
            nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.15)
    return trunk, head


def rows() -> tuple[Tensor, Tensor]:
    mask = torch.arange(LENGTH) < torch.tensor([24, 15, 4, 1])[:, None]
    x = torch.randint(5, 40, mask.shape, generator=torch.Generator().manual_seed(1))
    return x.masked_fill(~mask, VOCABULARY.padding), mask


def ours(trunk: Transformer, head: nn.Module | None, task: str | None, x: Tensor, mask: Tensor | None) -> Tensor:
    features = trunk(x, mask)
    if task is None:
        return features.tokens
    return head(features.pooled if task == "sequence_classification" else features.tokens)


def theirs(model: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
    found = model(input_ids=x, attention_mask=None if mask is None else mask.long())
    if hasattr(found, "start_logits"):
        return torch.stack([found.start_logits, found.end_logits], -1)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


@pytest.mark.parametrize(("name", "task"), CASES)
@torch.no_grad()
def test_transformers_computes_the_same_from_the_saved_folder(name: str, task: str | None, tmp_path: Path):
    trunk, head = make(SETTINGS[name], task)
    model = exported(trunk, task, head, SPEC)
    assert not model.training
    model.save_pretrained(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if path.suffix != ".json"] == [".safetensors"]
    loaded = type(model).from_pretrained(tmp_path).eval()
    x, mask = rows()
    for seen in (mask, None):
        a = ours(trunk, head, task, x if seen is not None else x[:1], seen)
        for one in (model, loaded):
            b = theirs(one, x if seen is not None else x[:1], seen)
            if seen is not None and task != "sequence_classification":
                a, b = a[seen] if a.ndim == 3 else a, b[seen]
            torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_labels_and_special_tokens_are_named():
    for settings in (MODERNBERT, LLAMA):
        trunk, head = make(settings, None)[0], make(settings, "token_classification")[1]
        config = exported(trunk, "token_classification", head, SPEC).config
        assert config.id2label == {0: "no", 1: "maybe", 2: "yes"}
        assert config.label2id == {"no": 0, "maybe": 1, "yes": 2}
        assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (0, 2, 3)


def test_a_causal_model_generates_in_transformers_what_it_finds_likeliest_here():
    trunk, head = make(LLAMA, "causal_lm")
    x = torch.tensor([[2, 10, 11]])
    found = exported(trunk, "causal_lm", head, SPEC).generate(
        x, attention_mask=torch.ones_like(x), max_new_tokens=6, do_sample=False, eos_token_id=None
    )
    for _ in range(6):
        x = torch.cat([x, head(trunk(x).tokens[:, -1]).argmax(-1, keepdim=True)], 1)
    assert torch.equal(found, x)


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        (MODERNBERT | {"position": "learned"}, None, "backbone.position=rotary"),
        (MODERNBERT | {"mlp": "gelu"}, None, "backbone.mlp=geglu or swiglu"),
        (
            MODERNBERT | {"norm": "rms"},
            None,
            "ModernBert does not support it; train with backbone.norm=layer",
        ),
        (MODERNBERT | {"kv_heads": 2}, None, "backbone.kv_heads=4"),
        (MODERNBERT | {"pooling": "last"}, "sequence_classification", "backbone.pooling=mean or cls"),
        (LLAMA | {"norm": "layer"}, None, "Llama does not support it; train with backbone.norm=rms"),
        (LLAMA | {"window": 4}, None, "backbone.window=null"),
        (LLAMA | {"pooling": "mean"}, "sequence_classification", "backbone.pooling=last"),
        (MODERNBERT | {"qk_norm": True}, None, "backbone.qk_norm=True: ModernBert does not support it"),
        (LLAMA | {"qk_norm": True, "bias": True}, None, "Qwen3 does not support it; train with backbone.bias=False"),
        (MODERNBERT, "ctc", "no ModernBert class with a head for this objective"),
    ],
)
def test_what_no_class_of_transformers_has_is_refused(settings: dict, task: str | None, message: str):
    trunk, head = make(settings, task)
    with pytest.raises(UserError, match=message):
        exported(trunk, task, head, SPEC)


def test_what_transformers_would_compute_otherwise_is_refused():
    task = "sequence_classification"
    trunk, head = make(MODERNBERT, task)
    measured = Spec("text", (LENGTH,), ("a", "b", "c"), (1.0,) * 3, (2.0,) * 3, VOCABULARY)
    with pytest.raises(UserError, match="regression"):
        exported(trunk, task, head, measured)
    trunk, head = make(LLAMA, task)
    with pytest.raises(UserError, match="padding"):
        exported(trunk, task, head, Spec("text", (LENGTH,), SPEC.labels, vocabulary=Vocabulary(40, padding=3, end=3)))
    vector = Transformer(Spec("vector", (6,)), FeatureStem, width=32)
    with pytest.raises(UserError, match="only text models"):
        exported(vector, None, None, Spec("vector", (6,)))
