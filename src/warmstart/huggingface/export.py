"""Convert a Transformer backbone to the ModernBERT, Llama or Qwen3 classes of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from warmstart.backbone.block import LAYER_EPS, RMS_EPS, ROTARY_BASE, Architecture
from warmstart.backbone.transformer import Transformer
from warmstart.core.errors import UserError
from warmstart.core.spec import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


TASKS = {
    None: "Model",
    "sequence_classification": "ForSequenceClassification",
    "token_classification": "ForTokenClassification",
    "question_answering": "ForQuestionAnswering",
    "masked_lm": "ForMaskedLM",
    "causal_lm": "ForCausalLM",
}
BLOCK = {
    "ModernBert": {
        "norm1": "attn_norm",
        "qkv": "attn.Wqkv",
        "out": "attn.Wo",
        "norm2": "mlp_norm",
        "mlp.0": "mlp.Wi",
        "mlp.2": "mlp.Wo",
    },
    "Llama": {
        "norm1": "input_layernorm",
        "qkv.q": "self_attn.q_proj",
        "qkv.k": "self_attn.k_proj",
        "qkv.v": "self_attn.v_proj",
        "out": "self_attn.o_proj",
        "norm2": "post_attention_layernorm",
        "mlp.0.first": "mlp.gate_proj",
        "mlp.0.second": "mlp.up_proj",
        "mlp.2": "mlp.down_proj",
    },
}
BLOCK["Qwen3"] = {**BLOCK["Llama"], "qk_norm.query": "self_attn.q_norm", "qk_norm.key": "self_attn.k_norm"}
AROUND = {
    "ModernBert": {
        "stem.embedding": "embeddings.tok_embeddings",
        "embedding_norm": "embeddings.norm",
        "norm": "final_norm",
    },
    "Llama": {"stem.embedding": "embed_tokens", "norm": "norm"},
}
AROUND["Qwen3"] = AROUND["Llama"]
HEAD = {
    ("ModernBert", "sequence_classification"): {"": "classifier"},
    ("ModernBert", "token_classification"): {"classifier": "classifier"},
    ("ModernBert", "question_answering"): {"classifier": "classifier"},
    ("ModernBert", "masked_lm"): {"dense": "head.dense", "norm": "head.norm", "decoder": "decoder"},
    ("Llama", "sequence_classification"): {"": "score"},
    ("Llama", "token_classification"): {"": "score"},
    ("Llama", "question_answering"): {"": "qa_outputs"},
    ("Llama", "causal_lm"): {"": "lm_head"},
}
HEAD |= {("Qwen3", task): names for (family, task), names in HEAD.items() if family == "Llama"}


def exported(backbone: Any, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel | None:
    """Convert a model to transformers; return None if transformers does not have the architecture."""
    if isinstance(backbone, Transformer):
        return to_transformers(backbone, task, head, spec)
    return backbone.exported(task, head, spec)


def to_transformers(trunk: Transformer, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel:
    """Convert backbone and head to an equivalent model of transformers, on the CPU and in evaluation mode.

    Raises:
        UserError: a setting is not supported by transformers.
    """
    import transformers

    family = family_of(trunk.architecture)
    check(trunk, family, task, spec)
    config = getattr(transformers, f"{family}Config")(
        **shared_config(trunk.architecture, task, spec), **own_config(trunk.architecture, family, task, spec)
    )
    model = getattr(transformers, f"{family}{TASKS[task]}")(config)
    state = {name: value.detach().cpu().clone() for name, value in trunk.state_dict().items()}
    prefix = "" if task is None else f"{model.base_model_prefix}."
    found = {f"{prefix}{name}": value for name, value in rename(state, trunk.architecture, family).items()}
    if task is not None:
        found |= head_state(head, family, task, trunk)
    model.load_state_dict(found)
    return model.eval()


def family_of(own: Architecture) -> str:
    """Return the name of the family of classes for an architecture."""
    if not own.causal:
        return "ModernBert"
    return "Qwen3" if own.qk_norm else "Llama"


def check(trunk: Transformer, family: str, task: str | None, spec: Spec) -> None:
    """Check that the model family supports all settings.

    Raises:
        UserError: a setting is not supported; the message has the supported values.
    """
    own = trunk.architecture
    if trunk.target_kind != "category":
        raise UserError(f"{spec.modality} models cannot be converted to transformers: only text models can")
    if task is not None and (family, task) not in HEAD:
        raise UserError(f"transformers has no {family} class with a head for this objective ({task})")
    supported = {"position": ("rotary",), "mlp": ("geglu", "swiglu")}
    if own.causal:
        supported |= {"norm": ("rms",), "window": (None,)}
    else:
        supported |= {"norm": ("layer",), "kv_heads": (own.heads,), "qk_norm": (False,)}
    if family == "Qwen3":
        supported |= {"bias": (False,)}
    if task == "sequence_classification":
        supported["pooling"] = ("last",) if own.causal else ("mean", "cls")
    for name, allowed in supported.items():
        if getattr(own, name) not in allowed:
            choices = " or ".join("null" if value is None else str(value) for value in allowed)
            raise UserError(
                f"backbone.{name}={getattr(own, name)}: {family} does not support it; "
                f"train with backbone.{name}={choices} to export the model"
            )
    if task == "sequence_classification" and spec.center:
        raise UserError(
            "transformers cannot scale the outputs of a regression to the units of the targets: not exported"
        )
    tokens = spec.vocabulary
    others = (tokens.unknown, tokens.begin, tokens.end, tokens.mask)
    if task == "sequence_classification" and own.causal and tokens.padding in others:
        raise UserError(
            f"{family} of transformers finds the last token by the padding after it, but this tokenizer has no "
            "separate padding token: pretrain with one that has"
        )


def shared_config(own: Architecture, task: str | None, spec: Spec) -> dict[str, Any]:
    """Return the settings with the same names in all families."""
    vocabulary = spec.vocabulary
    found = {
        "vocab_size": vocabulary.size,
        "hidden_size": own.width,
        "intermediate_size": own.inner,
        "num_hidden_layers": own.depth,
        "num_attention_heads": own.heads,
        "max_position_embeddings": spec.shape[0],
        "attention_bias": own.bias,
        "mlp_bias": own.bias,
        "tie_word_embeddings": own.tied,
        "pad_token_id": vocabulary.padding,
        "bos_token_id": vocabulary.begin,
        "eos_token_id": vocabulary.end,
    }
    if task in ("sequence_classification", "token_classification"):
        found["id2label"] = dict(enumerate(spec.labels))
        found["label2id"] = {label: number for number, label in enumerate(spec.labels)}
    return found


def own_config(own: Architecture, family: str, task: str | None, spec: Spec) -> dict[str, Any]:
    """Return the settings with different names in the families."""
    activation = {"geglu": "gelu", "swiglu": "silu"}[own.mlp]
    rotary = {"rope_type": "default", "rope_theta": ROTARY_BASE}
    if own.causal:
        return {
            "num_key_value_heads": own.kv_heads,
            "head_dim": own.head_width,
            "hidden_act": activation,
            "rms_norm_eps": RMS_EPS,
            "rope_parameters": rotary,
        }
    kinds = ["sliding_attention" if own.is_local(index) else "full_attention" for index in range(own.depth)]
    return {
        "hidden_activation": activation,
        "norm_eps": LAYER_EPS,
        "norm_bias": own.bias,
        "rope_parameters": {kind: dict(rotary) for kind in ("full_attention", "sliding_attention")},
        "layer_types": kinds,
        "local_attention": 2 * (own.window or spec.shape[0]),
        "classifier_activation": "gelu" if task == "masked_lm" else "linear",
        "classifier_pooling": "cls" if own.pooling == "cls" else "mean",
        "cls_token_id": spec.vocabulary.begin,
        "sep_token_id": spec.vocabulary.end,
    }


def rename(state: dict[str, Tensor], own: Architecture, family: str) -> dict[str, Tensor]:
    """Rename the tensors of a backbone to the names of the family."""
    found = {}
    for name, value in state.items():
        if not name.startswith("blocks."):
            part, _, kind = name.rpartition(".")
            found[f"{AROUND[family][part]}.{kind}"] = value
            continue
        _, index, rest = name.split(".", 2)
        part, _, kind = rest.rpartition(".")
        if part == "qk_norm":
            part, kind, value = rest, "weight", value.unflatten(0, (-1, 2)).T.flatten()
        for piece, tensor in split_weight(part, value, own).items():
            found[f"layers.{index}.{BLOCK[family][piece]}.{kind}"] = tensor
    return found


def split_weight(part: str, value: Tensor, own: Architecture) -> dict[str, Tensor]:
    """Split a weight or bias of a block into the tensors of the family.

    All families rotate feature i of a head with feature i + W/2, we rotate adjacent features: rows are permuted.
    """
    if part == "qkv":
        rotated = (own.heads + own.kv_heads) * own.head_width
        pairs = value[:rotated].unflatten(0, (-1, own.head_width // 2, 2))
        value = torch.cat([pairs.transpose(1, 2).flatten(0, 2), value[rotated:]])
        if own.causal:
            sizes = [heads * own.head_width for heads in (own.heads, own.kv_heads, own.kv_heads)]
            return dict(zip(("qkv.q", "qkv.k", "qkv.v"), value.split(sizes)))
    if part == "mlp.0" and own.causal:
        return dict(zip(("mlp.0.first", "mlp.0.second"), value.chunk(2)))
    return {part: value}


def head_state(head: nn.Module, family: str, task: str, trunk: Transformer) -> dict[str, Tensor]:
    """Rename the tensors of a head to the names of the family, and add those that our head does not have."""
    names = HEAD[family, task]
    found = {}
    for name, value in head.state_dict().items():
        part, _, kind = name.rpartition(".")
        found[f"{names[part]}.{kind}"] = value.detach().cpu().clone()
    if trunk.architecture.tied and task.endswith("_lm"):
        found["decoder.weight" if family == "ModernBert" else "lm_head.weight"] = (
            trunk.stem.embedding.weight.detach().cpu()
        )
    if family == "ModernBert" and task != "masked_lm":
        width = trunk.width
        found |= {"head.dense.weight": torch.eye(width), "head.norm.weight": torch.ones(width)}
        if trunk.architecture.bias:
            found["head.norm.bias"] = torch.zeros(width)
    return found
