"""LoRA: train low-rank updates of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import PositiveFloat, PositiveInt, RightOpenUnitInterval
from warmstart.strategy.injected import adapter_learning_rate_scales, inject, linear_layers, remove_adapters


class LoRA(Strategy):
    """Add alpha / rank * up (O, R) @ down (R, I), initially zero, to the weights (O, I) of linear layers.

    `up`, `down` and the head are trained, except a loaded head that the objective keeps.
    Source: Hu et al. (2021), "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685.

    Args:
        rank: rank of the update, 1 or more.
        alpha: scale of the update, above 0.
        dropout: dropout of the input of the adapter, 0 or more and below 1.
        layers: name patterns of linear layers, such as `blocks.*.qkv`; None for all.
        rate: learning rate of adapters and a new head, as a multiple of optimizer.lr.
    """

    only_scales_learning_rates: ClassVar = False
    trains_loaded_head: ClassVar = False

    def __init__(
        self,
        rank: PositiveInt = 8,
        alpha: PositiveFloat = 16.0,
        dropout: RightOpenUnitInterval = 0.0,
        layers: Sequence[str] | None = None,
        rate: PositiveFloat = 10.0,
    ):
        self.rank, self.alpha, self.dropout, self.layers, self.rate = rank, alpha, dropout, layers, rate
        self.wrappers: dict[str, nn.Module] = {}

    def prepare(self, backbone: Any) -> None:
        """Inject the adapters.

        Raises:
            UserError: the backbone has no such layers.
        """
        from peft import LoraConfig

        layers = linear_layers(backbone, self.layers, "lora")
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout)
        self.wrappers = inject(backbone, config, layers)

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        return adapter_learning_rate_scales(backbone, self.wrappers, self.rate)

    def extract_adapters(self, backbone: Any) -> dict[str, dict[str, Tensor]]:
        """Remove the adapters and return `up` and `down` of each layer, with the scaling in `up`."""
        changes = {}
        for name, wrapper in self.wrappers.items():
            (key,) = wrapper.lora_A
            up = wrapper.lora_B[key].weight.detach() * wrapper.scaling[key]
            down = wrapper.lora_A[key].weight.detach()
            if not isinstance(wrapper.base_layer, nn.Linear):  # its weight is (I, O)
                up, down = down.T, up.T
            changes[name] = {"up": up, "down": down}
        remove_adapters(backbone, self.wrappers)
        return changes
