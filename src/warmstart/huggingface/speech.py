"""Speech backbones of transformers on raw waveforms: wav2vec 2.0, HuBERT, WavLM.

Convolutions convert samples to about 50 frames per second, which are input of a transformer (Baevski et al. 2020,
"wav2vec 2.0"; Hsu et al. 2021, "HuBERT"; Chen et al. 2022, "WavLM")."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from warmstart.core.batch import Features
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.spec import Spec
from warmstart.huggingface.heads import make_config, make_model
from warmstart.huggingface.trunk import assemble, checkpoint_layers, depths_by_layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HuggingFaceSpeech(Backbone, nn.Module):
    """Speech model of transformers without its head.

    The random masking of the library is off, because it does not use the seed of the run.

    Args:
        spec: spec of recordings.
        architecture: content of config.json.
        checkpoint: whether to recompute the activations of each layer in the backward pass.

    Raises:
        UserError: it is not a model of raw waveforms.
    """

    modalities: ClassVar = frozenset({"speech"})

    def __init__(self, spec: Spec, architecture: dict[str, Any] | None, checkpoint: bool = False):
        super().__init__()
        if architecture is None:
            raise UserError("backbone=huggingface_speech has no architecture: name a model with init=hf:NAME_OR_DIR")
        config = make_config(architecture)
        if not (hasattr(config, "conv_kernel") and hasattr(config, "feat_extract_norm")):
            raise UserError(f"backbone: a {config.model_type} is not a model of raw speech")
        if getattr(config, "add_adapter", False):
            raise UserError(
                f"backbone: this {config.model_type} reduces its frames by an adapter, which is not supported"
            )
        config.apply_spec_augment = False
        self.architecture = architecture
        self.model = make_model(None, config)
        if checkpoint:
            checkpoint_layers(self.model)
        self.width = config.hidden_size
        self.takes_mask = config.feat_extract_norm == "layer"
        steps = [math.prod(config.conv_stride[:index]) for index in range(len(config.conv_kernel))]
        self.shortest = 1 + sum((kernel - 1) * step for kernel, step in zip(config.conv_kernel, steps))

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Map samples (B, S) to frames (B, T, D) and their mean over valid frames (B, D); the mask is (B, S).

        A model with group norm was pretrained with zero padding and without an attention mask: the mask is used for the
        mean only.

        Raises:
            UserError: the recordings are shorter than one frame.
        """
        if x.shape[1] < self.shortest:
            raise UserError(
                f"recordings of {x.shape[1]} samples are shorter than a frame of the {self.model.config.model_type}: "
                f"{self.shortest} or more are needed"
            )
        if mask is None:
            tokens = self.model(input_values=x).last_hidden_state
            return Features(tokens, tokens.mean(1))
        valid = mask > 0
        settings = {"attention_mask": valid.long()} if self.takes_mask else {}
        tokens = self.model(input_values=x.masked_fill(~valid, 0.0), **settings).last_hidden_state
        weight = self.token_mask(mask)[:, :, None].to(tokens.dtype)
        return Features(tokens, (tokens * weight).sum(1) / weight.sum(1))

    def token_mask(self, mask: Tensor) -> Tensor:
        """Return which frames (B, T) have only valid samples (B, S); the first frame is always valid."""
        lengths = self._frames((mask > 0).sum(1)).clamp(min=1)
        return torch.arange(self._frames(mask.shape[1]), device=mask.device) < lengths[:, None]

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel:
        """Convert to a model of transformers, on the CPU and in evaluation mode.

        The additional linear layer of its audio classifiers is the identity.

        Raises:
            UserError: transformers has no such class.
        """
        if task is None:
            return assemble(None, None, self.architecture, self.model, spec)
        config, state = make_config(self.architecture), {}
        if task == "ctc":
            config.vocab_size, config.pad_token_id = head.out_features, head.out_features - 1
            model, name = make_model("ctc", config), "lm_head"
        elif task == "sequence_classification" and spec.labels:
            config.num_labels, config.classifier_proj_size = head.out_features, self.width
            config.id2label = dict(enumerate(spec.labels))
            config.label2id = {label: number for number, label in enumerate(spec.labels)}
            config.use_weighted_layer_sum = False
            model, name = make_model("audio_classification", config), "classifier"
            state = {"projector.weight": torch.eye(self.width), "projector.bias": torch.zeros(self.width)}
        else:
            raise UserError(
                f"transformers has no {config.model_type} for this objective ({task}): the model was not exported"
            )
        parts = {model.base_model_prefix: self.model, name: head}
        for prefix, part in parts.items():
            state |= {f"{prefix}.{key}": value for key, value in part.state_dict().items()}
        model.load_state_dict(state)
        return model.cpu().eval()

    def depths(self) -> dict[str, int]:
        """Return depth 0 for everything before the layers, one depth per layer, then the rest."""
        return depths_by_layer(self, "model.encoder.layers")

    def _frames(self, samples: Any) -> Any:
        """Return the number of frames of a number of samples."""
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride):
            samples = (samples - kernel) // stride + 1
        return samples
