"""stage=finetune: train a backbone and the head of a task with a strategy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback

from warmstart.config.rewrite import from_parent
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.data.datamodule import TaskDataModule
from warmstart.distributed.processes import agreed, world
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import ancestry
from warmstart.run.saved import save_model
from warmstart.selection.successive_halving import select_and_finetune
from warmstart.training import components
from warmstart.training.assemble import assemble, extract_adapters
from warmstart.training.callbacks.chance import ChanceWarning
from warmstart.training.forgetting import forgetting, parent_task
from warmstart.training.generation import write_generations
from warmstart.training.modules import FinetuneModule
from warmstart.training.processes import check_equal, needs_processes, open_run, train_in_processes
from warmstart.training.record import note_data, note_scoring, show
from warmstart.training.session import Session, check_length
from warmstart.training.sharding import check_sharding
from warmstart.training.start import check_parent
from warmstart.training.visualization.features import ROWS, linear_cka, pooled_features
from warmstart.transfer.leakage import note_shared_rows


def run(config: DictConfig, opened: RunFolder | None = None, callbacks: Sequence[Callback] = ()) -> RunFolder:
    """Finetune with this config.

    Args:
        config: a composed finetuning config.
        opened: the run folder to resume, from its checkpoint if it has one; by default, a new one.
        callbacks: further callbacks for the Trainer.
    """
    if components.selects_strategy(config):
        if world() > 1:
            raise UserError("strategy=auto trains several runs: start it without torchrun, with trainer.devices")
        config = config if opened is None else from_parent(config, opened.record["parent"])
        return select_and_finetune(config, opened, callbacks, run)
    done = (train_in_processes if needs_processes(config) else train_run)(config, opened, callbacks)
    show(done, f"finetune {config.experiment}")
    where = (f"experiment={screen.quoted(config.experiment)}", f"run={screen.quoted(done.path)}")
    screen.next_run("stage=evaluate", *where)
    screen.next_command(screen.command("tensorboard", "--logdir", str(config.output_dir)))
    return done


def train_run(config: DictConfig, opened: RunFolder | None = None, callbacks: Sequence[Callback] = ()) -> RunFolder:
    """Finetune in this process, which may be one of several, with a strategy that selects no other; see `run`."""
    if opened is not None:
        config = from_parent(config, opened.record["parent"])
    with agreed():
        data, module, lineage = assemble(config)
        check_sharding(config, module)
        check_length(config, len(data.train_loader))
        task = parent_task(config, lineage["parent"])
    check_equal(config, data)
    run = open_run(config, opened)
    with run.recording():
        check_parent(run, lineage["parent"])
        run.update(**lineage)
        with forgetting(run, task, (module.backbone, module.objective)):
            train(run, config, data, module, callbacks)
    return run


def train(
    run: RunFolder, config: DictConfig, data: TaskDataModule, module: FinetuneModule, callbacks: Sequence[Callback]
) -> None:
    """Train, test and save the module in its run folder."""
    rows = data.sample("validation", ROWS)
    start = pooled_features(module, rows) if run.record["transfer"] else None
    note_data(run, config, data)
    note_scoring(run, module.objective)
    note_shared_rows(run, data, ["train", "validation", *(data.test_parts if config.test else ())])
    if len(chain := ancestry(run.record["parent"])) > 1:
        screen.say(f"lineage: {' -> '.join([*chain, 'this run'])}")
    spare = f" and {data.rows['unlabelled']:,} unlabelled rows" if "unlabelled" in data.rows else ""
    screen.say(f"finetuning on {data.rows['train']:,} labelled rows{spare} of {run.record['data']['name']}")
    is_accuracy = module.objective.target == "category" and module.objective.monitor[0] == ChanceWarning.metric
    if is_accuracy and config.trainer.limit_val_batches is None:
        classes = torch.as_tensor(data.parts["validation"][1]).flatten()
        callbacks = [*callbacks, ChanceWarning(classes.bincount().max().item() / len(classes), len(classes))]
    with Session(run, config, module, data, callbacks) as session:
        session.fit()
        adapter = extract_adapters(run, module)
        if config.test:
            session.test()
            write_generations(session)
        if start is not None:
            run.note(cka=linear_cka(start, pooled_features(module, rows)))
        save_model(run, config, module.backbone, module.objective, data.spec, data.preprocessor, adapter=adapter)
        session.conclude()
