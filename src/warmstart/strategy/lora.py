"""Train low-rank changes of the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import Count, Positive, RightOpenUnitInterval
from warmstart.strategy.injected import adapter_claims, inject, linear_layers, withdraw


class LoRA(Strategy):
    """The weight of each linear layer (O, I) gets a change of `rank`, alpha / rank * up (O, R) @ down (R, I).

    These and the head train, from a change of zero.
    Source: Hu et al. (2021), "LoRA: Low-Rank Adaptation of Large Language Models", https://arxiv.org/abs/2106.09685.

    Args:
        rank: 1 or more.
        alpha: how large the change is, above 0.
        dropout: of what goes into the change, 0 or more and below 1.
        layers: patterns of names of linear layers, such as `blocks.*.qkv`; None for all.
        rate: of adapters and head, times that of the optimizer, above 0.
    """

    only_claims: ClassVar = False

    def __init__(
        self,
        rank: Count = 8,
        alpha: Positive = 16.0,
        dropout: RightOpenUnitInterval = 0.0,
        layers: Sequence[str] | None = None,
        rate: Positive = 10.0,
    ):
        self.rank, self.alpha, self.dropout, self.layers, self.rate = rank, alpha, dropout, layers, rate
        self.wrappers: dict[str, nn.Module] = {}

    def prepare(self, backbone: Any) -> None:
        """Put the adapters in.

        Raises:
            UserError: there are no layers for them.
        """
        from peft import LoraConfig

        layers = linear_layers(backbone, self.layers, "lora")
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout)
        self.wrappers = inject(backbone, config, layers)

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Adapters and head."""
        return adapter_claims(backbone, self.wrappers, self.rate)

    def settle(self, backbone: Any) -> dict[str, dict[str, Tensor]]:
        """Take the adapters out; `up` and `down` of each layer, the scaling in `up`."""
        changes = {}
        for name, wrapper in self.wrappers.items():
            (key,) = wrapper.lora_A
            up = wrapper.lora_B[key].weight.detach() * wrapper.scaling[key]
            down = wrapper.lora_A[key].weight.detach()
            if not isinstance(wrapper.base_layer, nn.Linear):  # its weight is (I, O)
                up, down = down.T, up.T
            changes[name] = {"up": up, "down": down}
        withdraw(backbone, self.wrappers)
        return changes
