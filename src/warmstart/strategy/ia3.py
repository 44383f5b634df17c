"""Train a scale of what each layer gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import Positive
from warmstart.strategy.injected import adapter_claims, inject, linear_layers, withdraw


class IA3(Strategy):
    """Each output of each linear layer is multiplied by a number that is learned, 1 at first; these and the head train.

    The paper scales keys, values and the inner activations of MLPs; name those layers to do the same. Learning rates
    much higher than those of full finetuning are usual. Source: Liu et al. (2022), "Few-Shot Parameter-Efficient
    Fine-Tuning is Better and Cheaper than In-Context Learning", https://arxiv.org/abs/2205.05638.

    Args:
        layers: patterns of names of linear layers, such as `blocks.*.qkv`; None for all.
        rate: of scales and head, times that of the optimizer, above 0.
    """

    only_claims: ClassVar = False

    def __init__(self, layers: Sequence[str] | None = None, rate: Positive = 10.0):
        self.layers, self.rate = layers, rate
        self.wrappers: dict[str, nn.Module] = {}

    def prepare(self, backbone: Any) -> None:
        """Put the scales in, as vectors, which do not decay.

        Raises:
            UserError: there are no layers for them.
        """
        from peft import IA3Config

        layers = linear_layers(backbone, self.layers, "ia3")
        self.wrappers = inject(backbone, IA3Config(feedforward_modules=[]), layers)
        for wrapper in self.wrappers.values():
            (key,) = wrapper.ia3_l
            wrapper.ia3_l[key] = nn.Parameter(wrapper.ia3_l[key].detach().flatten())

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """Scales and head."""
        return adapter_claims(backbone, self.wrappers, self.rate)

    def settle(self, backbone: Any) -> dict[str, dict[str, Tensor]]:
        """Take the scales out; that of each layer, in the shape (O, 1), or (1, O) where the weight is (I, O)."""
        changes = {}
        for name, wrapper in self.wrappers.items():
            (key,) = wrapper.ia3_l
            shape = (-1, 1) if isinstance(wrapper.base_layer, nn.Linear) else (1, -1)
            changes[name] = {"scale": wrapper.ia3_l[key].detach().view(shape)}
        withdraw(backbone, self.wrappers)
        return changes
