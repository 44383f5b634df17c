"""What a finetuning learned beside what it started from: kept apart, and counted."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from warmstart.run.adapter import merge, packed
from warmstart.run.folder import RunFolder
from warmstart.training.modules import FinetuneModule


def digests(backbone: nn.Module, fresh: Collection[str] = ()) -> dict[str, str]:
    """SHA-256 of each tensor, by name; those named in `fresh` left out."""
    return {name: _sha256(value) for name, value in backbone.state_dict().items() if name not in fresh}


def extract_adapters(run: RunFolder, module: FinetuneModule) -> dict[str, Tensor] | None:
    """Take a strategy's adapters out of the backbone, what they learned worked in, and note what the task costs.

    `trained_parameters` are those that trained at any time, head included; `bytes_per_task` is what is needed beside
    the parent to have the model: the backbone's tensors that are not the parent's to the bit, with adapters in their
    small form, and the head; without a parent, all of it.

    Returns:
        Those tensors of the backbone, where there are adapters and a parent; else None.
    """
    trained = sum(value.numel() for name, value in module.named_parameters() if module.scales[name])
    changes = module.strategy.extract_adapters(module.backbone)
    state = {name: value.cpu() for name, value in module.backbone.state_dict().items()}
    own = {
        name: value.clone().contiguous() for name, value in state.items() if module.origin.get(name) != _sha256(value)
    }
    small = {**own, **packed(changes)} if module.origin else own
    if changes:
        module.backbone.load_state_dict(merge(state, changes))
    size = _bytes(small.values()) + _bytes(module.objective.state_dict().values())
    run.note(cost={**(run.record["cost"] or {}), "trained_parameters": trained, "bytes_per_task": size})
    return small if changes and module.origin else None


def _sha256(value: Tensor) -> str:
    return hashlib.sha256(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()).hexdigest()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)
