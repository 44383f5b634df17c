"""Image backbones of transformers, such as ViT, DINOv2 and ConvNeXt."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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


MEAN = "set backbone=huggingface_images backbone.pooling=mean"
PREFIX = ("cls_token", "distillation_token", "register_tokens")  # parameters of positions before the patches


class HuggingFaceImages(Backbone, nn.Module):
    """Image model of transformers without its head.

    If images have another size than those of the model, position embeddings are interpolated, if it supports that.

    Args:
        spec: spec of images (C, H, W).
        architecture: content of config.json.
        pooling: cls (the first position), mean of the patches, or pooler (the pooled output of the model, such as the
            mean over positions in ConvNeXt and Swin); None for cls if there is such a position, else pooler.
        checkpoint: whether to recompute the activations of each layer in the backward pass.

    Raises:
        UserError: the model does not support such images or this pooling.
    """

    modalities: ClassVar = frozenset({"image"})

    def __init__(
        self,
        spec: Spec,
        architecture: dict[str, Any] | None,
        pooling: Literal["cls", "mean", "pooler"] | None = None,
        checkpoint: bool = False,
    ):
        super().__init__()
        if architecture is None:
            raise UserError("backbone=huggingface_images has no architecture: name a model with init=hf:NAME_OR_DIR")
        config = make_config(architecture)
        self.architecture, self.kind, self.shape = architecture, config.model_type, spec.shape
        self.model = make_model(None, config)
        if checkpoint:
            checkpoint_layers(self.model)
        if self.model.main_input_name != "pixel_values":
            raise UserError(f"backbone: a {self.kind} is not a model of pixels")
        channels = getattr(config, "num_channels", 3)
        if spec.shape[0] != channels:
            raise UserError(
                f"the images have {spec.shape[0]} channels, but the {self.kind} takes {channels}: "
                f"use images with {channels} (data.channels={channels}, if the data has that setting)"
            )
        before = [p for name, p in self.model.named_parameters() if name.endswith(PREFIX)]
        self.pooling = pooling or ("cls" if before else "pooler")
        pooler = getattr(self.model, "pooler", None)
        if self.pooling != "pooler" and pooler is not None and next(pooler.parameters(), None) is not None:
            self.model.pooler = None
        self.prefix = sum(parameter.shape[1] for parameter in before)
        self.interpolates = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        self.width = self._pooled_features().shape[-1]

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """Map (B, C, H, W) to positions (B, T, D), including those before the patches, and pooled (B, D)."""
        found = self.model(pixel_values=x, **self._interpolation(x.shape[2:]))
        return self._features(found.last_hidden_state, getattr(found, "pooler_output", None))

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel:
        """Convert to a model of transformers, with an image classification head for a classifier.

        Raises:
            UserError: transformers has no such class, or its outputs differ.
        """
        if task is None:
            return assemble(None, None, self.architecture, self.model, spec)
        if task != "sequence_classification" or spec.center or not spec.labels:
            raise UserError("image models can be exported with objective=classification only")
        config = make_config(self.architecture)
        config.num_labels = head.out_features
        config.id2label = dict(enumerate(spec.labels))
        config.label2id = {label: number for number, label in enumerate(spec.labels)}
        model = make_model("image_classification", config).cpu().eval()
        trunk = f"{model.base_model_prefix}."
        model.load_state_dict({f"{trunk}{n}": v.cpu() for n, v in self.model.state_dict().items()}, strict=False)
        linear = [m for n, m in model.named_modules() if isinstance(m, nn.Linear) and not n.startswith(trunk)]
        if len(linear) != 1 or not self._fill(linear[0], head) or not self._is_same(model, head):
            others = [*(["cls"] if self.prefix else []), *(["pooler"] if hasattr(self.model, "pooler") else [])]
            other = next((name for name in others if name != self.pooling), None)
            hint = f"finetune with backbone=huggingface_images backbone.pooling={other}, or " if other else ""
            raise UserError(
                f"{type(model).__name__} of transformers does not pool as backbone.pooling={self.pooling} does: "
                f"{hint}choose another model to export"
            )
        return model

    def depths(self) -> dict[str, int]:
        """Embeddings at 0, one depth per layer or stage, then the rest."""
        return depths_by_layer(self)

    def _interpolation(self, size: tuple[int, ...]) -> dict[str, bool]:
        """Return the argument for images of another size, if the model supports it."""
        own = getattr(self.model.config, "image_size", None)
        own = (own, own) if isinstance(own, int) else tuple(own or ())
        return {"interpolate_pos_encoding": True} if self.interpolates and own != tuple(size) else {}

    @torch.no_grad()
    def _pooled_features(self) -> Tensor:
        """Return the pooled features (1, D) of a black image."""
        self.eval()
        try:
            found = self.model(pixel_values=torch.zeros(1, *self.shape), **self._interpolation(self.shape[1:]))
        except Exception as error:  # architectures raise many classes of errors
            own = getattr(self.model.config, "image_size", None)
            size = " x ".join(map(str, self.shape[1:]))
            raise UserError(
                f"the {self.kind} does not support images of {size} pixels: "
                + (
                    f"set data.size={own}"
                    if isinstance(own, int) and self.shape[1:] != (own, own)
                    else "use larger ones"
                )
            ) from error
        self.train()
        pooled = getattr(found, "pooler_output", None)
        if self.pooling == "pooler" and pooled is None:
            raise UserError(f"a {self.kind} has no pooler: {MEAN}")
        if self.pooling == "cls" and (not self.prefix or found.last_hidden_state.ndim > 3):
            raise UserError(f"a {self.kind} has no position before its patches: {MEAN}")
        return self._features(found.last_hidden_state, pooled).pooled

    def _features(self, tokens: Tensor, pooled: Tensor | None) -> Features:
        """Return features from positions (B, T, D) or a map (B, D, H, W), and the pooled output, if any."""
        prefix = self.prefix
        if tokens.ndim > 3:
            tokens, prefix = tokens.flatten(2).transpose(1, 2), 0
        if self.pooling == "cls":
            return Features(tokens, tokens[:, 0])
        return Features(tokens, tokens[:, prefix:].mean(1) if self.pooling == "mean" else pooled.flatten(1))

    @torch.no_grad()
    def _fill(self, linear: nn.Linear, head: nn.Linear) -> bool:
        """Copy the head, padded with zeros if the layer takes both the first position and the mean of the patches."""
        inputs = {"cls": 0, "mean": self.width}.get(self.pooling, 0) if linear.in_features == 2 * self.width else 0
        if linear.in_features not in (self.width, 2 * self.width) or linear.bias is None:
            return False
        linear.weight.zero_()
        linear.weight[:, inputs : inputs + self.width] = head.weight
        linear.bias.copy_(head.bias)
        return True

    @torch.no_grad()
    def _is_same(self, model: PreTrainedModel, head: nn.Module) -> bool:
        """Return whether the converted model has the same outputs as backbone and head, on random images."""
        x = torch.randn(2, *self.shape, generator=torch.Generator().manual_seed(0))
        self.eval()
        return torch.allclose(
            model(pixel_values=x, **self._interpolation(x.shape[2:])).logits, head(self(x).pooled), rtol=1e-4, atol=1e-5
        )
