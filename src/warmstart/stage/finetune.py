"""stage=finetune: put a task's head on a backbone and train both as the strategy says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback

from warmstart import screen
from warmstart.contracts import Splits, UserError
from warmstart.data.module import TaskDataModule
from warmstart.data.preprocess import rebuild
from warmstart.module.finetune import FinetuneModule
from warmstart.module.similarity import linear_cka, pooled_features
from warmstart.run.folder import RunFolder
from warmstart.run.identity import derive_seed
from warmstart.run.lineage import finished, latest
from warmstart.run.saved import SavedModel, load_weights, save_model
from warmstart.run.scores import save_scores
from warmstart.stage import parts
from warmstart.stage.leakage import warn_of_other_splits
from warmstart.stage.train import note_data, resumable, runs_folder, show, training
from warmstart.trainer.pictures import Confusions, Projector
from warmstart.trainer.snapshots import SNAPSHOTS

SHUFFLED = "shuffled:"  # before an `init`: the same weights, permuted inside each tensor


def run(config: DictConfig, opened: RunFolder | None = None, watchers: Sequence[Callback] = ()) -> RunFolder:
    """Finetune as `config` says.

    Args:
        config: a composed finetuning config.
        opened: the folder to run in, if not a new one; where it holds a checkpoint, the run goes on from there.
        watchers: further callbacks for the Trainer.
    """
    resumed = resumable(Path(config.resume), "finetune") if config.get("resume") else None
    if resumed is not None:
        config = resumed.config(tuple(config.trust))
        config.init = same_start(config, resumed.record["parent"])
    data, module, lineage = assemble(config)
    run = opened or resumed or RunFolder.create(config, runs_folder(config))
    note_data(run, config, data)
    run.update(**lineage)
    screen.say(f"finetuning on {data.rows['train']:,} labelled rows of {run.record['data']['name']}")
    pictures = [Projector(), Confusions()] if config.pictures else []
    rows = data.parts["validation"][0]
    start = pooled_features(module, rows) if lineage["transfer"] else None
    with training(run, config, module, data, [*pictures, *watchers]) as (trainer, metrics):
        if config.test:
            trainer.test(module, datamodule=data, verbose=False)
            results = trainer.callback_metrics.items()
            metrics |= {name: float(value) for name, value in results if name.startswith("test/")}
            save_scores(run, module.test_scores)
        if start is not None:
            run.note(cka=linear_cka(start, pooled_features(module, rows)))
        save_model(run, config, module.backbone, module.objective, data.spec, data.preprocessor)
    show(run)
    screen.next_command(
        f"python train.py stage=evaluate experiment={config.experiment} run={run.path}",
        f"tensorboard --logdir {config.output_dir}",
    )
    return run


def assemble(
    config: DictConfig, splits: Splits | None = None, like: TaskDataModule | None = None
) -> tuple[TaskDataModule, FinetuneModule, dict[str, Any]]:
    """The data, the module with its initial weights, and the record's `parent` and `transfer`: where they are from.

    `splits` are the data if it is loaded already, and `like` is that of a job that differs in numbers only.
    """
    if like is None:
        parts.check_fit(config)
    start, parent = find_start(config)
    if start is not None and str(config.init).startswith(SHUFFLED):
        start = start.shuffled(derive_seed(config.seed, "shuffle"))
    preprocessor = rebuild(start.preprocessor) if start else None
    data = parts.task_data(config, preprocessor, like.source if like else None).prepare(splits, like)
    backbone = parts.build_seeded(config.backbone, config.seed, "backbone", spec=data.spec)
    transfer = None
    if start is not None:
        transfer = load_weights(backbone, start.weights, start.name, tuple(config.fresh))
        screen.say(
            f"loaded {transfer['loaded']} of {len(backbone.state_dict())} tensors, "
            f"{transfer['fraction']:.0%} of parameters, from {start.name}"
        )
    objective = parts.build_seeded(
        config.objective, config.seed, "head", backbone=backbone, spec=data.spec, loss=parts.build_loss(config)
    )
    module = FinetuneModule(
        backbone,
        objective,
        parts.build(config.strategy),
        parts.build_function(config.optimizer),
        parts.build_function(config.scheduler),
        parts.build_augment(config, data.preprocessor),
        derive_seed(config.seed, "noise"),
    )
    return data, module, {"parent": parent, "transfer": transfer}


def find_start(config: DictConfig) -> tuple[SavedModel | None, dict[str, Any] | None]:
    """The saved backbone that `init` names, and the parent record; both None for init=scratch.

    Raises:
        UserError: there is none, it is unfinished or damaged, or its backbone is not this config's.
    """
    word = str(config.init).removeprefix(SHUFFLED)
    if word == "scratch":
        return None, None
    if word == "latest":
        found = latest(Path(config.output_dir), "pretrain", config.experiment)
        screen.say(f"init=latest is {found.path}")
    else:
        path = Path(word)
        if not path.is_dir():
            raise UserError(f"init={word}: there is no such folder; give a run folder, a saved backbone, or scratch")
        above = path.parents[1] if path.parent.name == SNAPSHOTS else path.parent
        home = above if (above / "run.json").exists() else path
        found = finished(home) if (home / "run.json").exists() else None
    if found is not None and found.record["stage"] == "pretrain":
        warn_of_other_splits(config, found)
    if found is not None and "model_sha256" not in found.record:
        raise UserError(f"init={word}: a {found.record['stage']} run has no saved backbone")
    if word != "latest" and path.parent.name == SNAPSHOTS:
        saved = SavedModel.open(folder := path)
    else:
        folder = path if found is None else found.path / "model"
        saved = SavedModel.open(folder, found)
    check_backbone(saved, config)
    parent = {"id": found.record["id"] if found else None, "weights_sha256": saved.weights_sha256}
    return saved, {**parent, "path": str(folder.resolve())}


def same_start(config: DictConfig, parent: dict[str, Any] | None) -> str:
    """The `init` that gives a run of this config the very weights it had."""
    if parent is None:
        return config.init
    return (SHUFFLED if config.init.startswith(SHUFFLED) else "") + parent["path"]


def check_backbone(saved: SavedModel, config: DictConfig) -> None:
    """Refuse a saved backbone that was built from other settings or for other data, naming what differs."""
    modality = parts.get_object(config.data._target_).modality
    if saved.spec.modality != modality:
        raise UserError(
            f"the backbone of {saved.name} was made for {saved.spec.modality} data, "
            f"but data={parts.short_name(config.data)} is {modality}"
        )
    here = _flat(OmegaConf.to_container(config.backbone, resolve=True))
    there = _flat(saved.card["backbone"])
    differing = [key for key in sorted({*here, *there}) if here.get(key) != there.get(key)]
    if differing:
        what = "; ".join(f"backbone.{key} is {there.get(key)} there and {here.get(key)} here" for key in differing[:3])
        raise UserError(f"the backbone of {saved.name} is not this one: {what}")


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
