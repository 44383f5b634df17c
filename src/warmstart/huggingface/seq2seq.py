"""Text-to-text models of transformers, such as T5 and BART."""

from __future__ import annotations

import copy
import functools
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Features
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.spec import Spec
from warmstart.huggingface.configs.seq2seq import TASK
from warmstart.huggingface.heads import make_config, make_model
from warmstart.huggingface.tied import save_once
from warmstart.huggingface.trunk import checkpoint_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HuggingFaceSeq2Seq(Backbone, nn.Module):
    """Encoder-decoder of transformers with its output layer; the features are those of the encoder.

    Args:
        spec: spec with a vocabulary.
        architecture: content of config.json.
        generation: content of generation_config.json.
        checkpoint: whether to recompute the activations of each layer in the backward pass.

    Raises:
        UserError: it is no encoder-decoder, or names no token that starts the decoder.
    """

    modalities: ClassVar = frozenset({"text"})
    abilities: ClassVar = frozenset({"decode", "token_embedding"})
    target_kind: ClassVar = "category"

    def __init__(
        self,
        spec: Spec,
        architecture: dict[str, Any] | None,
        generation: dict[str, Any] | None = None,
        checkpoint: bool = False,
    ):
        super().__init__()
        if architecture is None:
            raise UserError("backbone=huggingface_seq2seq has no architecture: name a model with init=hf:NAME_OR_DIR")
        config = make_config(architecture)
        config.use_cache = False
        self.architecture, self.vocabulary = architecture, spec.vocabulary
        self.model = make_model(TASK, config)
        if architecture.get("tie_word_embeddings") is False:
            untie(self.model)
        fix_positions(self.model)
        from transformers import GenerationConfig

        known = GenerationConfig().to_dict()  # which older models have in config.json
        settings = dict(generation or {key: value for key, value in architecture.items() if key in known})
        self.model.generation_config = GenerationConfig.from_dict(settings)
        self.target_size, self.width = config.vocab_size, config.hidden_size
        if spec.vocabulary.size > self.target_size:
            raise UserError(
                f"the tokenizer has {spec.vocabulary.size:,} tokens, but the embedding of this {config.model_type} has "
                f"{self.target_size:,} rows: use the tokenizer of the model (init=hf:...)"
            )
        self.padding = spec.vocabulary.padding
        self.start = self.model.generation_config.decoder_start_token_id
        if self.start is None:
            self.start = getattr(config, "decoder_start_token_id", None)
        if self.start is None:
            raise UserError(f"backbone: this {config.model_type} has no decoder_start_token_id in its config.json")
        self.positions = self.decoder_positions = getattr(config, "max_position_embeddings", None)
        save_once(self)
        if checkpoint:
            checkpoint_layers(self.model)

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Map token ids (B, T) to features of the encoder (B, T, D) and their mean over valid positions (B, D).

        Raises:
            UserError: a row has more tokens than the model has positions.
        """
        self._check_length(x.shape[1])
        valid = torch.ones_like(x) if mask is None else (mask > 0).long()
        tokens = self.model.get_encoder()(input_ids=x, attention_mask=valid).last_hidden_state
        weight = valid[:, :, None].to(tokens.dtype)
        return Features(tokens, (tokens * weight).sum(1) / weight.sum(1).clamp(min=1))

    def decode(self, features: Tensor, mask: Tensor | None, ids: Tensor) -> Tensor:
        """Map features (B, T, D), their mask and the token ids before each position (B, L) to logits (B, L, V)."""
        from transformers.modeling_outputs import BaseModelOutput

        self._check_length(ids.shape[1])
        valid = None if mask is None else (mask > 0).long()
        encoded = BaseModelOutput(last_hidden_state=features)
        return self.model(encoder_outputs=encoded, attention_mask=valid, decoder_input_ids=ids).logits

    def generator(self) -> PreTrainedModel:
        """Return the model."""
        return self.model

    def halves(self) -> dict[str, list[nn.Module]]:
        decoder = [self.model.get_decoder(), self.model.get_output_embeddings()]
        return {"encoder": [self.model.get_encoder()], "decoder": decoder}

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def targets(self, x: Tensor) -> Tensor:
        return x

    def assemble(self, targets: Tensor) -> Tensor:
        return targets

    @functools.cached_property
    def special(self) -> Tensor:
        """Which tokens are special (V,)."""
        table = torch.zeros(self.target_size, dtype=torch.bool)
        table[list(self.vocabulary.special)] = True
        return table.to(self.token_embedding.weight.device)

    def maskable(self, x: Tensor) -> Tensor:
        """Return which tokens are not special (B, T)."""
        return ~self.special[x]

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel:
        """Return a copy of the model, on the CPU and in evaluation mode.

        Raises:
            UserError: the model has a head for another task.
        """
        if task not in (None, TASK):
            kind = self.model.config.model_type
            raise UserError(f"transformers has no {kind} for {task} on the features of its encoder: not exported")
        model = copy.deepcopy(self.model).cpu().eval()
        model.config.use_cache = True
        return model.get_encoder() if task is None else model

    def depths(self) -> dict[str, int]:
        """Return depth 0 for embeddings, then one depth per layer of the encoder, and one per layer of the decoder."""
        found: dict[str, int] = {"model": 0}
        depth, places = 0, {module: name for name, module in self.named_modules()}
        for half in (self.model.get_encoder(), self.model.get_decoder()):
            lists = {name: module for name, module in half.named_children() if isinstance(module, nn.ModuleList)}
            layers = max(lists, key=lambda name: len(lists[name]))
            last = depth + len(lists[layers])
            for name, _ in half.named_children():
                found[f"{places[half]}.{name}"] = 0 if "embed" in name else last + 1
            found |= {f"{places[half]}.{layers}.{index}": depth + index + 1 for index in range(last - depth)}
            depth = last
        if "lm_head" in dict(self.model.named_children()):
            found["model.lm_head"] = depth + 1
        return found

    def _check_length(self, length: int) -> None:
        if self.positions is not None and length > self.positions:
            raise UserError(
                f"a text has {length} tokens, but the {self.model.config.model_type} has {self.positions} positions: "
                f"use data.tokenizer.context={self.positions} or less"
            )


def untie(model: PreTrainedModel) -> None:
    """Give the output layer its own weight, as config.json says, where transformers ties it in spite of that."""
    output, shared = model.get_output_embeddings(), model.get_input_embeddings().weight
    if output is not None and output.weight is shared:
        output.weight = nn.Parameter(shared.detach().clone())


def fix_positions(model: PreTrainedModel) -> None:
    """Turn tables of sinusoidal positions into buffers, which no strategy trains: transformers computes them again."""
    for module in model.modules():
        if type(module).__name__.endswith("SinusoidalPositionalEmbedding") and "weight" in module._parameters:
            module.register_buffer("weight", module._parameters.pop("weight").detach())
