"""stage=pretrain: train a backbone on generic data and save it."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig

from warmstart import screen
from warmstart.data.module import GenericDataModule
from warmstart.module.pretrain import PretrainModule
from warmstart.run.folder import RunFolder
from warmstart.run.identity import derive_seed
from warmstart.run.saved import save_model
from warmstart.stage import parts
from warmstart.stage.train import note_data, resumable, runs_folder, show, training
from warmstart.trainer.pictures import Projector, Reconstructions


def run(config: DictConfig, folder: Path | None = None, name: str | None = None) -> RunFolder:
    """Pretrain as `config` says.

    Args:
        config: a composed pretraining config.
        folder: where to make the run folder, if not in its usual place.
        name: the run folder's name, if not the run's id.
    """
    resumed = resumable(Path(config.resume), "pretrain") if config.get("resume") else None
    if resumed is not None:
        config = resumed.config(tuple(config.trust))
    parts.check_fit(config)
    objective_class = parts.get_object(config.objective._target_)
    data = GenericDataModule(
        parts.build_source(config),
        objective_class.target,
        config.data.batch_size,
        derive_seed(config.seed, "order"),
    ).prepare()
    backbone = parts.build_seeded(config.backbone, config.seed, "backbone", spec=data.spec)
    objective = parts.build_seeded(
        config.objective, config.seed, "head", backbone=backbone, spec=data.spec, loss=parts.build_loss(config)
    )
    module = PretrainModule(
        backbone,
        objective,
        parts.build_function(config.optimizer),
        parts.build_function(config.scheduler),
        parts.build_augment(config, data.preprocessor),
        derive_seed(config.seed, "noise"),
    )
    run = resumed or RunFolder.create(config, folder or runs_folder(config), name)
    note_data(run, config, data)
    screen.say(f"pretraining on {data.rows['train']:,} rows of {run.record['data']['name']}")
    pictures = [Reconstructions(), Projector()] if config.pictures else []
    with training(run, config, module, data, pictures):
        save_model(run, config, backbone, objective, data.spec, data.preprocessor, plain=True)
    show(run)
    words = ("stage=finetune", f"experiment={config.experiment}", f"init={run.path}", *parts.choices_to_repeat())
    screen.next_command(f"python train.py {' '.join(words)}")
    return run
