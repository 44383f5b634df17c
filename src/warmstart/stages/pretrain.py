"""stage=pretrain: train a backbone on generic data and save it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig
from pytorch_lightning import Callback

from warmstart.config.rewrite import from_parent
from warmstart.core import screen
from warmstart.core.protocols import generates
from warmstart.data.datamodule import GenericDataModule
from warmstart.distributed.processes import agreed
from warmstart.run.folder import RunFolder
from warmstart.run.saved import save_model
from warmstart.training import components
from warmstart.training.assemble import assemble
from warmstart.training.callbacks.snapshots import Snapshots
from warmstart.training.memory import peak_memory_mb
from warmstart.training.modules import PretrainModule
from warmstart.training.processes import check_equal, needs_processes, open_run, train_in_processes
from warmstart.training.record import note_data, show
from warmstart.training.session import Session, check_length
from warmstart.training.sharding import check_sharding, shards
from warmstart.training.start import check_parent
from warmstart.training.teacher import note_teacher
from warmstart.training.visualization.features import FeatureQuality
from warmstart.transfer.leakage import note_shared_rows


def run(config: DictConfig, opened: RunFolder | None = None, callbacks: Sequence[Callback] = ()) -> RunFolder:
    """Pretrain with this config.

    Args:
        config: a composed pretraining config.
        opened: the run folder to resume, from its checkpoint if it has one; by default, a new one.
        callbacks: further callbacks for the Trainer.
    """
    run = (train_in_processes if needs_processes(config) else train_run)(config, opened, callbacks)
    show(run, f"pretrain {config.experiment}")
    where = (f"experiment={screen.quoted(config.experiment)}", f"run={screen.quoted(run.path)}")
    if generates(get_object(config.objective._target_)) and "static" not in run.record:
        screen.next_run("stage=generate", *where, "prompt=TEXT")
    else:
        init = f"init={screen.quoted(run.path)}"
        screen.next_run("stage=finetune", where[0], init, *components.choices_to_repeat(config))
    return run


def train_run(config: DictConfig, opened: RunFolder | None = None, callbacks: Sequence[Callback] = ()) -> RunFolder:
    """Pretrain in this process, which may be one of several; see `run`."""
    if opened is not None:
        config = from_parent(config, opened.record["parent"], opened.record.get("teacher"))
    with agreed():
        data, module, lineage = assemble(config)
        check_sharding(config, module)
        static = lineage.pop("static", None)
        if static is None:
            check_length(config, len(data.train_loader))
    check_equal(config, data)
    run = open_run(config, opened)
    with run.recording():
        check_parent(run, lineage["parent"])
        note_teacher(run, lineage.pop("teacher", None))
        run.update(**lineage)
        if static is None:
            train(run, config, data, module, callbacks)
        else:
            save(run, config, data, module, static)
    return run


def save(
    run: RunFolder, config: DictConfig, data: GenericDataModule, module: PretrainModule, static: dict[str, Any]
) -> None:
    """Save a module with a static first layer, without training; `static` is that of `assemble`."""
    note_data(run, config, data)
    note_shared_rows(run, data, ["train", "validation"])
    save_model(run, config, module.backbone, module.objective, data.spec, data.preprocessor, plain=True)
    cost = {"seconds": static.pop("seconds"), "steps": 0, "examples": 0, "peak_memory_mb": peak_memory_mb()}
    run.note(static=static, cost=cost)


def train(
    run: RunFolder, config: DictConfig, data: GenericDataModule, module: PretrainModule, callbacks: Sequence[Callback]
) -> None:
    """Train and save the module in its run folder."""
    note_data(run, config, data)
    note_shared_rows(run, data, ["train", "validation"])
    screen.say(f"pretraining on {data.rows['train']:,} rows of {run.record['data']['name']}")
    model = (module.backbone, module.objective, data.spec, data.preprocessor)
    own = [FeatureQuality(config.feature_rows)] if config.get("feature_rows") and not shards(config) else []
    if config.snapshots:
        own.append(
            Snapshots(
                run.path,
                config.snapshots,
                save=lambda folder: save_model(run, config, *model, snapshot=folder),
                note=lambda taken: run.update(snapshots=taken),
            )
        )
    with Session(run, config, module, data, [*own, *callbacks]) as session:
        session.fit()
        save_model(run, config, *model, plain=True)
        session.conclude()
