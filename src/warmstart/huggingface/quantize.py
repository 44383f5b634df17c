"""Quantize weights that are not trained, with torchao."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from warmstart.core.errors import UserError

KINDS = {"int8": "Int8WeightOnlyConfig", "int4": "Int4WeightOnlyConfig"}


def quantize(backbone: nn.Module, kind: str) -> None:
    """Quantize the weights of all linear layers to int8 or int4; the computation is in their previous dtype.

    Raises:
        UserError: torchao is not installed, or does not support it on this machine.
    """
    where = f"backbone.quantize={kind}"
    try:
        from torchao import quantization
    except ImportError as error:
        raise UserError(f"{where} needs torchao: install it with pip install torchao, or remove the setting") from error
    try:
        quantization.quantize_(backbone, getattr(quantization, KINDS[kind])())
    except (ImportError, RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{where}: torchao does not support it for this model on this machine: {reason}") from error


def dequantize(backbone: nn.Module) -> None:
    """Replace quantized weights by ordinary ones with the same values."""
    for layer in backbone.modules():
        weight = layer._parameters.get("weight")
        if weight is not None and is_quantized(weight):
            layer.weight = nn.Parameter(plain(weight), requires_grad=False)


def plain(value: Tensor) -> Tensor:
    """Return an ordinary tensor with the same values."""
    return value.detach().dequantize() if is_quantized(value) else value


def is_quantized(value: Any) -> bool:
    """Return whether a tensor is one of torchao."""
    return type(value).__module__.partition(".")[0] == "torchao"
