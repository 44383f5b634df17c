"""Models of images from the transformers library, by their config.json: ViT, DINOv2, ConvNeXt and their like."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, ClassVar, Literal

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


MEAN = "set backbone=huggingface_images backbone.pooling=mean"
PREFIX = ("cls_token", "distillation_token", "register_tokens")  # parameters that stand before the patches


class HuggingFaceImages(Backbone, nn.Module):
    """A trunk of transformers, on scaled pixels.

    Position encodings are interpolated where images have another size than the model's and it is able to.

    Args:
        spec: of images (C, H, W).
        architecture: the model's config.json.
        pooling: cls (the first position), mean of the patches, or pooler (what the model makes of its positions itself:
            ConvNeXt and Swin the mean of their map); None for cls if there is such a position, else pooler.

    Raises:
        UserError: the model cannot take such images, or cannot be pooled so.
    """

    modalities: ClassVar = frozenset({"image"})

    def __init__(
        self, spec: Spec, architecture: dict[str, Any] | None, pooling: Literal["cls", "mean", "pooler"] | None = None
    ):
        super().__init__()
        if architecture is None:
            raise UserError("backbone=huggingface_images has no architecture: name a model with init=hf:NAME_OR_DIR")
        config = described(architecture)
        self.architecture, self.kind, self.shape = architecture, config.model_type, spec.shape
        self.model = whole(None, config)
        if self.model.main_input_name != "pixel_values":
            raise UserError(f"backbone: a {self.kind} is not a model of pixels")
        channels = getattr(config, "num_channels", 3)
        if spec.shape[0] != channels:
            raise UserError(
                f"the images have {spec.shape[0]} channels and the {self.kind} takes {channels}: "
                f"use images with {channels} (data.channels={channels}, where the data has that setting)"
            )
        before = [p for name, p in self.model.named_parameters() if name.endswith(PREFIX)]
        self.pooling = pooling or ("cls" if before else "pooler")
        pooler = getattr(self.model, "pooler", None)
        if self.pooling != "pooler" and pooler is not None and next(pooler.parameters(), None) is not None:
            self.model.pooler = None
        self.prefix = sum(parameter.shape[1] for parameter in before)
        self.interpolates = "interpolate_pos_encoding" in inspect.signature(self.model.forward).parameters
        self.width = self._tried().shape[-1]

    def forward(self, x: Tensor, mask: Tensor | None = None, hidden: Tensor | None = None) -> Features:
        """(B, C, H, W) to positions (B, T, D), those before the patches included, and pooled (B, D)."""
        found = self.model(pixel_values=x, **self._interpolation(x.shape[2:]))
        return self._features(found.last_hidden_state, getattr(found, "pooler_output", None))

    def exported(self, task: str | None, head: nn.Module | None, spec: Spec) -> PreTrainedModel:
        """The same model as one of transformers, of its class for images where there is a head of classes.

        Raises:
            UserError: transformers has no such class, or it computes something else.
        """
        if task is None:
            return assembled(None, None, self.architecture, self.model, spec)
        if task != "sequence_classification" or spec.center or not spec.labels:
            raise UserError("of models of images, transformers has classes for objective=classification alone")
        config = described(self.architecture)
        config.num_labels = head.out_features
        config.id2label = dict(enumerate(spec.labels))
        config.label2id = {label: number for number, label in enumerate(spec.labels)}
        model = whole("image_classification", config).cpu().eval()
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
        """The argument that a model of another size needs, where it has it."""
        own = getattr(self.model.config, "image_size", None)
        own = (own, own) if isinstance(own, int) else tuple(own or ())
        return {"interpolate_pos_encoding": True} if self.interpolates and own != tuple(size) else {}

    @torch.no_grad()
    def _tried(self) -> Tensor:
        """The pooled features of a black image, (1, D)."""
        self.eval()
        try:
            found = self.model(pixel_values=torch.zeros(1, *self.shape), **self._interpolation(self.shape[1:]))
        except Exception as error:  # of every kind, by architecture
            own = getattr(self.model.config, "image_size", None)
            size = " x ".join(map(str, self.shape[1:]))
            raise UserError(
                f"the {self.kind} takes no images of {size} pixels: "
                + (
                    f"set data.size={own}"
                    if isinstance(own, int) and self.shape[1:] != (own, own)
                    else "give larger ones"
                )
            ) from error
        self.train()
        pooled = getattr(found, "pooler_output", None)
        if self.pooling == "pooler" and pooled is None:
            raise UserError(f"a {self.kind} does not pool its positions itself: {MEAN}")
        if self.pooling == "cls" and (not self.prefix or found.last_hidden_state.ndim > 3):
            raise UserError(f"a {self.kind} has no position before its patches: {MEAN}")
        return self._features(found.last_hidden_state, pooled).pooled

    def _features(self, tokens: Tensor, pooled: Tensor | None) -> Features:
        """From positions (B, T, D) or a map (B, D, H, W), and what the model itself pools, if anything."""
        prefix = self.prefix
        if tokens.ndim > 3:
            tokens, prefix = tokens.flatten(2).transpose(1, 2), 0
        if self.pooling == "cls":
            return Features(tokens, tokens[:, 0])
        return Features(tokens, tokens[:, prefix:].mean(1) if self.pooling == "mean" else pooled.flatten(1))

    @torch.no_grad()
    def _fill(self, linear: nn.Linear, head: nn.Linear) -> bool:
        """Copy the head, beside zeros for a class that sees both the first position and the mean of the patches."""
        inputs = {"cls": 0, "mean": self.width}.get(self.pooling, 0) if linear.in_features == 2 * self.width else 0
        if linear.in_features not in (self.width, 2 * self.width) or linear.bias is None:
            return False
        linear.weight.zero_()
        linear.weight[:, inputs : inputs + self.width] = head.weight
        linear.bias.copy_(head.bias)
        return True

    @torch.no_grad()
    def _is_same(self, model: PreTrainedModel, head: nn.Module) -> bool:
        """Whether the whole model computes what trunk and head do, on noise."""
        x = torch.randn(2, *self.shape, generator=torch.Generator().manual_seed(0))
        self.eval()
        return torch.allclose(
            model(pixel_values=x, **self._interpolation(x.shape[2:])).logits, head(self(x).pooled), rtol=1e-4, atol=1e-5
        )
