"""Text encoders and decoders of transformers."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from warmstart.backbone.block import positions_in_documents
from warmstart.core.batch import Features
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.spec import Spec
from warmstart.huggingface.configs.text import is_causal
from warmstart.huggingface.heads import LANGUAGE, Head, has_class, make_config
from warmstart.huggingface.trunk import assemble, checkpoint_layers, depths_by_layer
from warmstart.huggingface.weights import keep_precision, model_of

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


LOWER = re.compile("BFloat16|Half|dtype|scalar type")  # in errors of models that mix precisions


class HuggingFace(Backbone, nn.Module):
    """Text model of transformers without its head.

    Args:
        spec: spec with a vocabulary.
        architecture: content of config.json.
        pooling: cls (the first), mean or last of the valid tokens; None for last if causal, else cls.
        pooler: whether to keep the pretrained pooler of the first token, as in BERT; else the head trains a new one.
        dtype: of the matrices of initial weights that are not trained: float32, bfloat16, or auto for bfloat16 if that
            is the dtype of the saved model and the training computes in it.
        quantize: number format of the weights of linear layers that are not trained, by torchao; None for `dtype`.
        checkpoint: whether to recompute the activations of each layer in the backward pass.
        weights: initial weights; None for random ones.
    """

    modalities: ClassVar = frozenset({"text"})
    target_kind: ClassVar = "category"
    takes_weights: ClassVar = True

    def __init__(
        self,
        spec: Spec,
        architecture: dict[str, Any] | None,
        pooling: Literal["cls", "mean", "last"] | None = None,
        pooler: bool = False,
        dtype: Literal["auto", "bfloat16", "float32"] = "auto",
        quantize: Literal["int8", "int4"] | None = None,
        checkpoint: bool = False,
        weights: Mapping[str, Tensor] | None = None,
    ):
        super().__init__()
        if architecture is None:
            raise UserError("backbone=huggingface has no architecture: name a model with init=hf:NAME_OR_DIR")
        self.architecture, self.vocabulary = architecture, spec.vocabulary
        self.causal = is_causal(architecture)
        self.pooling = pooling or ("last" if self.causal else "cls")
        config = make_config(architecture)
        if config.is_encoder_decoder or config.get_text_config() is not config:
            raise UserError(f"backbone: a {config.model_type} is not a text encoder or decoder")
        config.use_cache = False
        self.model = model_of(config, weights, "model.")
        if getattr(self.model, "pooler", None) is not None and not pooler:
            self.model.pooler = None
        if checkpoint:
            checkpoint_layers(self.model)
        self.is_mixed = self.token_embedding.weight.dtype == torch.bfloat16
        if self.is_mixed:
            keep_precision(self.model)
        self.target_size = config.vocab_size
        if self.vocabulary.size > self.target_size:
            raise UserError(
                f"the tokenizer has {self.vocabulary.size:,} tokens, but the embedding of this {config.model_type} has "
                f"{self.target_size:,} rows: use the tokenizer of the model (init=hf:...)"
            )
        self.positions = _positions(self.model)
        self._check_length(spec.shape[0])
        arguments = inspect.signature(self.model.forward).parameters
        self.takes_positions = self.causal and "position_ids" in arguments
        self.has_types = "token_type_ids" in arguments and getattr(config, "type_vocab_size", 2) > 1
        self.width = self._feature_width()
        self.register_buffer("special", self._indicator(self.vocabulary.special), persistent=False)
        self.register_buffer("joined", self._indicator(self.vocabulary.joined), persistent=False)

    @staticmethod
    def abilities(architecture: dict[str, Any] | None = None, **settings: Any) -> frozenset[str]:
        """Return the abilities of a model of this architecture."""
        if architecture is None:
            return frozenset({"token_embedding"})
        return frozenset({"token_embedding", "causal" if is_causal(architecture) else "hide"})

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Map token ids (B, T) to tokens (B, T, D) and pooled (B, D).

        Raises:
            UserError: a row has more tokens than the model has positions, or does not support packed documents.
        """
        self._check_length(x.shape[1])
        if hidden is not None:
            x = x.masked_fill(hidden, self.vocabulary.mask)
        settings = {}
        if mask is None and self.needs_mask:
            mask = torch.ones_like(x, dtype=torch.bool)
        if mask is not None and mask.dtype in (torch.bool, torch.uint8):
            settings["attention_mask"] = (mask > 0).long()
            if mask.dtype == torch.uint8 and self.has_types:
                settings["token_type_ids"] = (mask.long() - 1).clamp(min=0)
        elif mask is not None:
            settings |= self._document_settings(mask)
        try:
            with self._autocast(x.device.type):
                tokens = self.model(input_ids=x, **settings).last_hidden_state
        except RuntimeError as error:
            if not (torch.is_autocast_enabled(x.device.type) and LOWER.search(str(error))):
                raise
            kind = self.model.config.model_type
            raise UserError(f"a {kind} does not support lower precision: set trainer.precision=null") from error
        valid = None if mask is None else mask > 0
        if self.pooling == "last" and self.vocabulary.only_pads:  # texts may contain this token
            valid = (x != self.vocabulary.padding) & (True if valid is None else valid)
        return Features(tokens, self._pool(tokens, valid))

    def _document_settings(self, documents: Tensor) -> dict[str, Any]:
        """Return attention mask and positions for document numbers (B, T).

        Raises:
            UserError: the model does not support packed documents.
        """
        if not self.separates_documents:
            kind = self.model.config.model_type
            raise UserError(f"a {kind} cannot separate packed texts: set data.separate=false or data.pack=false")
        settings = {"attention_mask": attention_mask(documents, self.model.config, self.causal)}
        return settings | ({"position_ids": positions_in_documents(documents)} if self.takes_positions else {})

    @property
    def token_embedding(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def targets(self, x: Tensor) -> Tensor:
        return x

    def assemble(self, targets: Tensor) -> Tensor:
        return targets

    def maskable(self, x: Tensor) -> Tensor:
        """Return which tokens are not special (B, T)."""
        return ~self.special[x]

    def word_ids(self, x: Tensor) -> Tensor:
        """Return the index of each token's word in its text (B, T); the first token of a text starts a word."""
        starts = ~self.joined[x]
        return (starts.cumsum(1) - starts[:, :1].long()).clamp(min=0)

    def head(self, task: str, outputs: int) -> nn.Module:
        """Return the head of the architecture for a task, or a linear layer if that is incompatible with the pooling.

        Raises:
            UserError: the model does not support the task.
        """
        if task == "masked_lm" and self.vocabulary.mask is None:
            raise UserError("the tokenizer has no mask token, so tokens cannot be hidden: use objective=causal")
        config = make_config(self.architecture)
        head = self._own_head(task, outputs, config)
        if head is not None:
            return head
        if task in LANGUAGE:
            raise UserError(
                f"a {config.model_type} of transformers has no head for {task} on its features: "
                "choose another model or objective"
            )
        return nn.Linear(self.width, outputs)

    def _own_head(self, task: str, outputs: int, config: PreTrainedConfig) -> Head | None:
        """Return the head of the class of transformers for the task; None if there is none or it is incompatible."""
        if not has_class(task, config):
            return None
        try:
            head = Head(task, outputs, config, self.model)
        except (AttributeError, TypeError, ValueError, RuntimeError, KeyError):  # an unsupported head
            return None
        return head if head.is_compatible(self.width, self._pool) else None

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel:
        """Convert to a model of transformers for a task; see `assemble`."""
        return assemble(task, head, self.architecture, self.model, spec)

    def depths(self) -> dict[str, int]:
        """Return depth 0 for everything before the layers, one depth per layer, then the rest."""
        return depths_by_layer(self)

    def _autocast(self, device: str) -> contextlib.AbstractContextManager:
        """Return the context of a forward pass: autocast if only the matrices are bfloat16."""
        is_needed = self.is_mixed and self.token_embedding.weight.dtype == torch.bfloat16
        return torch.autocast(device, torch.bfloat16) if is_needed else contextlib.nullcontext()

    @functools.cached_property
    def separates_documents(self) -> bool:
        """Whether the model supports a document mask; tested at the first such mask."""
        return supports_documents(self.model, self.causal)

    def _check_length(self, length: int) -> None:
        if self.positions is not None and length > self.positions:
            raise UserError(
                f"a text has {length} tokens, but the {self.model.config.model_type} has {self.positions} positions: "
                f"use data.tokenizer.context={self.positions} or less (and data.pack, if it is set)"
            )

    @torch.no_grad()
    def _feature_width(self) -> int:
        """Return the width of the features, from a short padded batch.

        Raises:
            UserError: the model does not return a feature per token.
        """
        x = torch.arange(6).reshape(2, 3) % self.target_size
        x[0, 1] = self.vocabulary.padding
        mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
        kind = self.model.config.model_type
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.random.fork_rng([]), self._autocast("cpu"):
                tokens = self.model(input_ids=x, attention_mask=mask).last_hidden_state
            with torch.random.fork_rng([]), self._autocast("cpu"):
                bare = self.model(input_ids=x[:1]).last_hidden_state
        except Exception as error:  # architectures raise many classes of errors
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"backbone: a {kind} cannot be run on plain batches of tokens: {reason}") from error
        finally:
            self.model.train(was_training)
        if tokens.shape[:2] != x.shape:
            raise UserError(
                f"backbone: a {kind} returns {tuple(tokens.shape)} for {tuple(x.shape)} tokens, which is not supported"
            )
        tolerance = (0.05 if self.is_mixed else 1e-4) * max(1.0, tokens.abs().max().item())
        self.needs_mask = not torch.allclose(bare, tokens[:1], atol=tolerance)  # else it derives a mask from the tokens
        return tokens.shape[-1]

    def _pool(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """Map (B, T, D) to (B, D)."""
        if self.pooling == "cls":
            return tokens[:, 0]
        if self.pooling == "last":
            if valid is None:
                return tokens[:, -1]
            last = (valid * torch.arange(valid.shape[1], device=valid.device)).argmax(1)
            return tokens.take_along_dim(last[:, None, None], 1)[:, 0]
        if valid is None:
            return tokens.mean(1)
        weight = valid[:, :, None].to(tokens.dtype)
        return (tokens * weight).sum(1) / weight.sum(1).clamp(min=1)

    def _indicator(self, ids: tuple[int, ...]) -> Tensor:
        """Return which tokens of the vocabulary have one of these ids (V,)."""
        table = torch.zeros(self.target_size, dtype=torch.bool)
        table[list(ids)] = True
        return table


def _positions(model: PreTrainedModel) -> int | None:
    """Return the maximum number of tokens, or None; RoBERTa reserves its first positions for padding."""
    most = getattr(model.config, "max_position_embeddings", None) or 0
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            most -= module.padding_idx + 1
    return most if most > 0 else None


def attention_mask(documents: Tensor, config: PreTrainedConfig, causal: bool) -> Tensor | dict[str, Tensor]:
    """Return the attention mask of documents (B, 1, T, T); a dict by layer type if there are several.

    Padding attends to padding, so that no row is fully masked.

    Args:
        documents: document number of each position (B, T).
        config: has the window size and the attention implementation.
        causal: whether to attend to earlier positions only.

    Raises:
        UserError: there are layers other than full or sliding-window attention.
    """
    position = torch.arange(documents.shape[1], device=documents.device)
    distance = position[:, None] - position
    allowed = (documents[:, :, None] == documents[:, None, :])[:, None]
    if causal:
        allowed = allowed & (distance >= 0)
    window = getattr(config, "sliding_window", None)
    local = allowed if window is None else allowed & (distance < window if causal else distance.abs() <= window)
    masks = {"full_attention": allowed, "sliding_attention": local}
    if config._attn_implementation != "sdpa":
        lowest = torch.finfo(torch.float32).min
        masks = {
            kind: torch.zeros(mask.shape).to(mask.device).masked_fill(~mask, lowest) for kind, mask in masks.items()
        }
    kinds = set(getattr(config, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"])
    if not kinds <= set(masks):
        raise UserError(f"the layers of this {config.model_type} cannot separate packed texts: use data.separate=false")
    return masks if len(kinds) > 1 else masks[kinds.pop()]


@torch.no_grad()
def supports_documents(model: PreTrainedModel, causal: bool) -> bool:
    """Return whether changing one of two packed documents leaves the features of the other unchanged."""
    device = next(model.parameters()).device
    documents = torch.tensor([[1, 1, 2, 2]], device=device)
    one, two = model.config.vocab_size - 1, model.config.vocab_size - 2
    found = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for row in ((one, two, one, two), (one, two, two, one), (two, one, one, two)):
            torch.manual_seed(0)  # the same dropout
            x = torch.tensor([row], device=device)
            try:
                found.append(model(input_ids=x, attention_mask=attention_mask(documents, model.config, causal))[0][0])
            except (TypeError, ValueError, RuntimeError, IndexError):  # it does not support such a mask
                return False
    first = torch.allclose(found[0][:2], found[1][:2], atol=1e-5)
    return first and torch.allclose(found[0][2:], found[2][2:], atol=1e-5)
