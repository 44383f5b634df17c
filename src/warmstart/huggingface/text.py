"""Encoders and decoders of texts from the transformers library, by their config.json."""

from __future__ import annotations

import functools
import inspect
import re
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Features
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.spec import Spec
from warmstart.huggingface.heads import LANGUAGE, Head, described, has_class, is_causal, whole
from warmstart.huggingface.trunk import assembled, depths_by_layer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


POOLINGS = ("cls", "mean", "last")
LOWER = re.compile("BFloat16|Half|dtype|scalar type")  # in the message of a model that mixes precisions


class HuggingFace(Backbone, nn.Module):
    """A trunk of transformers, on token numbers.

    Args:
        spec: with a vocabulary.
        architecture: the model's config.json.
        pooling: cls (the first), mean or last of the valid tokens; None for last if causal, else cls.
        pooler: the trunk keeps the dense layer that BERT's classifiers put on the first token; else a head that has one
            trains its own.
    """

    modalities: ClassVar = frozenset({"text"})
    target_kind: ClassVar = "category"

    def __init__(
        self,
        spec: Spec,
        architecture: dict[str, Any] | None,
        pooling: str | None = None,
        pooler: bool = False,
    ):
        super().__init__()
        if architecture is None:
            raise UserError("backbone=huggingface has no architecture: name a model with init=hf:NAME_OR_DIR")
        if pooling not in (*POOLINGS, None):
            raise UserError(f"backbone.pooling={pooling}: give {', '.join(POOLINGS)}")
        self.architecture, self.vocabulary = architecture, spec.vocabulary
        self.causal = is_causal(architecture)
        self.pooling = pooling or ("last" if self.causal else "cls")
        config = described(architecture)
        if config.is_encoder_decoder or config.get_text_config() is not config:
            raise UserError(f"backbone: a {config.model_type} is not an encoder or decoder of texts alone")
        config.use_cache = False
        self.model = whole(None, config)
        if getattr(self.model, "pooler", None) is not None and not pooler:
            self.model.pooler = None
        self.target_size = config.vocab_size
        if self.vocabulary.size > self.target_size:
            raise UserError(
                f"the tokenizer has {self.vocabulary.size:,} tokens and the embedding of this {config.model_type} "
                f"{self.target_size:,} rows: use the model's own tokenizer (init=hf:...)"
            )
        self.positions = _positions(self.model)
        self._check_length(spec.shape[0])
        takes = inspect.signature(self.model.forward).parameters
        self.has_types = "token_type_ids" in takes and getattr(config, "type_vocab_size", 2) > 1
        self.width = self._measured()
        self.register_buffer("special", self._among(self.vocabulary.special), persistent=False)
        self.register_buffer("joined", self._among(self.vocabulary.joined), persistent=False)

    @staticmethod
    def abilities(architecture: dict[str, Any] | None = None, **settings: Any) -> frozenset[str]:
        """What an objective may ask of a model of this architecture."""
        if architecture is None:
            return frozenset()
        return frozenset({"causal"}) if is_causal(architecture) else frozenset({"hide"})

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Token numbers (B, T) to tokens (B, T, D) and pooled (B, D).

        Raises:
            UserError: a row has more tokens than the model has positions, or documents that it cannot keep apart.
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
            if not self.keeps_documents_apart:
                raise UserError(f"a {self.model.config.model_type} cannot keep packed texts apart: data.separate=false")
            settings["attention_mask"] = sight(mask, self.model.config, self.causal)
        try:
            tokens = self.model(input_ids=x, **settings).last_hidden_state
        except RuntimeError as error:
            if not (torch.is_autocast_enabled(x.device.type) and LOWER.search(str(error))):
                raise
            kind = self.model.config.model_type
            raise UserError(f"a {kind} cannot be computed in lower precision: set trainer.precision=null") from error
        valid = None if mask is None else mask > 0
        if self.pooling == "last" and self.vocabulary.only_pads:  # not where a text itself names this token
            valid = (x != self.vocabulary.padding) & (True if valid is None else valid)
        return Features(tokens, self._pool(tokens, valid))

    def targets(self, x: Tensor) -> Tensor:
        """The tokens themselves, (B, T)."""
        return x

    def assemble(self, targets: Tensor) -> Tensor:
        """The inverse of `targets`."""
        return targets

    def maskable(self, x: Tensor) -> Tensor:
        """All but special tokens, (B, T)."""
        return ~self.special[x]

    def word_ids(self, x: Tensor) -> Tensor:
        """The number of each token's word within its row, (B, T); a row's first token starts one."""
        starts = ~self.joined[x]
        return (starts.cumsum(1) - starts[:, :1].long()).clamp(min=0)

    def head(self, task: str, outputs: int) -> nn.Module:
        """The architecture's own head; one linear layer where there is none that fits the pooling.

        Raises:
            UserError: the model cannot do the task.
        """
        if task == "masked_lm" and self.vocabulary.mask is None:
            raise UserError("the tokenizer has no mask token, so nothing can be hidden: use objective=causal")
        config = described(self.architecture)
        head = self._own_head(task, outputs, config)
        if head is not None:
            return head
        if task in LANGUAGE:
            raise UserError(
                f"a {config.model_type} of transformers has no head for {task} that needs its features alone: "
                "choose another model or objective"
            )
        return nn.Linear(self.width, outputs)

    def _own_head(self, task: str, outputs: int, config: PreTrainedConfig) -> Head | None:
        """That of the library's class for the task; None where there is none that does what is done here."""
        if not has_class(task, config):
            return None
        try:
            head = Head(task, outputs, config, self.model)
        except (AttributeError, TypeError, ValueError, RuntimeError, KeyError):  # a form of its own
            return None
        return head if head.fits(self.width, self._pool) else None

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel:
        """The same model as one of transformers, of its class for a task; see `assembled`."""
        return assembled(task, head, self.architecture, self.model, spec)

    def depths(self) -> dict[str, int]:
        """Embeddings and what else stands before the layers at 0, one depth per layer, then the rest."""
        return depths_by_layer(self)

    @functools.cached_property
    def keeps_documents_apart(self) -> bool:
        """Whether the model respects a mask of documents; tried once, at the first such mask."""
        return keeps_apart(self.model, self.causal)

    def _check_length(self, length: int) -> None:
        if self.positions is not None and length > self.positions:
            raise UserError(
                f"a text has {length} tokens and the {self.model.config.model_type} {self.positions} positions: "
                f"use data.tokenizer.context={self.positions} or less (and data.pack, where it is set)"
            )

    @torch.no_grad()
    def _measured(self) -> int:
        """The width of the features, tried on a short padded batch.

        Raises:
            UserError: the model does not make a feature of each token of such a batch.
        """
        x = torch.arange(6).reshape(2, 3) % self.target_size
        x[0, 1] = self.vocabulary.padding
        mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
        kind = self.model.config.model_type
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.random.fork_rng([]):
                tokens = self.model(input_ids=x, attention_mask=mask).last_hidden_state
            with torch.random.fork_rng([]):
                bare = self.model(input_ids=x[:1]).last_hidden_state
        except Exception as error:  # of every kind, by architecture
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise UserError(f"backbone: a {kind} cannot be run on plain batches of tokens: {reason}") from error
        finally:
            self.model.train(was_training)
        if tokens.shape[:2] != x.shape:
            raise UserError(f"backbone: a {kind} makes {tuple(tokens.shape)} of {tuple(x.shape)} tokens: not used")
        self.needs_mask = not torch.allclose(bare, tokens[:1], atol=1e-4)  # else it guesses one from the tokens
        return tokens.shape[-1]

    def _pool(self, tokens: Tensor, valid: Tensor | None = None) -> Tensor:
        """(B, T, D) to (B, D)."""
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

    def _among(self, numbers: tuple[int, ...]) -> Tensor:
        """Which tokens are among these, (V,)."""
        table = torch.zeros(self.target_size, dtype=torch.bool)
        table[list(numbers)] = True
        return table


def _positions(model: PreTrainedModel) -> int | None:
    """The longest text, in tokens; None for a model that has no such limit. RoBERTa's first positions are padding's."""
    most = getattr(model.config, "max_position_embeddings", None) or 0
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            most -= module.padding_idx + 1
    return most if most > 0 else None


def sight(documents: Tensor, config: PreTrainedConfig, causal: bool) -> Tensor | dict[str, Tensor]:
    """Who sees whom (B, 1, T, T), by kind of layer where there are several. Padding sees padding: no row is empty.

    Args:
        documents: (B, T), the number of each position's document.
        config: says how far layers with a window see, and how attention is computed.
        causal: whether positions see earlier ones only.

    Raises:
        UserError: there are layers that are not attention, or not to all positions or a window of them.
    """
    place = torch.arange(documents.shape[1], device=documents.device)
    distance = place[:, None] - place
    seen = (documents[:, :, None] == documents[:, None, :])[:, None]
    if causal:
        seen = seen & (distance >= 0)
    window = getattr(config, "sliding_window", None)
    near = seen if window is None else seen & (distance < window if causal else distance.abs() <= window)
    views = {"full_attention": seen, "sliding_attention": near}
    if config._attn_implementation != "sdpa":
        lowest = torch.finfo(torch.float32).min
        views = {
            kind: torch.zeros(view.shape).to(view.device).masked_fill(~view, lowest) for kind, view in views.items()
        }
    kinds = set(getattr(config, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"])
    if not kinds <= set(views):
        raise UserError(
            f"the layers of this {config.model_type} cannot keep packed texts apart: use data.separate=false"
        )
    return views if len(kinds) > 1 else views[kinds.pop()]


@torch.no_grad()
def keeps_apart(model: PreTrainedModel, causal: bool) -> bool:
    """Whether each of two documents is the same to the model when the other is changed."""
    device = next(model.parameters()).device
    documents = torch.tensor([[1, 1, 2, 2]], device=device)
    one, two = model.config.vocab_size - 1, model.config.vocab_size - 2
    found = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for row in ((one, two, one, two), (one, two, two, one), (two, one, one, two)):
            torch.manual_seed(0)  # the same dropout
            x = torch.tensor([row], device=device)
            try:
                found.append(model(input_ids=x, attention_mask=sight(documents, model.config, causal))[0][0])
            except (TypeError, ValueError, RuntimeError, IndexError):  # it takes no such mask
                return False
    first, second = (
        torch.isclose(found[0][:2], found[1][:2], atol=1e-5),
        torch.isclose(found[0][2:], found[2][2:], atol=1e-5),
    )
    return bool(first.all() and second.all())
