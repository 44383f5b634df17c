"""Builds components from config nodes by their `_target_`, and checks their settings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from warmstart.config.options import compose_file
from warmstart.config.rewrite import merged, without
from warmstart.config.signature import check_settings
from warmstart.config.validate import target_of
from warmstart.core.errors import UserError
from warmstart.core.protocols import (
    Backbone,
    Baseline,
    LossFunction,
    Objective,
    Preprocessor,
    Source,
    Strategy,
    Transform,
)
from warmstart.core.ranges import shown
from warmstart.data.datamodule import GenericDataModule, MemoryDataModule, TaskDataModule
from warmstart.data.transforms.augment import Augment
from warmstart.huggingface.resolve import TARGETS
from warmstart.run.identity import derive_seed

_built: dict[str, functools.partial] = {}
GROUPS = {  # config groups whose package has another name
    "training.schedule": "scheduler",
    "training.muon": "optimizer",
    **{target.removeprefix("warmstart.").rpartition(".")[0]: "backbone" for target in TARGETS},
}
KINDS = {"data": Source, "backbone": Backbone, "objective": Objective, "strategy": Strategy, "baseline": Baseline}
SEVERAL = {"logger": Logger, "visualization": Callback}  # groups from which any number of options can be chosen
INNER = {"augment": Transform, "strong": Transform}  # such groups inside components
BLOCKS = ("pack", "separate")  # keys of the data of a pretraining
LABELS = (
    "labels_per_class",
    "label_fraction",
    "folds",
    "fold",
    "unlabelled",
    "strong",
    "pack",
    "test_generations",
    "label_words",
)  # keys of the data of a finetuning
LOADING = ("batch_size", "augment", *LABELS, *BLOCKS)


def build(node: DictConfig, **facts: Any) -> Any:
    """Build the object of a config node, with run-time values as additional arguments."""
    return build_function(node)(**facts)


def check_targets(node: Any, place: str = "") -> None:
    """Import all targets in a config.

    Raises:
        UserError: a target cannot be imported, or has another base class than its group requires.
    """
    if isinstance(node, DictConfig):
        if "_target_" in node:
            *_, group, name = ["", *place.split(".")]
            found, kind = target_of(node, place), KINDS.get(name) or SEVERAL.get(group) or INNER.get(group)
            if kind is not None and not (isinstance(found, type) and issubclass(found, kind)):
                base = f"{kind.__module__}.{kind.__name__}"
                raise UserError(f"{place}._target_={node['_target_']}: must be a class that inherits from {base}")
        for key in node:
            check_targets(node[key], f"{place}.{key}" if place else str(key))


def short_name(node: DictConfig) -> str:
    """Return the name of a component in overrides: the name of its yaml, usually that of its module."""
    return TARGETS.get(node._target_) or node._target_.split(".")[-2]


def build_source(config: DictConfig) -> Source:
    """Build the source of `data`, without the keys of the data module."""
    return build(source_node(config))


def source_node(config: DictConfig) -> DictConfig:
    """Return the node of `data` without the keys of the data module."""
    own = OmegaConf.to_container(config.data, resolve=True)
    partial = {name: {"_partial_": True} for name in own.get("sources", {})}  # built by the component that contains it
    loading = ("batch_size", "augment", *(BLOCKS if config.stage == "pretrain" else LABELS))
    return without(merged(own, {"sources": partial} if partial else {}), loading)


def sources_of(data: DictConfig) -> dict[str, DictConfig]:
    """Return the nodes of the data sets in `data` by name: several, or `data` itself."""
    return dict(data.sources) if "sources" in data else {short_name(data): data}


def source_type(data: DictConfig) -> type:
    """Return the source class that determines the modality: the first, if there are several data sets."""
    return get_object(next(iter(sources_of(data).values()))._target_)


def task_data(
    config: DictConfig,
    preprocessor: Preprocessor | None = None,
    source: Source | None = None,
    unlabelled: bool = False,
) -> TaskDataModule:
    """Return the data module of a finetuning config, not prepared.

    Args:
        config: has data, objective and the root seed, from which the seeds of subset and order are derived.
        preprocessor: that of the pretraining, if any.
        source: the data set, if it is already built.
        unlabelled: whether to add unlabelled rows to the training batches.
    """
    return TaskDataModule(
        source or build_source(config),
        get_object(config.objective._target_).target,
        config.data.batch_size,
        derive_seed(config.seed, "order"),
        preprocessor,
        labels_per_class=config.data.labels_per_class,
        label_fraction=config.data.label_fraction,
        subset_seed=derive_seed(config.seed, "subset"),
        folds=config.data.get("folds"),
        fold=config.data.get("fold", 0),
        fold_seed=derive_seed(config.seed, "folds"),
        unlabelled_seed=derive_seed(config.seed, "unlabelled") if unlabelled else None,
        pack=packs_rows(config),
    )


def packs_rows(config: DictConfig) -> bool:
    """Return data.pack of a finetuning config.

    Raises:
        UserError: it is not true or false.
    """
    pack = config.data.get("pack")
    if pack is not None and not isinstance(pack, bool):
        raise UserError(
            f"data.pack={pack}: must be true or false in a finetuning, whose blocks have data.tokenizer.context tokens"
        )
    return bool(pack)


def generic_data(
    config: DictConfig, preprocessor: Preprocessor | None = None, source: Source | None = None
) -> GenericDataModule:
    """Return the data module of a pretraining config, not prepared; see `task_data`."""
    return GenericDataModule(
        source or build_source(config),
        get_object(config.objective._target_).target,
        config.data.batch_size,
        derive_seed(config.seed, "order"),
        preprocessor,
        pack=config.data.pack,
        separate=config.data.separate,
    )


def data_module(
    config: DictConfig, preprocessor: Preprocessor | None = None, source: Source | None = None
) -> MemoryDataModule:
    """Return the data module of a training config, not prepared: `generic_data` for a pretraining, else `task_data`."""
    if config.stage == "pretrain":
        return generic_data(config, preprocessor, source)
    return task_data(config, preprocessor, source, bool(config.data.get("unlabelled")))


def build_transforms(config: DictConfig, group: str = "augment") -> dict[str, Transform]:
    """Build the transforms of `data.augment` or `data.strong` by name, in the order of the config.

    Raises:
        UserError: there is no such transform, or a setting is invalid.
    """
    found = {}
    for name, node in config.data.get(group, {}).items():
        place = f"data.{group}.{name}"
        if not (isinstance(node, DictConfig) and "_target_" in node):
            raise UserError(f"{place}={shown(node)}: choose transforms with {override_of(group)}=[NAME,...]")
        found[name] = build_function(node, place)()
    return found


def override_of(group: str) -> str:
    """Return the override that chooses the transforms of `data.augment` or `data.strong`."""
    return "data/augment" if group == "augment" else f"data/augment@data.{group}"


def build_augment(config: DictConfig, preprocessor: Preprocessor, group: str = "augment") -> Augment:
    """Build the scaling of the preprocessor and the transforms of `data.augment` or `data.strong`."""
    return Augment(preprocessor, build_transforms(config, group), override_of(group))


def build_loss(config: DictConfig) -> LossFunction:
    """Return the chosen loss, or the default loss of the objective."""
    if config.get("loss") is None:
        default = get_object(config.objective._target_).default_loss
        return default[shape_of(config.backbone).target_kind] if isinstance(default, Mapping) else default
    return build_function(config.loss)


def build_function(node: DictConfig, place: str | None = None) -> Callable[..., Any]:
    """Return the partial function or class of a node.

    Hydra's partial imports its target at every call, which takes 0.15 ms, three times a step. Building a partial takes
    1 ms, several times a run, so that those with plain settings are cached.
    """
    key = repr(OmegaConf.to_container(node, resolve=True))
    if key in _built:
        return _built[key]
    home = node._target_.split(".")
    if place is None:
        place = GROUPS.get(".".join(home[1:3]), home[1]) if home[0] == "warmstart" else "optimizer"
    target_of(node, place)
    _check_inner(node, place)
    partial = instantiate(node, _partial_=True, _convert_="all")
    check_settings(partial.func, partial.keywords, place, is_complete=home[0] in ("warmstart", "torch"))
    function = functools.partial(partial.func, *partial.args, **partial.keywords)
    if key.count("'_target_'") == 1:
        _built[key] = function
    return function


def build_several(chosen: DictConfig, group: str, **facts: Any) -> list[Any]:
    """Build the objects of a group in SEVERAL, each with the run-time values that it accepts.

    Raises:
        UserError: a setting is unknown, or an object cannot be built on this machine.
    """
    built = []
    for name, make in bind_several(chosen, group).items():
        taken = inspect.signature(make.func).parameters.keys() & facts.keys()
        try:
            built.append(make(**{fact: facts[fact] for fact in taken}))
        except (ImportError, MisconfigurationException, TypeError, ValueError) as error:
            reason = str(error).strip() or type(error).__name__
            raise UserError(f"{group}.{name}: {reason.splitlines()[0]}") from error
    return built


def bind_several(chosen: DictConfig, group: str) -> dict[str, functools.partial]:
    """Return the partial classes of a group in SEVERAL, by name."""
    bound = {}
    for name, node in chosen.items():
        bound[name] = instantiate(node, _partial_=True, _convert_="all")
        check_settings(bound[name].func, bound[name].keywords, f"{group}.{name}", is_complete=False)
    return bound


def _check_inner(node: DictConfig, place: str) -> None:
    """Check the settings of nested components, which Hydra builds."""
    for name in node:
        inner, where = node[name], f"{place}.{name}"
        if not isinstance(inner, DictConfig):
            continue
        if "_target_" in inner and "_partial_" not in inner:
            own = OmegaConf.to_container(inner, resolve=True)
            settings = {key: value for key, value in own.items() if not key.startswith("_")}
            check_settings(target_of(inner, where), settings, where, is_complete=False)
        _check_inner(inner, where)


def build_seeded(node: DictConfig, root: int, name: str, **facts: Any) -> Any:
    """Build a module whose initial weights depend only on (root, name)."""
    torch.default_generator.manual_seed(derive_seed(root, name))
    try:
        return build(node, **facts)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        raise UserError(f"{name}={short_name(node)}: not enough memory: make it smaller") from error


def selects_strategy(config: DictConfig) -> bool:
    """Return whether the strategy selects another one."""
    return get_object(config.strategy._target_).selects_strategy


def choices_to_repeat(config: DictConfig) -> list[str]:
    """Return the overrides of backbone and data on this command line, to repeat them in the finetuning command.

    Data overrides are omitted if the experiment finetunes on another data set.
    """
    if not HydraConfig.initialized():
        return []
    loading = ("data/augment", *(f"data.{key}" for key in LOADING))
    overrides = HydraConfig.get().overrides.task
    is_same = compose_file(f"experiment/{config.experiment}/finetune").data._target_ == config.data._target_
    kept = (
        ("data", "backbone")
        if is_same or any(override.startswith("data=") for override in overrides)
        else ("backbone",)
    )
    plain = {override: override.lstrip("+") for override in overrides}
    return [name for name in overrides if plain[name].startswith(kept) and not plain[name].startswith(loading)]


def shape_of(backbone: DictConfig) -> type:
    """Return the class that declares the inputs and targets of a backbone: its stem, if it has one."""
    return get_object((backbone.stem if "stem" in backbone else backbone)._target_)
