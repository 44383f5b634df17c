"""Load the initial weights of a training (`init`), with their preprocessor."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn
from yaml import YAMLError

from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.init import Init
from warmstart.core.protocols import RUNTIME_SETTINGS, Preprocessor
from warmstart.core.reading import load_config
from warmstart.core.saved_model import SavedModel
from warmstart.data.datamodule import MemoryDataModule
from warmstart.data.preprocess import rebuild
from warmstart.data.schema import missing_columns
from warmstart.run.folder import RunFolder
from warmstart.run.lineage import ancestors, finished, latest
from warmstart.run.saved import in_bfloat16, load_weights, open_model, read_preprocessor
from warmstart.training import components
from warmstart.training.callbacks.snapshots import SNAPSHOTS
from warmstart.training.precision import weights_dtype
from warmstart.training.static import open_teacher, parent_record


def find_start(config: DictConfig) -> tuple[SavedModel | None, dict[str, Any] | None]:
    """Return the saved backbone of `init` and the parent record; both None for init=scratch.

    A static first layer has no saved backbone, and its parent is the teacher, if any.

    Raises:
        UserError: it does not exist, is unfinished or damaged, or differs from the backbone of this config.
    """
    init = Init.parse(config.init)
    source = str(init.source)
    if init.is_scratch:
        return None, None
    if init.kind == "static":
        return None, parent_record(config, open_teacher(config))
    if init.kind == "hub":
        from warmstart.huggingface.load import open_hub  # imports transformers

        saved = open_hub(source, config.backbone.get("pooling"), weights_dtype(config))
        check_backbone(saved, config)
        name = Path(init.path)
        where = str(Init("hub", str(name.resolve()))) if name.is_dir() else source
        return saved, {"id": None, "weights_sha256": saved.weights_sha256, "path": where}
    if init.kind == "latest":
        found = latest(Path(config.output_dir), "pretrain", config.experiment, missing_columns(config))
        screen.say(f"init=latest is {found.path}")
    else:
        path = Path(init.path)
        if not init.is_folder:
            raise UserError(f"init={source}: no such folder; give a run folder, a saved backbone, or scratch")
        above = path.parents[1] if path.parent.name == SNAPSHOTS else path.parent
        home = above if (above / "run.json").exists() else path
        found = finished(home) if (home / "run.json").exists() else None
    if found is not None:
        warn_of_other_splits(config, found)
    if found is not None and "model_sha256" not in found.record:
        raise UserError(f"init={source}: a {found.record['stage']} run has no saved backbone")
    if init.kind == "folder" and path.parent.name == SNAPSHOTS:
        saved = open_model(folder := path)
    else:
        folder = path if found is None else found.path / "model"
        saved = open_model(folder, found)
    if weights_dtype(config) == "bfloat16":
        saved.weights = in_bfloat16(saved.weights)
    check_backbone(saved, config)
    parent = {"id": found.record["id"] if found else None, "weights_sha256": saved.weights_sha256}
    return saved, {**parent, "path": str(folder.resolve())}


def given_preprocessor(config: DictConfig, start: SavedModel | None) -> Preprocessor | None:
    """Return the preprocessor of the initial weights or of the run in `preprocessor`; None to fit a new one."""
    if start is not None:
        return rebuild(start.preprocessor)
    if (init := Init.parse(config.init)).random:
        from warmstart.huggingface.load import open_hub

        return rebuild(open_hub(str(init.source), config.backbone.get("pooling")).preprocessor)
    if config.get("preprocessor") is None:
        return None
    return rebuild(read_preprocessor(finished(Path(config.preprocessor))))


def build_objective(config: DictConfig, backbone: nn.Module, data: MemoryDataModule) -> nn.Module:
    """Build the objective with its initial head, fitted to the training targets."""
    facts = {"backbone": backbone, "spec": data.spec, "loss": components.build_loss(config)}
    objective = components.build_seeded(config.objective, config.seed, "head", **facts)
    objective.fit(data.parts["train"][1])
    if "texts" in objective.abilities:
        objective.read_texts(data.preprocessor)
    return objective


def given_weights(config: DictConfig, start: SavedModel | None) -> dict[str, Any]:
    """Return the argument `weights` of a backbone that takes it, so that there is no second copy in memory."""
    takes_weights = get_object(config.backbone._target_).takes_weights
    return {"weights": start.weights} if start is not None and takes_weights and not config.get("reinitialize") else {}


def load_start(backbone: nn.Module, start: SavedModel, reinitialize: tuple[str, ...] = ()) -> dict[str, Any]:
    """Load the saved weights, print their number, and return the transfer record."""
    transfer = load_weights(backbone, start.weights, start.name, reinitialize)
    screen.say(
        f"loaded {transfer['loaded']} of {len(backbone.state_dict())} tensors, "
        f"{transfer['fraction']:.0%} of parameters, from {start.name}"
    )
    return transfer


def load_head(objective: nn.Module, start: SavedModel, labels: tuple[str, ...]) -> str:
    """Load the saved head if form, task and labels are the same; print and return loaded, tied or random.

    An objective with the ability `load_head` decides itself about heads with other or reordered labels.
    """
    own = {name: value.shape for name, value in objective.state_dict().items()}
    if not own:
        screen.say(f"the head is tied to the weights of the backbone of {start.name}")
        return "tied"
    task = start.card.get("task", objective.task)
    if "load_head" in objective.abilities:
        is_loaded = objective.load_head(start.head, start.spec.labels)
    else:
        has_same_form = own == {name: value.shape for name, value in start.head.items()}
        is_loaded = has_same_form and start.spec.labels == labels and task == objective.task
        if is_loaded:
            load_weights(objective, start.head, f"{start.name} (head)")
    if is_loaded:
        screen.say(f"loaded the head of {start.name}")
        return "loaded"
    if task != objective.task:
        reason = f"that of {start.name} is for {task}"
    elif start.head and set(start.spec.labels) != set(labels):
        reason = f"that of {start.name} is for other labels ({listed(start.spec.labels)}; here {listed(labels)})"
    else:
        reason = f"{start.name} has no head of this form for these labels"
    screen.say(f"the head is initialized randomly: {reason}", style="yellow")
    return "random"


def check_kept_head(config: DictConfig, start: SavedModel) -> None:
    """Raise an error if the objective keeps the head of its initial weights, but these have none of its form.

    Args:
        config: a finetuning config.
        start: the initial weights.

    Raises:
        UserError: with the objective.
    """
    if not get_object(config.objective._target_).keeps_head:
        return
    backbone = components.build(config.backbone, spec=start.spec)
    facts = {"backbone": backbone, "spec": start.spec, "loss": components.build_loss(config)}
    objective = components.build(config.objective, **facts)
    own, saved = ({name: value.shape for name, value in head.items()} for head in (objective.state_dict(), start.head))
    if own and (own != saved or start.card.get("task", objective.task) != objective.task):
        raise UserError(without_kept_head(config, start.name))


def without_kept_head(config: DictConfig, name: str) -> str:
    """Return the message that the initial weights `name` have no head for an objective that keeps it."""
    return (
        f"objective={components.short_name(config.objective)} trains a loaded head further, but {name} has none of "
        "this form: give a causal language model with its head, or init=scratch"
    )


def listed(labels: tuple[str, ...], most: int = 4) -> str:
    """Return the first labels and the number of the others; `none` if there are none."""
    more = f" and {len(labels) - most:,} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more if labels else "none"


def check_parent(run: RunFolder, parent: dict[str, Any] | None) -> None:
    """Raise an error if the initial weights of a run have changed since it started.

    Args:
        run: new, or resumed.
        parent: record of the current weights.

    Raises:
        UserError: with the path of the weights.
    """
    before = run.record["parent"]
    if before is not None and parent is not None and parent["weights_sha256"] != before["weights_sha256"]:
        raise UserError(f"{before['path']} has changed since {run.path} was initialized from it: its SHA-256 differs")


def check_backbone(saved: SavedModel, config: DictConfig) -> None:
    """Raise an error with the differences if a saved backbone has other settings or is for other data."""
    modality = components.source_type(config.data).modality
    if saved.spec.modality != modality:
        raise UserError(
            f"the backbone of {saved.name} is for {saved.spec.modality} data, "
            f"but data={components.short_name(config.data)} is {modality}"
        )
    nodes = (OmegaConf.to_container(config.backbone, resolve=True), saved.card["backbone"])
    here, there = (_flat({key: value for key, value in node.items() if key not in RUNTIME_SETTINGS}) for node in nodes)
    differing = [key for key in sorted({*here, *there}) if not _is_same(here.get(key), there.get(key))]
    if differing:
        differences = "; ".join(
            f"backbone.{key} is {there.get(key)} there and {here.get(key)} here" for key in differing[:3]
        )
        raise UserError(f"the backbone of {saved.name} differs from this one: {differences}")


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two settings are equal; NaN equals NaN."""
    return one == other or repr(one) == repr(other)


def _flat(node: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in node.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def warn_of_other_splits(config: DictConfig, run: RunFolder) -> None:
    """Print a warning if a run, an ancestor or a teacher used other splits of the same data set.

    Runs with an unreadable config are skipped.
    """
    for ancestor in ancestors(run):
        with contextlib.suppress(OSError, ValueError, YAMLError, OmegaConfBaseException):
            seen = components.sources_of(load_config(ancestor.path / "config.yaml").data).values()
            for theirs, ours in itertools.product(seen, components.sources_of(config.data).values()):
                if all(theirs.get(key) == ours.get(key) for key in ("_target_", "root", "seed")):
                    _compare(theirs, ours, ancestor)


def _compare(theirs: DictConfig, ours: DictConfig, run: RunFolder) -> None:
    for key in ("split_seed", "cluster", "split", "test_clusters", "target", "config"):
        before, now = theirs.get(key), ours.get(key)
        if before != now:
            screen.say(
                f"warning: {run.path} was trained with data.{key}={before}, including rows that "
                f"data.{key}={now} uses for testing: set the same data.{key} in both",
                style="yellow",
            )


def shuffled(saved: SavedModel, seed: int) -> SavedModel:
    """Return the model with the values of each tensor permuted, which keeps their distribution but removes features."""
    generator = torch.Generator().manual_seed(seed)

    def permuted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: value.flatten()[torch.randperm(value.numel(), generator=generator)].view_as(value)
            for name, value in tensors.items()
        }

    return dataclasses.replace(saved, weights=permuted(saved.weights), head=permuted(saved.head))
