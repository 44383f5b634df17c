"""Weights in memory: their dtype, and models that are built from them without a second copy."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from warmstart.core.glibc import call_glibc
from warmstart.huggingface.heads import make_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

MADV_DONTNEED = 4


def owned(value: Tensor, is_bfloat16: bool) -> Tensor:
    """Return a copy in memory of a tensor in a mapped file, in float32, matrices in bfloat16 if `is_bfloat16`.

    The pages of the file are released, so that they do not count as memory of this process. The tensor must not be used
    any more.
    """
    dtype = torch.bfloat16 if is_bfloat16 and value.ndim > 1 else torch.float32
    copied = value.to(dtype if value.is_floating_point() else value.dtype, copy=True)
    if value.device.type == "cpu" and value.is_contiguous():
        page = mmap.PAGESIZE
        start, end = -(-value.data_ptr() // page) * page, (value.data_ptr() + value.nbytes) // page * page
        if end > start:
            call_glibc("madvise", ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_DONTNEED)
    return copied


def model_of(config: PreTrainedConfig, weights: Mapping[str, Tensor] | None, prefix: str = "") -> PreTrainedModel:
    """Return a model without head whose parameters are `weights`, or with random ones if some are absent.

    Args:
        weights: tensors by name; None for random weights.
        prefix: of the names in `weights`.
    """
    if weights is not None:
        from transformers.initialization import no_init_weights

        with no_init_weights():  # memory of parameters that are never written is not used
            model = make_model(None, config)
        own = {name.removeprefix(prefix): value for name, value in weights.items()}
        if getattr(model, "pooler", None) is not None and not any(name.startswith("pooler.") for name in own):
            model.pooler = None
        there = model.state_dict()
        has_same_form = {n: v.shape for n, v in there.items()} == {n: v.shape for n, v in own.items()}
        if has_same_form and len(list(model.parameters())) == len(list(model.named_parameters(remove_duplicate=False))):
            model.load_state_dict(own, assign=True)
            return model
    return make_model(None, config)


def keep_precision(model: nn.Module) -> None:
    """Convert the outputs of embeddings to float32.

    Within autocast, the outputs of a model with bfloat16 matrices are then those of the same weights in float32.
    """
    for layer in model.modules():
        if isinstance(layer, nn.Embedding):
            layer.register_forward_hook(_in_float32)


def _in_float32(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.float()
