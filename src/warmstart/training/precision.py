"""The dtype of initial weights that are not trained."""

from __future__ import annotations

from hydra.utils import get_object
from omegaconf import DictConfig

from warmstart.core.errors import UserError
from warmstart.training.trainer import native_precision

MIXED = "bf16-mixed"


def weights_dtype(config: DictConfig) -> str:
    """Return the dtype in which the matrices of the initial weights are loaded: auto, bfloat16 or float32.

    It is float32 if they are trained, or if the training does not compute in bfloat16.

    Raises:
        UserError: bfloat16 is set but not possible.
    """
    is_trained = "strategy" not in config or get_object(config.strategy._target_).trains_backbone
    kind = config.backbone.get("quantize")
    if kind is not None and is_trained and config.stage in ("pretrain", "finetune"):
        raise UserError(
            f"backbone.quantize={kind}: trained weights are not quantized: use strategy=lora, ia3 or linear_probe"
        )
    chosen = config.backbone.get("dtype", "float32")
    if chosen == "float32":
        return chosen
    precision = config.trainer.get("precision")
    if precision == "auto":
        precision = native_precision(config.trainer.get("accelerator", "auto"))
    if not is_trained and precision == MIXED:
        return chosen
    if chosen == "bfloat16":
        reason = "weights that are trained are float32: use strategy=lora, ia3 or linear_probe"
        if not is_trained:
            reason = f"trainer.precision={config.trainer.get('precision')} computes in float32 here: set it to {MIXED}"
        raise UserError(f"backbone.dtype=bfloat16: {reason}")
    return "float32"
