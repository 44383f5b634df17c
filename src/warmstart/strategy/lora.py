"""LoRA: train low-rank updates of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import PositiveFloat, PositiveInt, RightOpenUnitInterval
from warmstart.strategy.injected import adapter_learning_rate_scales, inject, linear_layers, remove_adapters


class LoRA(Strategy):
    """Add alpha / rank * up (O, R) @ down (R, I), initially zero, to the weights (O, I) of linear layers.

    `up`, `down` and the head are trained, except a loaded head that the objective keeps.
    Source: Hu et al. (2021), "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685.
    With `dora`, the norms of the rows of the updated weights are trained too: Liu et al. (2024), "DoRA:
    Weight-Decomposed Low-Rank Adaptation", https://arxiv.org/abs/2402.09353.

    Args:
        rank: rank of the update, 1 or more.
        alpha: scale of the update, above 0.
        dropout: dropout of the input of the adapter, 0 or more and below 1.
        layers: name patterns of linear layers, such as `blocks.*.qkv`; None or all_linear for all of the backbone.
        rate: learning rate of adapters and a new head, as a multiple of optimizer.lr.
        dora: whether to train the norms of the rows of the weights too.
        rslora: whether the scale is alpha / sqrt(rank), as in Kalajdzievski (2023), https://arxiv.org/abs/2312.03732.
    """

    only_scales_learning_rates: ClassVar = False
    trains_loaded_head: ClassVar = False
    trains_backbone: ClassVar = False

    def __init__(
        self,
        rank: PositiveInt = 8,
        alpha: PositiveFloat = 16.0,
        dropout: RightOpenUnitInterval = 0.0,
        layers: Literal["all_linear"] | Sequence[str] | None = None,
        rate: PositiveFloat = 10.0,
        dora: bool = False,
        rslora: bool = False,
    ):
        self.rank, self.alpha, self.dropout, self.rate = rank, alpha, dropout, rate
        self.layers = None if layers == "all_linear" else layers
        self.variant = {"use_dora": dora, "use_rslora": rslora}
        self.wrappers: dict[str, nn.Module] = {}

    def prepare(self, backbone: Any) -> None:
        """Inject the adapters.

        Raises:
            UserError: the backbone has no such layers.
        """
        from peft import LoraConfig

        layers = linear_layers(backbone, self.layers, "lora")
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, **self.variant)
        self.wrappers = inject(backbone, config, layers)
        for wrapper in self.wrappers.values():
            for magnitude in wrapper.lora_magnitude_vector.values():
                set_norms(magnitude.weight, wrapper.base_layer)

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        return adapter_learning_rate_scales(backbone, self.wrappers, self.rate)

    def extract_adapters(self, backbone: Any) -> dict[str, dict[str, Tensor]]:
        """Remove the adapters and return `up` and `down` of each layer, with the scaling in `up`.

        With `dora`, there is also `magnitude` (O, 1), or (1, O) if the weight is (I, O).
        """
        changes = {}
        for name, wrapper in self.wrappers.items():
            (key,) = wrapper.lora_A
            up = wrapper.lora_B[key].weight.detach() * wrapper.scaling[key]
            down = wrapper.lora_A[key].weight.detach()
            is_transposed = not isinstance(wrapper.base_layer, nn.Linear)  # its weight is (I, O)
            changes[name] = {"up": down.T, "down": up.T} if is_transposed else {"up": up, "down": down}
            if key in wrapper.lora_magnitude_vector:
                magnitude = wrapper.lora_magnitude_vector[key].weight.detach()
                changes[name]["magnitude"] = magnitude.view((1, -1) if is_transposed else (-1, 1))
        remove_adapters(backbone, self.wrappers)
        return changes


@torch.no_grad()
def set_norms(magnitude: Tensor, layer: nn.Module) -> None:
    """Set a magnitude (O,) to the norms of the rows of a linear layer, or columns if its weight is (I, O)."""
    magnitude.copy_(torch.linalg.norm(layer.weight.float(), dim=1 if isinstance(layer, nn.Linear) else 0))
