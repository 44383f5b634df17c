"""The heads that transformers has for an architecture, on features from elsewhere."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from warmstart.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


CLASSES = {
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "masked_lm": "AutoModelForMaskedLM",
    "causal_lm": "AutoModelForCausalLM",
    "image_classification": "AutoModelForImageClassification",
    "audio_classification": "AutoModelForAudioClassification",
    "ctc": "AutoModelForCTC",
}
LANGUAGE = ("masked_lm", "causal_lm")
# Settings of a config.json that say how a model is run, not what it is.
CHOSEN_ELSEWHERE = (
    *("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"),
    *("dtype", "torch_dtype", "use_kernels", "return_dict", "output_attentions", "output_hidden_states"),
    "chunk_size_feed_forward",
)


def described(architecture: dict[str, Any]) -> PreTrainedConfig:
    """The configuration that a config.json holds, in float32 and with the library's own choice of attention."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    plain = {key: value for key, value in copy.deepcopy(architecture).items() if key not in CHOSEN_ELSEWHERE}
    kind = plain.get("model_type")
    try:
        config = transformers.CONFIG_MAPPING[kind].from_dict(plain)
    except KeyError as error:
        raise UserError(f"backbone.architecture: transformers knows no model_type={kind}") from error
    except Exception as error:  # of every kind, by architecture
        raise UserError(f"backbone.architecture is no {kind}: {error}") from error
    config.dtype = torch.float32
    return config


def is_causal(architecture: dict[str, Any]) -> bool:
    """Whether positions see earlier ones only."""
    from transformers.models.auto import modeling_auto

    kind = architecture.get("model_type")
    is_decoder = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return bool(architecture.get("is_decoder")) or (
        is_decoder and kind not in modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def has_class(task: str, config: PreTrainedConfig) -> bool:
    """Whether transformers has a model of this architecture for a task."""
    import transformers

    return type(config) in getattr(transformers, f"MODEL_FOR_{task.upper()}_MAPPING")


def whole(task: str | None, config: PreTrainedConfig) -> PreTrainedModel:
    """The model with random weights, of the class for a task, or of the trunk's."""
    import transformers

    auto = getattr(transformers, "AutoModel" if task is None else CLASSES[task])
    config.architectures = config.architectures or []  # which is asked where there are several classes
    return auto.from_config(config, trust_remote_code=False)


class Shared(nn.Module):
    """A linear layer of which `owners`, by name, are parameters of other modules: looked up, never held."""

    def __init__(self, linear: nn.Linear, owners: dict[str, tuple[nn.Module, str]]):
        super().__init__()
        self.__dict__["owners"] = owners
        for name, parameter in linear._parameters.items():
            if name not in owners:
                self.register_parameter(name, parameter)

    def __getattr__(self, name: str) -> Any:
        owners = self.__dict__.get("owners", {})
        return getattr(*owners[name]) if name in owners else super().__getattr__(name)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., outputs)."""
        return F.linear(x, self.weight, self.bias)


class Trunkless(nn.Module):
    """Stands in a whole model where its trunk was: the features come in as `inputs_embeds`.

    A pooler that the trunk keeps is the trunk's; one that it does not have belongs to the head.
    """

    def __init__(self, trunk: PreTrainedModel, own: nn.Module):
        super().__init__()
        self.__dict__["trunk"] = trunk
        pooler = getattr(own, "pooler", None)
        self.has_pooler = pooler is not None
        if self.has_pooler and getattr(trunk, "pooler", None) is None:
            self.pooler = pooler
        self.activation = getattr(own, "pooler_activation", None) or getattr(own, "activation", None)

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> Any:
        """Features (B, T, D) as a trunk would return them."""
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        pooled = self.pool(inputs_embeds) if self.has_pooler else None
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds, pooler_output=pooled)

    @property
    def decoder(self) -> Trunkless:
        """What OPT's heads ask in place of the trunk."""
        return self

    def pool(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, D); in ALBERT and BigBird a pooler is a bare linear layer."""
        pooler = self.pooler if "pooler" in self._modules else self.trunk.pooler
        if isinstance(getattr(pooler, "base_layer", pooler), nn.Linear):  # which an adapter may wrap
            return self.activation(pooler(tokens[:, 0]))
        return pooler(tokens)


class Head(nn.Module):
    """What a model of transformers has for a task on top of its trunk, from features (..., D) to (..., outputs)."""

    def __init__(self, task: str, outputs: int, config: PreTrainedConfig, trunk: PreTrainedModel):
        super().__init__()
        self.task, self.outputs = task, outputs
        if task not in LANGUAGE:
            config.num_labels = outputs
        if config.pad_token_id is None:
            config.pad_token_id = 0  # else heads that look for the last token refuse a batch
        with torch.device("meta"):
            self.model = whole(task, config)
        prefix = self.model.base_model_prefix
        if type(getattr(self.model, prefix)) is not type(trunk):
            raise TypeError(f"{type(self.model).__name__} has another trunk than {type(trunk).__name__}")
        setattr(self.model, prefix, Trunkless(trunk, getattr(self.model, prefix)))
        self._initialise()
        self._share(prefix, trunk)

    def forward(self, features: Tensor) -> Tensor:
        """Each feature is shown as a text of one token."""
        found = self.model(inputs_embeds=features.reshape(-1, 1, features.shape[-1]))
        if self.task == "question_answering":
            logits = torch.stack([found.start_logits, found.end_logits], -1)
        else:
            logits = found.logits
        return logits.reshape(*features.shape[:-1], self.outputs)

    @torch.no_grad()
    def fits(self, width: int, pool: Callable[[Tensor], Tensor]) -> bool:
        """Whether it can do without its trunk, and a classifier of texts pools as `pool`, (B, T, D) to (B, D), does."""
        tokens = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
        self.eval()
        try:
            given = self(pool(tokens))
            own = self.model(inputs_embeds=tokens).logits if self.task == "sequence_classification" else given
        except (
            AttributeError,
            TypeError,
            ValueError,
            RuntimeError,
            IndexError,
            KeyError,
        ):  # it asks for more
            return False
        self.train()
        return torch.allclose(own, given, rtol=1e-4, atol=1e-6)

    def _share(self, prefix: str, trunk: PreTrainedModel) -> None:
        """Tied parameters are those of the trunk, or of the head itself, and not held a second time."""
        shared: dict[str, dict[str, tuple[nn.Module, str]]] = {}
        for target, source in self.model.all_tied_weights_keys.items():
            (place, _, name), (owner, _, there) = target.rpartition("."), source.rpartition(".")
            inner = owner.removeprefix(f"{prefix}.")
            module = trunk.get_submodule(inner) if inner != owner else self.model.get_submodule(owner)
            shared.setdefault(place, {})[name] = (module, there)
        for place, owners in shared.items():
            parent, _, name = place.rpartition(".")
            setattr(self.model.get_submodule(parent), name, Shared(self.model.get_submodule(place), owners))

    @torch.no_grad()
    def _initialise(self) -> None:
        """Random weights as the library draws them, and zero where it does not say."""
        self.model.to_empty(device="cpu")
        for parameter in self.model.parameters():
            parameter.zero_()
        for module in self.model.modules():
            self.model._init_weights(module)
