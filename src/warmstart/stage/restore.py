"""A finetuned model, back from its run folder exactly as it was saved."""

from __future__ import annotations

from omegaconf import DictConfig

from warmstart.data.preprocess import rebuild
from warmstart.module.finetune import FinetuneModule
from warmstart.run.folder import RunFolder
from warmstart.run.saved import SavedModel, load_weights
from warmstart.stage import parts


def restore(run: RunFolder, config: DictConfig) -> tuple[FinetuneModule, SavedModel]:
    """The module with backbone and head loaded, in evaluation mode, and what was read.

    Raises:
        UserError: a file is missing, damaged or changed, or a tensor does not fit.
    """
    saved = SavedModel.open(run.path / "model", run)
    backbone = parts.build(config.backbone, spec=saved.spec)
    objective = parts.build(config.objective, backbone=backbone, spec=saved.spec, loss=parts.build_loss(config))
    load_weights(backbone, saved.weights, saved.name)
    load_weights(objective, saved.head, f"{saved.name} (head)")
    module = FinetuneModule(
        backbone,
        objective,
        parts.build(config.strategy),
        parts.build_function(config.optimizer),
        parts.build_function(config.scheduler),
        parts.build_augment(config, rebuild(saved.preprocessor)),
        seed=0,
    )
    return module.eval(), saved
