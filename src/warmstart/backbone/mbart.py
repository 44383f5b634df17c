"""Convert an EncoderDecoder backbone to the MBart class of transformers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from warmstart.backbone.encoder_decoder import EncoderDecoder, Half

OFFSET = 2  # rows of the position embedding of MBart before the first position


def to_mbart(trunk: EncoderDecoder) -> PreTrainedModel:
    """Return an MBart with copies of the weights, on their device and in evaluation mode."""
    import transformers

    trunk = without_adapters(trunk)
    own, weight = trunk.architecture, trunk.token_embedding.weight
    config = transformers.MBartConfig(
        vocab_size=len(weight),
        max_position_embeddings=len(trunk.encoder.position),
        d_model=own.width,
        encoder_layers=own.depth,
        decoder_layers=own.depth,
        encoder_attention_heads=own.heads,
        decoder_attention_heads=own.heads,
        encoder_ffn_dim=own.inner,
        decoder_ffn_dim=own.inner,
        activation_function="gelu",
        dropout=own.dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=False,
        pad_token_id=trunk.padding,
        bos_token_id=None,
        eos_token_id=trunk.start,
        decoder_start_token_id=trunk.start,
        forced_eos_token_id=None,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = transformers.MBartForConditionalGeneration(config)
    model.to_empty(device=weight.device)
    state = {
        "model.shared.weight": weight,
        **half_state(trunk.encoder, "encoder"),
        **half_state(trunk.decoder, "decoder"),
    }
    state = {name: value.detach().clone() for name, value in state.items()}
    state["final_logits_bias"] = torch.zeros(1, len(weight), device=weight.device)
    for name in ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"):
        state[name] = state["model.shared.weight"]
    model.load_state_dict(state)
    model.tie_weights()
    return model.to(weight.dtype).eval()


def without_adapters(trunk: EncoderDecoder) -> EncoderDecoder:
    """Return a copy in which linear layers replace those of peft; the same model if it has none."""
    if not any(type(module).__module__.startswith("peft.") for module in trunk.modules()):
        return trunk
    from peft.tuners.tuners_utils import BaseTunerLayer

    found = copy.deepcopy(trunk).eval()
    wrappers = {name: module for name, module in found.named_modules() if isinstance(module, BaseTunerLayer)}
    for name, wrapper in wrappers.items():
        owner, _, own = name.rpartition(".")
        setattr(found.get_submodule(owner), own, as_linear(wrapper, wrapper.get_base_layer()))
    return found


@torch.no_grad()
def as_linear(wrapper: nn.Module, base: nn.Linear) -> nn.Linear:
    """Return a linear layer that computes what a layer with adapters computes."""
    eye = torch.eye(base.in_features, device=base.weight.device, dtype=base.weight.dtype)
    layer = nn.Linear(base.in_features, base.out_features, device=eye.device, dtype=eye.dtype)
    with torch.autocast(eye.device.type, enabled=False):
        zero = wrapper(torch.zeros_like(eye[:1]))
        layer.weight.copy_((wrapper(eye) - zero).T)
    layer.bias.copy_(zero[0])
    return layer


ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj"}


def half_state(half: Half, name: str) -> dict[str, Tensor]:
    """Return the tensors of an encoder or decoder by the names of transformers."""
    start = f"model.{name}."
    position = half.position
    state = {
        f"{start}embed_positions.weight": torch.cat([position.new_zeros(OFFSET, position.shape[1]), position]),
        **layer(f"{start}layernorm_embedding", half.embedding_norm),
        **layer(f"{start}layer_norm", half.norm),
    }
    for index, block in enumerate(half.blocks):
        place = f"{start}layers.{index}."
        state |= layer(f"{place}self_attn_layer_norm", block.norm1) | layer(f"{place}self_attn.out_proj", block.out)
        state |= layer(f"{place}final_layer_norm", block.norm2)
        state |= layer(f"{place}fc1", block.mlp[0]) | layer(f"{place}fc2", block.mlp[2])
        state |= parts(f"{place}self_attn", block.qkv, "qkv")
        if name == "decoder":
            state |= layer(f"{place}encoder_attn_layer_norm", block.norm_cross)
            state |= layer(f"{place}encoder_attn.out_proj", block.cross_out)
            state |= parts(f"{place}encoder_attn", block.cross_q, "q") | parts(
                f"{place}encoder_attn", block.cross_kv, "kv"
            )
    return state


def layer(name: str, module: Any) -> dict[str, Tensor]:
    """Return weight and bias of a module by name."""
    return {f"{name}.weight": module.weight, f"{name}.bias": module.bias}


def parts(name: str, module: Any, letters: str) -> dict[str, Tensor]:
    """Return weights and biases of the projections in a linear layer, one letter each, such as qkv."""
    pieces = zip(letters, module.weight.chunk(len(letters)), module.bias.chunk(len(letters)))
    return {
        f"{name}.{ATTENTION[letter]}.{kind}": value
        for letter, *both in pieces
        for kind, value in zip(("weight", "bias"), both)
    }
