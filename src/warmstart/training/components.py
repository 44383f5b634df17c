"""From config nodes to parts: built by their `_target_`, and refused where they do not fit each other."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Callback
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from warmstart.config.rewrite import merged, without
from warmstart.config.signature import check_settings
from warmstart.config.validate import target_of
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone, LossFunction, Objective, Preprocessor, Source, Strategy, Transform
from warmstart.core.ranges import shown
from warmstart.data.datamodule import GenericDataModule, MemoryDataModule, TaskDataModule
from warmstart.data.transforms.augment import Augment
from warmstart.huggingface.resolve import TARGETS
from warmstart.run.identity import derive_seed

_made: dict[str, functools.partial] = {}
GROUPS = {  # of components in packages of another name
    "training.schedule": "scheduler",
    "training.muon": "optimizer",
    **{target.removeprefix("warmstart.").rpartition(".")[0]: "backbone" for target in TARGETS},
}
KINDS = {"data": Source, "backbone": Backbone, "objective": Objective, "strategy": Strategy}
SEVERAL = {"logger": Logger, "visualization": Callback}  # groups of which a config chooses any number of options
INNER = {"augment": Transform}  # such groups inside a component
BLOCKS = ("pack", "separate")  # of a pretraining's rows
LABELS = ("labels_per_class", "label_fraction", "folds", "fold")  # of a finetuning's
FEEDING = ("batch_size", "augment", *LABELS, *BLOCKS)


def build(node: DictConfig, **facts: Any) -> Any:
    """The object that a config node describes, with run-time facts as further arguments."""
    return build_function(node)(**facts)


def check_targets(node: Any, place: str = "") -> None:
    """Import what each `_target_` inside a config names.

    Raises:
        UserError: there is no such class or function, or a component is not of its kind.
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
    """The word that chooses a component on the command line: the name of its yaml, mostly that of its module."""
    return TARGETS.get(node._target_) or node._target_.split(".")[-2]


def build_source(config: DictConfig) -> Source:
    """The source of `data`; the keys that say how it is fed are the data module's."""
    return build(source_node(config))


def source_node(config: DictConfig) -> DictConfig:
    """The node of `data` without the keys that are the data module's."""
    own = OmegaConf.to_container(config.data, resolve=True)
    partial = {name: {"_partial_": True} for name in own.get("sources", {})}  # the one that holds it makes it
    feeding = ("batch_size", "augment", *(BLOCKS if config.stage == "pretrain" else LABELS))
    return without(merged(own, {"sources": partial} if partial else {}), feeding)


def sources_of(data: DictConfig) -> dict[str, DictConfig]:
    """The nodes of the data sets in `data`, by name: of those that it holds, or its own."""
    return dict(data.sources) if "sources" in data else {short_name(data): data}


def source_type(data: DictConfig) -> type:
    """The class that says of what modality the rows are: of several data sets, that of the first."""
    return get_object(next(iter(sources_of(data).values()))._target_)


def task_data(
    config: DictConfig, preprocessor: Preprocessor | None = None, source: Source | None = None
) -> TaskDataModule:
    """The labelled rows of a finetuning config, to be prepared.

    Args:
        config: with data, objective and the root seed, from which those of subset and order are derived.
        preprocessor: the one that the pretraining used, if there was one.
        source: the data set, if it is built already.
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
    )


def generic_data(
    config: DictConfig, preprocessor: Preprocessor | None = None, source: Source | None = None
) -> GenericDataModule:
    """The rows of a pretraining config, to be prepared; see `task_data`."""
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
    """The rows of a config, to be prepared: all of them for a pretraining, else the labelled ones; see `task_data`."""
    return (generic_data if config.stage == "pretrain" else task_data)(config, preprocessor, source)


def build_transforms(config: DictConfig) -> dict[str, Transform]:
    """The transforms of `data.augment`, by name, in the config's order.

    Raises:
        UserError: there is no such transform, or a setting of one cannot be.
    """
    found = {}
    for name, node in config.data.augment.items():
        place = f"data.augment.{name}"
        if not (isinstance(node, DictConfig) and "_target_" in node):
            raise UserError(f"{place}={shown(node)}: transforms are chosen by data/augment=[NAME,...]")
        found[name] = build_function(node, place)()
    return found


def build_augment(config: DictConfig, preprocessor: Preprocessor) -> Augment:
    """The preprocessor's scaling, and the transforms of `data.augment`."""
    return Augment(preprocessor, build_transforms(config))


def build_loss(config: DictConfig) -> LossFunction:
    """The chosen loss, or the objective's own."""
    if config.get("loss") is None:
        default = get_object(config.objective._target_).default_loss
        return default[shape_of(config.backbone).target_kind] if isinstance(default, Mapping) else default
    return build_function(config.loss)


def build_function(node: DictConfig, place: str | None = None) -> Callable[..., Any]:
    """A function or class with its settings filled in, to be called later.

    Hydra's own partial checks its target anew at every call, which costs 0.15 ms, three times a step. Making one costs
    1 ms, half a dozen times a run, so that one with plain settings is made once.
    """
    key = repr(OmegaConf.to_container(node, resolve=True))
    if key in _made:
        return _made[key]
    home = node._target_.split(".")
    if place is None:
        place = GROUPS.get(".".join(home[1:3]), home[1]) if home[0] == "warmstart" else "optimizer"
    target_of(node, place)
    _check_inner(node, place)
    made = instantiate(node, _partial_=True, _convert_="all")
    check_settings(made.func, made.keywords, place, is_complete=home[0] in ("warmstart", "torch"))
    function = functools.partial(made.func, *made.args, **made.keywords)
    if key.count("'_target_'") == 1:
        _made[key] = function
    return function


def build_several(chosen: DictConfig, group: str, **facts: Any) -> list[Any]:
    """The objects that the nodes of a group in SEVERAL describe, each with those run-time facts that it takes.

    Raises:
        UserError: one of them has no such setting, or cannot be built on this machine.
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
    """The classes of the nodes of a group in SEVERAL with their settings, by name."""
    bound = {}
    for name, node in chosen.items():
        bound[name] = instantiate(node, _partial_=True, _convert_="all")
        check_settings(bound[name].func, bound[name].keywords, f"{group}.{name}", is_complete=False)
    return bound


def _check_inner(node: DictConfig, place: str) -> None:
    """Check the settings of the components that Hydra builds for the one that holds them."""
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
    """A module whose initial weights depend on (root, name) alone, whatever was drawn before."""
    torch.default_generator.manual_seed(derive_seed(root, name))
    try:
        return build(node, **facts)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        raise UserError(
            f"{name}={short_name(node)}: this machine has not enough memory for it: make it smaller"
        ) from error


def selects_strategy(config: DictConfig) -> bool:
    """Whether the strategy claims no parameters, but chooses one that does."""
    return get_object(config.strategy._target_).selects_strategy


def choices_to_repeat(config: DictConfig) -> list[str]:
    """The words of this command line that choose backbone and data, for the finetuning to type next.

    Those about data are left out where the experiment finetunes on another data set.
    """
    if not HydraConfig.initialized():
        return []
    feeding = ("data/augment", *(f"data.{key}" for key in FEEDING))
    words = HydraConfig.get().overrides.task
    is_same = compose(f"experiment/{config.experiment}/finetune").data._target_ == config.data._target_
    kept = ("data", "backbone") if is_same or any(word.startswith("data=") for word in words) else ("backbone",)
    plain = {word: word.lstrip("+") for word in words}
    return [word for word in words if plain[word].startswith(kept) and not plain[word].startswith(feeding)]


def shape_of(backbone: DictConfig) -> type:
    """The class that says what a backbone takes and rebuilds: that of its stem, where it has one."""
    return get_object((backbone.stem if "stem" in backbone else backbone)._target_)
