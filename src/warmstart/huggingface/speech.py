"""Models of raw speech from the transformers library, by their config.json: wav2vec 2.0, HuBERT, WavLM.

Convolutions turn samples into frames, about 50 a second, and a transformer relates these (Baevski et al. 2020,
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
from warmstart.huggingface.heads import described, whole
from warmstart.huggingface.trunk import assembled, depths_by_layer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HuggingFaceSpeech(Backbone, nn.Module):
    """A trunk of transformers, on samples at the rate and of the scale that it was trained on.

    The library's random masking in training is off, since it draws from another source than the run's seed.

    Args:
        spec: of recordings.
        architecture: the model's config.json.

    Raises:
        UserError: it is not a model of raw speech.
    """

    modalities: ClassVar = frozenset({"speech"})

    def __init__(self, spec: Spec, architecture: dict[str, Any] | None):
        super().__init__()
        if architecture is None:
            raise UserError("backbone=huggingface_speech has no architecture: name a model with init=hf:NAME_OR_DIR")
        config = described(architecture)
        if not (hasattr(config, "conv_kernel") and hasattr(config, "feat_extract_norm")):
            raise UserError(f"backbone: a {config.model_type} is not a model of raw speech")
        if getattr(config, "add_adapter", False):
            raise UserError(f"backbone: this {config.model_type} shortens its frames by an adapter, which is not done")
        config.apply_spec_augment = False
        self.architecture = architecture
        self.model = whole(None, config)
        self.width = config.hidden_size
        self.takes_mask = config.feat_extract_norm == "layer"
        steps = [math.prod(config.conv_stride[:index]) for index in range(len(config.conv_kernel))]
        self.shortest = 1 + sum((kernel - 1) * step for kernel, step in zip(config.conv_kernel, steps))

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Samples (B, S) to frames (B, T, D) and the mean of the valid ones (B, D); the mask is (B, S).

        A model that normalises its first frames over time was pretrained without a mask, on recordings that end in
        zeros: it is given the same, and the mask counts in the mean alone.

        Raises:
            UserError: the recordings are shorter than one frame.
        """
        if x.shape[1] < self.shortest:
            raise UserError(
                f"recordings of {x.shape[1]} samples are shorter than a frame of the {self.model.config.model_type}: "
                f"give {self.shortest} samples or more"
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
        """Which frames (B, T) are of valid samples (B, S) only; the first one always is."""
        lengths = self._frames((mask > 0).sum(1)).clamp(min=1)
        return torch.arange(self._frames(mask.shape[1]), device=mask.device) < lengths[:, None]

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel:
        """The same model as one of transformers, on the CPU, in evaluation mode.

        Its classifiers have one linear layer more, which leaves features as they are.

        Raises:
            UserError: transformers has no such class.
        """
        if task is None:
            return assembled(None, None, self.architecture, self.model, spec)
        config, state = described(self.architecture), {}
        if task == "ctc":
            config.vocab_size, config.pad_token_id = head.out_features, head.out_features - 1
            model, name = whole("ctc", config), "lm_head"
        elif task == "sequence_classification" and spec.labels:
            config.num_labels, config.classifier_proj_size = head.out_features, self.width
            config.id2label = dict(enumerate(spec.labels))
            config.label2id = {label: number for number, label in enumerate(spec.labels)}
            config.use_weighted_layer_sum = False
            model, name = whole("audio_classification", config), "classifier"
            state = {"projector.weight": torch.eye(self.width), "projector.bias": torch.zeros(self.width)}
        else:
            raise UserError(f"transformers has no {config.model_type} for this objective ({task}): it is not exported")
        parts = {model.base_model_prefix: self.model, name: head}
        for prefix, part in parts.items():
            state |= {f"{prefix}.{key}": value for key, value in part.state_dict().items()}
        model.load_state_dict(state)
        return model.cpu().eval()

    def depths(self) -> dict[str, int]:
        """Convolutions and what else stands before the layers at 0, one depth per layer, then the rest."""
        return depths_by_layer(self, "model.encoder.layers")

    def _frames(self, samples: Any) -> Any:
        """How many frames so many samples have."""
        for kernel, stride in zip(self.model.config.conv_kernel, self.model.config.conv_stride):
            samples = (samples - kernel) // stride + 1
        return samples
