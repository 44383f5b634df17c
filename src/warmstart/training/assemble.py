"""What a training is made of: its data, its backbone and objective with their initial weights, and their module."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig

from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.protocols import Backbone, Objective, Preprocessor, Strategy
from warmstart.data.datamodule import MemoryDataModule
from warmstart.run.identity import derive_seed
from warmstart.run.lineage import TUNED
from warmstart.training import components
from warmstart.training.adapter_delta import digests
from warmstart.training.compatibility import check_fit
from warmstart.training.modules import FinetuneModule, PretrainModule
from warmstart.training.start import build_objective, find_start, given_preprocessor, load_head, load_start, shuffled

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
