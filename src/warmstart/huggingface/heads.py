"""Heads of transformers models, without their backbones."""

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
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
    "speech_seq2seq": "AutoModelForSpeechSeq2Seq",
    "image_classification": "AutoModelForImageClassification",
    "audio_classification": "AutoModelForAudioClassification",
    "ctc": "AutoModelForCTC",
}
LANGUAGE = ("masked_lm", "causal_lm")
# Settings of config.json about the execution of a model.
RUNTIME_SETTINGS = (
    *("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"),
    *("dtype", "torch_dtype", "use_kernels", "return_dict", "output_attentions", "output_hidden_states"),
    "chunk_size_feed_forward",
)


def make_config(architecture: dict[str, Any]) -> PreTrainedConfig:
    """Return the configuration of a config.json, in float32 and with the default attention implementation."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    settings = {key: value for key, value in copy.deepcopy(architecture).items() if key not in RUNTIME_SETTINGS}
    kind = settings.get("model_type")
    try:
        config = transformers.CONFIG_MAPPING[kind].from_dict(settings)
    except KeyError as error:
        raise UserError(f"backbone.architecture: transformers has no model_type={kind}") from error
    except Exception as error:  # architectures raise many classes of errors
        raise UserError(f"backbone.architecture is not a valid {kind}: {error}") from error
    config.dtype = torch.float32
    return config


def has_class(task: str, config: PreTrainedConfig) -> bool:
    """Return whether transformers has a model of this architecture for a task."""
    import transformers

    return type(config) in getattr(transformers, f"MODEL_FOR_{task.upper()}_MAPPING")


def make_model(task: str | None, config: PreTrainedConfig) -> PreTrainedModel:
    """Return a model with random weights, with a head for the task, or without a head if it is None."""
    import transformers

    auto = getattr(transformers, "AutoModel" if task is None else CLASSES[task])
    config.architectures = config.architectures or []  # used to choose between several classes
    return auto.from_config(config, trust_remote_code=False)


class Shared(nn.Module):
    """Linear layer that shares parameters of other modules, `owners` by parameter name, without registering them."""

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
        """Map (..., D) to (..., outputs)."""
        weight, bias = self.weight, self.bias
        if weight.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        return F.linear(x, weight, bias)


class Trunkless(nn.Module):
    """Replacement of the backbone in a model with a head: returns features passed as `inputs_embeds`.

    The pooler is that of the backbone if it has one, else it is part of the head.
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
        """Return features (B, T, D) in the output format of a backbone."""
        from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

        pooled = self.pool(inputs_embeds) if self.has_pooler else None
        return BaseModelOutputWithPoolingAndCrossAttentions(last_hidden_state=inputs_embeds, pooler_output=pooled)

    @property
    def decoder(self) -> Trunkless:
        """Itself, since heads of OPT call the decoder of the backbone."""
        return self

    def pool(self, tokens: Tensor) -> Tensor:
        """Map (B, T, D) to (B, D); poolers of ALBERT and BigBird are linear layers without activation."""
        pooler = self.pooler if "pooler" in self._modules else self.trunk.pooler
        if isinstance(getattr(pooler, "base_layer", pooler), nn.Linear):  # an adapter may wrap it
            return self.activation(pooler(tokens[:, 0]))
        return pooler(tokens)


class Head(nn.Module):
    """Head of a transformers model for a task, which maps features (..., D) to (..., outputs)."""

    def __init__(self, task: str, outputs: int, config: PreTrainedConfig, trunk: PreTrainedModel):
        super().__init__()
        self.task, self.outputs = task, outputs
        if task not in LANGUAGE:
            config.num_labels = outputs
        if config.pad_token_id is None:
            config.pad_token_id = 0  # heads that search for the last token need it
        with torch.device("meta"):
            self.model = make_model(task, config)
        prefix = self.model.base_model_prefix
        if type(getattr(self.model, prefix)) is not type(trunk):
            raise TypeError(f"{type(self.model).__name__} has another backbone than {type(trunk).__name__}")
        setattr(self.model, prefix, Trunkless(trunk, getattr(self.model, prefix)))
        self._init_weights()
        self._share(prefix, trunk)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (..., D), each passed as a text of one token."""
        found = self.model(inputs_embeds=features.reshape(-1, 1, features.shape[-1]))
        if self.task == "question_answering":
            logits = torch.stack([found.start_logits, found.end_logits], -1)
        else:
            logits = found.logits
        return logits.reshape(*features.shape[:-1], self.outputs)

    @torch.no_grad()
    def is_compatible(self, width: int, pool: Callable[[Tensor], Tensor]) -> bool:
        """Return whether the head works without its backbone and, for text classification, pools as `pool` does."""
        tokens = torch.randn(2, 3, width, generator=torch.Generator().manual_seed(0))
        self.eval()
        try:
            given = self(pool(tokens))
            own = self.model(inputs_embeds=tokens).logits if self.task == "sequence_classification" else given
        except (AttributeError, TypeError, ValueError, RuntimeError, IndexError, KeyError):
            return False  # it needs more than features
        self.train()
        return torch.allclose(own, given, rtol=1e-4, atol=1e-6)

    def _share(self, prefix: str, trunk: PreTrainedModel) -> None:
        """Share tied parameters with the backbone or with other layers of the head."""
        shared: dict[str, dict[str, tuple[nn.Module, str]]] = {}
        for target, source in self.model.all_tied_weights_keys.items():
            (path, _, name), (owner, _, source_name) = target.rpartition("."), source.rpartition(".")
            inner = owner.removeprefix(f"{prefix}.")
            module = trunk.get_submodule(inner) if inner != owner else self.model.get_submodule(owner)
            shared.setdefault(path, {})[name] = (module, source_name)
        for path, owners in shared.items():
            parent, _, name = path.rpartition(".")
            setattr(self.model.get_submodule(parent), name, Shared(self.model.get_submodule(path), owners))

    @torch.no_grad()
    def _init_weights(self) -> None:
        """Initialize the weights as transformers does; other parameters are zero."""
        self.model.to_empty(device="cpu")
        for parameter in self.model.parameters():
            parameter.zero_()
        for module in self.model.modules():
            self.model._init_weights(module)
