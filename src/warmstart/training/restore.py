"""A trained model, back from its run folder exactly as it was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.core.saved_model import SavedModel
from warmstart.data.preprocess import rebuild
from warmstart.huggingface import export
from warmstart.run.folder import RunFolder
from warmstart.run.saved import load_weights, open_model
from warmstart.training import components
from warmstart.training.assemble import build_module
from warmstart.training.modules import FinetuneModule


def restore_parts(run: RunFolder, config: DictConfig, snapshot: Path | None = None) -> tuple[Backbone, Any, SavedModel]:
    """Backbone and objective with their weights loaded, those of a snapshot where one is given, and what was read.

    Raises:
        UserError: a file is missing, damaged or changed, or a tensor does not fit.
    """
    saved = open_model(run.path / "model", run) if snapshot is None else open_model(snapshot)
    backbone = components.build(config.backbone, spec=saved.spec)
    objective = components.build(
        config.objective, backbone=backbone, spec=saved.spec, loss=components.build_loss(config)
    )
    load_weights(backbone, saved.weights, saved.name)
    load_weights(objective, saved.head, f"{saved.name} (head)")
    return backbone.eval(), objective.eval(), saved


def restore(run: RunFolder, config: DictConfig) -> tuple[FinetuneModule, SavedModel]:
    """A finetuned module in evaluation mode, and what was read; errors are those of `restore_parts`."""
    backbone, objective, saved = restore_parts(run, config)
    return build_module(config, backbone, objective, rebuild(saved.preprocessor)).eval(), saved


def exported(run: RunFolder, config: DictConfig) -> tuple[Any, tuple[Backbone, Any], SavedModel]:
    """The same model as one of transformers, head included, in memory; backbone and objective, and what was read.

    Raises:
        UserError: the backbone is of no architecture that transformers has.
    """
    backbone, objective, saved = restore_parts(run, config)
    model = export.exported(backbone, objective.task, objective.head, objective.in_units(saved.spec))
    if model is None:
        name = components.short_name(config.backbone)
        raise UserError(f"{run.path}: backbone={name} is of no architecture that transformers has a class for")
    return model, (backbone, objective), saved
