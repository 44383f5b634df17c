"""Builds data and module of a training, and extracts the adapter delta of a finetuning."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Iterable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from warmstart.core import screen
from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.protocols import Backbone, Objective, Preprocessor, Strategy
from warmstart.core.saved_model import SavedModel
from warmstart.data.datamodule import MemoryDataModule
from warmstart.huggingface.quantize import dequantize, quantize
from warmstart.run.adapter import Delta, merge, packed
from warmstart.run.folder import RunFolder
from warmstart.run.identity import derive_seed
from warmstart.run.lineage import TUNED
from warmstart.training import components
from warmstart.training.compatibility import check_compatibility
from warmstart.training.memory import release_freed_memory
from warmstart.training.modules import FinetuneModule, PretrainModule
from warmstart.training.start import (
    build_objective,
    find_start,
    given_preprocessor,
    given_weights,
    load_head,
    load_start,
    shuffled,
    without_kept_head,
)
from warmstart.training.static import open_teacher, parent_record, set_first_layer
from warmstart.training.teacher import set_targets, token_preprocessor


def digests(backbone: nn.Module, excluded: Collection[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of each tensor by name, except the excluded names."""
    return {name: _sha256(value) for name, value in backbone.state_dict().items() if name not in excluded}


def extract_adapters(run: RunFolder, module: FinetuneModule) -> dict[str, Tensor] | None:
    """Merge a strategy's adapters into the backbone, and record the costs of the task.

    `trained_parameters` counts all parameters that were trained at any time, including the head. `bytes_per_task` is
    the storage that the model needs in addition to the parent: the changed tensors of the backbone, with adapters in
    low-rank form, and the head unless it is frozen; without a parent, or if its weights were quantized, all tensors.

    Returns:
        The adapter delta, as the changed tensors of the backbone, if there are adapters and a parent; else None.
    """
    trained = sum(value.numel() for name, value in module.named_parameters() if module.scales[name])
    changes = module.strategy.extract_adapters(module.backbone)
    dequantize(module.backbone)
    state = {name: value.cpu() for name, value in module.backbone.state_dict().items()}
    own = {
        name: value.clone().contiguous() for name, value in state.items() if module.origin.get(name) != _sha256(value)
    }
    small = {**own, **packed(changes)} if module.origin else own
    merge_into(module.backbone, state, changes)
    has_own_head = any(module.scales[name] for name in module.scales if name.startswith("objective."))
    size = _bytes(small.values()) + (_bytes(module.objective.state_dict().values()) if has_own_head else 0)
    run.note(cost={**(run.record["cost"] or {}), "trained_parameters": trained, "bytes_per_task": size})
    return small if changes and module.origin else None


def merge_into(backbone: nn.Module, weights: dict[str, Tensor], changes: dict[str, Delta]) -> None:
    """Add adapter deltas to the weights of a backbone, one layer at a time; float32 deltas make all of it float32."""
    if any(value.dtype == torch.float32 for delta in changes.values() for value in delta.values()):
        release_freed_memory()  # of activations
        backbone.float()
    for layer, delta in changes.items():
        own = {name: weights[name] for name in (f"{layer}.weight", f"{layer}.bias") if name in weights}
        backbone.load_state_dict(merge(own, {layer: delta}), strict=False)


def _sha256(value: Tensor) -> str:
    return hashlib.sha256(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()).hexdigest()


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in tensors)


Module = PretrainModule | FinetuneModule


def assemble(
    config: DictConfig, splits: Splits | None = None, like: MemoryDataModule | None = None
) -> tuple[MemoryDataModule, Module, dict[str, Any]]:
    """Return data, module with its initial weights, and `parent`, `transfer` and, if any, `teacher` of a record.

    With static embeddings, there is also `static`, the result of `set_first_layer`.

    Args:
        config: a composed pretraining or finetuning config.
        splits: the splits, if they are already loaded.
        like: the data of a job that differs only in numbers.
    """
    if like is None:
        check_compatibility(config)
    is_static = Init.parse(config.init).kind == "static"
    source = open_teacher(config) if is_static else None
    start, parent = (None, parent_record(config, source)) if is_static else find_start(config)
    is_shuffled = Init.parse(config.init).shuffled
    if start is not None and is_shuffled:
        start = shuffled(start, derive_seed(config.seed, "shuffle"))
    preprocessor = given_preprocessor(config, start) or token_preprocessor(config)
    data = components.data_module(config, preprocessor, like.source if like else None)
    data.prepare(splits, like)
    teacher = set_targets(config, data)
    given = given_weights(config, start)
    backbone = components.build_seeded(config.backbone, config.seed, "backbone", spec=data.spec, **given)
    transfer, origin = None, {}
    if start is not None:
        transfer = load_start(backbone, start, tuple(config.get("reinitialize", ())))
        if kind := config.backbone.get("quantize"):
            start = dataclasses.replace(start, weights={})  # not kept in memory
            quantize(backbone, kind)
        elif "strategy" in config and not is_shuffled:
            origin = digests(backbone, transfer["missing"])
    strategy = build_strategy(config, backbone) if "strategy" in config else None
    if strategy is not None and strategy.uses_strong and not config.data.get("strong"):
        name = f"strategy={components.short_name(config.strategy)}"
        screen.say(
            f"{name}: data.strong has no augmentation: rows with pseudo-labels only have data.augment and dropout"
        )
    objective = build_objective(config, backbone, data)
    if "reference" in objective.abilities and disable_dropout(backbone):
        name = components.short_name(config.objective)
        screen.say(f"dropout is disabled: objective={name} compares with the initial weights without dropout")
    if start is not None and (head := start_head(config, objective, start, data.spec.labels)) is not None:
        transfer["head"] = head
    has_loaded_head = (transfer or {}).get("head") == "loaded"
    module = build_module(config, backbone, objective, data.preprocessor, strategy, origin, has_loaded_head)
    lineage = {"parent": parent, "transfer": transfer}
    if is_static:
        lineage["static"] = set_first_layer(config, backbone, data, source)
    return data, module, lineage if teacher is None else {**lineage, "teacher": teacher}


def start_head(config: DictConfig, objective: Objective, start: SavedModel, labels: tuple[str, ...]) -> str | None:
    """Load the head of the initial weights; return the result of `load_head`, None if there is no head to continue.

    Raises:
        UserError: an objective that keeps its head would be finetuned with a random one.
    """
    has_head = start.card["stage"] in TUNED or "task" in start.card
    is_finetuning = "strategy" in config
    if is_finetuning and not (has_head or objective.keeps_head or "load_head" in objective.abilities):
        return None
    found = load_head(objective, start, labels)
    if is_finetuning and objective.keeps_head and found == "random":
        raise UserError(f"init={config.init}: {without_kept_head(config, start.name)}")
    return found


def disable_dropout(model: nn.Module) -> bool:
    """Set the probabilities of dropout of all layers to 0; return whether one was above 0."""
    found = False
    for layer in model.modules():
        is_dropout = isinstance(layer, nn.modules.dropout._DropoutNd)
        for name, value in vars(layer).items():
            if isinstance(value, float) and value > 0 and ("dropout" in name or (is_dropout and name == "p")):
                vars(layer)[name], found = 0.0, True
    return found


def build_strategy(config: DictConfig, backbone: Backbone) -> Strategy:
    """Return the strategy after `prepare`, which may modify the backbone."""
    strategy = components.build(config.strategy)
    torch.default_generator.manual_seed(derive_seed(config.seed, "strategy"))
    strategy.prepare(backbone)
    return strategy


def build_module(
    config: DictConfig,
    backbone: Backbone,
    objective: Objective,
    preprocessor: Preprocessor,
    strategy: Strategy | None = None,
    origin: dict[str, str] | None = None,
    has_loaded_head: bool = False,
) -> Module:
    """Return the module that trains or evaluates backbone and objective.

    Args:
        config: config of a pretraining, a finetuning, or a soup.
        backbone: with its weights.
        objective: with its weights.
        preprocessor: that of their data.
        strategy: that of a finetuning; None for evaluation.
        origin: see `FinetuneModule`.
        has_loaded_head: see `FinetuneModule`.

    Raises:
        UserError: the strategy depends on the number of steps, which is unknown.
    """
    own = {
        "optimizer": components.build_function(config.optimizer),
        "scheduler": components.build_function(config.scheduler),
        "augment": components.build_augment(config, preprocessor),
        "seed": derive_seed(config.seed, "noise"),
    }
    if config.stage == "pretrain":
        return PretrainModule(backbone, objective, **own)
    if strategy is not None and strategy.uses_strong and config.data.get("strong"):
        own["strong"] = components.build_augment(config, preprocessor, "strong")
    module = FinetuneModule(backbone, objective, strategy, **own, origin=origin, has_loaded_head=has_loaded_head)
    if module.has_phases and config.trainer.get("max_time") is not None:
        raise UserError(
            f"strategy={components.short_name(config.strategy)} depends on the number of steps, which is unknown with "
            "trainer.max_time: set trainer.max_epochs or trainer.max_steps instead"
        )
    return module
