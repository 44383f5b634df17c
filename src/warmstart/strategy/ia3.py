"""IA3: train a scale of the outputs of each linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from warmstart.core.protocols import Backbone, Scale, Strategy
from warmstart.core.ranges import PositiveFloat
from warmstart.strategy.injected import adapter_learning_rate_scales, inject, linear_layers, remove_adapters


class IA3(Strategy):
    """Multiply each output of linear layers by a learned scale, initially 1; train the scales and the head.

    A loaded head that the objective keeps is frozen. The paper scales keys, values and hidden activations of MLPs; set
    `layers` to those to do the same. Learning rates much higher than those of full finetuning are usual.
    Source: Liu et al. (2022), "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
    Learning", https://arxiv.org/abs/2205.05638.

    Args:
        layers: name patterns of linear layers, such as `blocks.*.qkv`; None for all.
        rate: learning rate of scales and a new head, as a multiple of optimizer.lr.
    """

    only_scales_learning_rates: ClassVar = False
    trains_loaded_head: ClassVar = False
    trains_backbone: ClassVar = False

    def __init__(self, layers: Sequence[str] | None = None, rate: PositiveFloat = 10.0):
        self.layers, self.rate = layers, rate
        self.wrappers: dict[str, nn.Module] = {}

    def prepare(self, backbone: Any) -> None:
        """Inject the scales, as vectors, so that weight decay does not apply to them.

        Raises:
            UserError: the backbone has no such layers.
        """
        from peft import IA3Config

        layers = linear_layers(backbone, self.layers, "ia3")
        self.wrappers = inject(backbone, IA3Config(feedforward_modules=[]), layers)
        for wrapper in self.wrappers.values():
            (key,) = wrapper.ia3_l
            wrapper.ia3_l[key] = nn.Parameter(wrapper.ia3_l[key].detach().flatten())

    def learning_rate_scales(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        return adapter_learning_rate_scales(backbone, self.wrappers, self.rate)

    def extract_adapters(self, backbone: Any) -> dict[str, dict[str, Tensor]]:
        """Remove the scales and return them by layer, with shape (O, 1), or (1, O) if the weight is (I, O)."""
        changes = {}
        for name, wrapper in self.wrappers.items():
            (key,) = wrapper.ia3_l
            shape = (-1, 1) if isinstance(wrapper.base_layer, nn.Linear) else (1, -1)
            changes[name] = {"scale": wrapper.ia3_l[key].detach().view(shape)}
        remove_adapters(backbone, self.wrappers)
        return changes
