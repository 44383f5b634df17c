"""Loads a trained model from its run folder."""

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


def restore_model(run: RunFolder, config: DictConfig, snapshot: Path | None = None) -> tuple[Backbone, Any, SavedModel]:
    """Return backbone and objective with their saved weights, or those of a snapshot, and the saved model.

    Raises:
        UserError: a file is missing, damaged or changed, or the shape of a tensor differs.
    """
    saved = open_model(run.path / "model", run) if snapshot is None else open_model(snapshot)
    backbone = components.build(config.backbone, spec=saved.spec)
    objective = components.build(
        config.objective, backbone=backbone, spec=saved.spec, loss=components.build_loss(config)
    )
    load_weights(backbone, saved.weights, saved.name)
    load_weights(objective, saved.head, f"{saved.name} (head)")
    if "texts" in objective.abilities:
        objective.read_texts(rebuild(saved.preprocessor))
    return backbone.eval(), objective.eval(), saved


def restore(run: RunFolder, config: DictConfig) -> tuple[FinetuneModule, SavedModel]:
    """Return the finetuned module in evaluation mode and the saved model; raises the errors of `restore_model`."""
    backbone, objective, saved = restore_model(run, config)
    return build_module(config, backbone, objective, rebuild(saved.preprocessor)).eval(), saved


def exported(run: RunFolder, config: DictConfig) -> tuple[Any, tuple[Backbone, Any], SavedModel]:
    """Return the equivalent transformers model with its head; backbone and objective; and the saved model.

    Raises:
        UserError: transformers has no class for the architecture of the backbone.
    """
    backbone, objective, saved = restore_model(run, config)
    model = export.exported(backbone, objective.task, objective.head, objective.output_spec(saved.spec))
    if model is None:
        name = components.short_name(config.backbone)
        raise UserError(f"{run.path}: backbone={name} has an architecture for which transformers has no class")
    return model, (backbone, objective), saved
