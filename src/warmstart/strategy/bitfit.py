"""Train biases only."""

from __future__ import annotations

from warmstart.contracts import Backbone, Scale, UserError


class BitFit:
    """The backbone's biases, those of norm layers included, and the head train.

    Source: Ben Zaken et al. (2022), "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
    Language-models", https://arxiv.org/abs/2106.10199. It asks for higher learning rates than full finetuning.
    """

    def claims(self, backbone: Backbone) -> list[tuple[str, Scale]]:
        """What is named bias.

        Raises:
            UserError: the backbone has none.
        """
        scales = {name: float(name.endswith("bias")) for name, _ in backbone.named_parameters()}
        if not any(scales.values()):
            raise UserError(f"strategy=bitfit: backbone {type(backbone).__name__} has no biases: choose another")
        return [*((f"backbone.{name}", scale) for name, scale in scales.items()), ("objective.*", 1.0)]
