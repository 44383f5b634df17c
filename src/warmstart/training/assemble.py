"""What a finetuning learned beside what it started from: kept apart, and counted."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.protocols import Backbone, Objective, Preprocessor, Strategy
from warmstart.data.datamodule import MemoryDataModule
from warmstart.run.adapter import merge, packed
from warmstart.run.folder import RunFolder
from warmstart.run.identity import derive_seed
from warmstart.run.lineage import TUNED
from warmstart.training import components
from warmstart.training.compatibility import check_fit
from warmstart.training.modules import FinetuneModule, PretrainModule
from warmstart.training.start import build_objective, find_start, given_preprocessor, load_head, load_start, shuffled


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


Module = PretrainModule | FinetuneModule


def assemble(
    config: DictConfig, splits: Splits | None = None, like: MemoryDataModule | None = None
) -> tuple[MemoryDataModule, Module, dict[str, Any]]:
    """The data, the module with its initial weights, and the record's `parent` and `transfer`: where they are from.

    Args:
        config: a composed pretraining or finetuning config.
        splits: the data if it is loaded already.
        like: that of a job that differs in numbers only.
    """
    if like is None:
        check_fit(config)
    start, parent = find_start(config)
    is_shuffled = Init.parse(config.init).shuffled
    if start is not None and is_shuffled:
        start = shuffled(start, derive_seed(config.seed, "shuffle"))
    data = components.data_module(config, given_preprocessor(config, start), like.source if like else None)
    data.prepare(splits, like)
    backbone = components.build_seeded(config.backbone, config.seed, "backbone", spec=data.spec)
    transfer, origin = None, {}
    if start is not None:
        transfer = load_start(backbone, start, tuple(config.get("fresh", ())))
        if "strategy" in config and not is_shuffled:
            origin = digests(backbone, transfer["missing"])
    strategy = build_strategy(config, backbone) if "strategy" in config else None
    objective = build_objective(config, backbone, data)
    if start is not None:
        has_head = start.card["stage"] in TUNED or "task" in start.card
        if strategy is None or has_head or "load_head" in objective.abilities:
            transfer["head"] = load_head(objective, start, data.spec.labels)
    module = build_module(config, backbone, objective, data.preprocessor, strategy, origin)
    return data, module, {"parent": parent, "transfer": transfer}


def build_strategy(config: DictConfig, backbone: Backbone) -> Strategy:
    """The strategy, once it has changed the backbone as it needs to."""
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
) -> Module:
    """The module that trains backbone and objective as the config says, or measures them.

    Args:
        config: of a pretraining, a finetuning, or a soup.
        backbone: with its weights.
        objective: with its own.
        preprocessor: of their data.
        strategy: of a finetuning that is to train.
        origin: see `FinetuneModule`.

    Raises:
        UserError: what trains changes at shares of a number of steps that nobody knows.
    """
    own = {
        "optimizer": components.build_function(config.optimizer),
        "scheduler": components.build_function(config.scheduler),
        "augment": components.build_augment(config, preprocessor),
        "seed": derive_seed(config.seed, "noise"),
    }
    if config.stage == "pretrain":
        return PretrainModule(backbone, objective, **own)
    module = FinetuneModule(backbone, objective, strategy, **own, origin=origin)
    if module.has_phases and config.trainer.get("max_time") is not None:
        raise UserError(
            f"strategy={components.short_name(config.strategy)} changes what trains at shares of the steps, whose "
            "number trainer.max_time leaves open: give trainer.max_epochs or trainer.max_steps instead"
        )
    return module
