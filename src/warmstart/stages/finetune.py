"""stage=finetune: put a task's head on a backbone and train both as the strategy says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback

from warmstart.config.rewrite import from_parent
from warmstart.core import screen
from warmstart.core.batch import Splits
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.data.datamodule import TaskDataModule
from warmstart.run.folder import RunFolder
from warmstart.run.identity import derive_seed
from warmstart.run.lineage import TUNED, ancestry
from warmstart.run.saved import save_model
from warmstart.run.scores import save_scores
from warmstart.selection.successive_halving import run_first
from warmstart.training import components
from warmstart.training.adapter_delta import digests, settle
from warmstart.training.compatibility import check_fit
from warmstart.training.evaluation import measure
from warmstart.training.forgetting import forgetting, remember
from warmstart.training.modules import FinetuneModule
from warmstart.training.session import check_length, note_data, runs_folder, show, training
from warmstart.training.start import (
    build_objective,
    check_parent,
    find_start,
    given_preprocessor,
    load_head,
    load_start,
    shuffled,
)
from warmstart.training.visualization.features import ROWS, linear_cka, pooled_features
from warmstart.training.visualization.mistakes import Mishearings, Mistakes
from warmstart.training.visualization.pictures import Confusions, Projector, Views
from warmstart.training.visualization.recordings import Alignments, Players
from warmstart.training.visualization.texts import Examples
from warmstart.transfer.leakage import note_shared_rows


def run(config: DictConfig, opened: RunFolder | None = None, watchers: Sequence[Callback] = ()) -> RunFolder:
    """Finetune as `config` says.

    Args:
        config: a composed finetuning config.
        opened: the folder to run in, if not a new one; where it holds a checkpoint, the run goes on from there.
        watchers: further callbacks for the Trainer.
    """
    if opened is not None:
        config = from_parent(config, opened.record["parent"])
    if components.races(config):
        return run_first(config, opened, watchers, run)
    return finetune(config, opened, watchers)


def finetune(config: DictConfig, opened: RunFolder | None, watchers: Sequence[Callback]) -> RunFolder:
    """As `run`, with a strategy that is given."""
    data, module, lineage = assemble(config)
    check_length(config, len(data.train_loader))
    memory = remember(config, lineage["parent"])
    run = opened or RunFolder.create(config, runs_folder(config))
    with run.recording():
        check_parent(run, lineage["parent"])
        run.update(**lineage)
        with forgetting(run, memory, module.backbone):
            train(run, config, data, module, watchers)
    show(run)
    screen.next_run(
        "stage=evaluate", f"experiment={screen.quoted(config.experiment)}", f"run={screen.quoted(run.path)}"
    )
    screen.next_command(screen.command("tensorboard", "--logdir", str(config.output_dir)))
    return run


def train(
    run: RunFolder, config: DictConfig, data: TaskDataModule, module: FinetuneModule, watchers: Sequence[Callback]
) -> None:
    """Train the module in its run folder, test it and save it."""
    rows = data.sample("validation", ROWS)
    start = pooled_features(module, rows) if run.record["transfer"] else None
    note_data(run, config, data)
    note_shared_rows(run, data, ["train", "validation", *(data.test_parts if config.test else ())])
    if len(chain := ancestry(run.record["parent"])) > 1:
        screen.say(f"lineage: {' -> '.join([*chain, 'this run'])}")
    screen.say(f"finetuning on {data.rows['train']:,} labelled rows of {run.record['data']['name']}")
    shown = [Projector(), Confusions(), Mistakes(), Mishearings(), Examples(), Players(), Alignments(), Views()]
    pictures = shown if config.pictures else []
    with training(run, config, module, data, [*pictures, *watchers]) as (trainer, metrics):
        adapter = settle(run, module)
        if config.test:
            metrics |= measure(trainer, module, data)
            save_scores(run, module.test_scores)
        if start is not None:
            run.note(cka=linear_cka(start, pooled_features(module, rows)))
        save_model(run, config, module.backbone, module.objective, data.spec, data.preprocessor, adapter=adapter)


def assemble(
    config: DictConfig, splits: Splits | None = None, like: TaskDataModule | None = None
) -> tuple[TaskDataModule, FinetuneModule, dict[str, Any]]:
    """The data, the module with its initial weights, and the record's `parent` and `transfer`: where they are from.

    `splits` are the data if it is loaded already, and `like` is that of a job that differs in numbers only.
    """
    if like is None:
        check_fit(config)
    start, parent = find_start(config)
    if start is not None and Init.parse(config.init).shuffled:
        start = shuffled(start, derive_seed(config.seed, "shuffle"))
    data = components.task_data(config, given_preprocessor(config, start), like.source if like else None).prepare(
        splits, like
    )
    backbone = components.build_seeded(config.backbone, config.seed, "backbone", spec=data.spec)
    transfer, origin = None, {}
    if start is not None:
        transfer = load_start(backbone, start, tuple(config.fresh))
        if not Init.parse(config.init).shuffled:
            origin = digests(backbone, transfer["missing"])
    strategy = components.build(config.strategy)
    torch.default_generator.manual_seed(derive_seed(config.seed, "strategy"))
    strategy.prepare(backbone)
    objective = build_objective(config, backbone, data)
    has_head = start is not None and (start.card["stage"] in TUNED or "task" in start.card)
    if has_head or (start is not None and "take_over" in objective.abilities):
        transfer["head"] = load_head(objective, start, data.spec.labels)
    module = FinetuneModule(
        backbone,
        objective,
        strategy,
        components.build_function(config.optimizer),
        components.build_function(config.scheduler),
        components.build_augment(config, data.preprocessor),
        derive_seed(config.seed, "noise"),
        origin,
    )
    if module.has_phases and config.trainer.get("max_time") is not None:
        raise UserError(
            f"strategy={components.short_name(config.strategy)} changes what trains at shares of the steps, whose "
            "number trainer.max_time leaves open: give trainer.max_epochs or trainer.max_steps instead"
        )
    return data, module, {"parent": parent, "transfer": transfer}
