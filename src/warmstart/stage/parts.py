"""From config nodes to parts: built by their `_target_`, and refused where they do not fit each other."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from warmstart.contracts import LossFunction, Preprocessor, Source, UserError
from warmstart.data.augment import Augment
from warmstart.data.module import GenericDataModule, TaskDataModule
from warmstart.run.identity import derive_seed
from warmstart.stage.signature import check_settings

_made: dict[str, functools.partial] = {}
FEEDING = ("batch_size", "augment", "labels_per_class", "label_fraction", "pack", "separate")
ABLE = {
    "hide": "can hide positions",
    "skip": "can leave positions out",
    "causal": "sees earlier positions only (backbone.causal=true)",
}


def build(node: DictConfig, **facts: Any) -> Any:
    """The object that a config node describes, with run-time facts as further arguments."""
    return build_function(node)(**facts)


def short_name(node: DictConfig) -> str:
    """The word that chooses a part on the command line: its module's name."""
    return node._target_.split(".")[-2]


def build_source(config: DictConfig) -> Source:
    """The source of `data`; the keys that say how it is fed are the data module's."""
    return build(source_node(config))


def source_node(config: DictConfig) -> DictConfig:
    """The node of `data` without the keys that are the data module's."""
    own = OmegaConf.to_container(config.data, resolve=True)
    return OmegaConf.create({key: value for key, value in own.items() if key not in FEEDING})


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


def build_augment(config: DictConfig, preprocessor: Preprocessor) -> Augment:
    """The preprocessor's scaling, and the augmentation that `data.augment` describes."""
    modality = get_object(config.data._target_).modality
    return Augment(preprocessor, modality, **OmegaConf.to_container(config.data.augment, resolve=True))


def build_loss(config: DictConfig) -> LossFunction:
    """The chosen loss, or the objective's own."""
    if config.get("loss") is None:
        default = get_object(config.objective._target_).default_loss
        return default[_shape(config.backbone).target_kind] if isinstance(default, Mapping) else default
    return build_function(config.loss)


def build_function(node: DictConfig) -> Callable[..., Any]:
    """A function or class with its settings filled in, to be called later.

    Hydra's own partial checks its target anew at every call, which costs 0.15 ms, three times a step. Making one costs
    1 ms, half a dozen times a run, so that one with plain settings is made once.
    """
    key = repr(OmegaConf.to_container(node, resolve=True))
    if key in _made:
        return _made[key]
    made = instantiate(node, _partial_=True, _convert_="all")
    home = node._target_.split(".")
    check_settings(made.func, made.keywords, home[1] if home[0] == "warmstart" else node._target_)
    function = functools.partial(made.func, *made.args, **made.keywords)
    if key.count("'_target_'") == 1:
        _made[key] = function
    return function


def build_seeded(node: DictConfig, root: int, name: str, **facts: Any) -> Any:
    """A module whose initial weights depend on (root, name) alone, whatever was drawn before."""
    torch.default_generator.manual_seed(derive_seed(root, name))
    return build(node, **facts)


def choices_to_repeat(config: DictConfig) -> list[str]:
    """The words of this command line that choose backbone and data, for the finetuning to type next.

    Those about data are left out where the experiment finetunes on another data set.
    """
    if not HydraConfig.initialized():
        return []
    feeding = tuple(f"data.{key}" for key in FEEDING)
    words = HydraConfig.get().overrides.task
    is_same = compose(f"experiment/{config.experiment}/finetune").data._target_ == config.data._target_
    kept = ("data", "backbone") if is_same or any(word.startswith("data=") for word in words) else ("backbone",)
    return [word for word in words if word.startswith(kept) and not word.startswith(feeding)]


def check_fit(config: DictConfig) -> None:
    """Refuse parts that do not fit each other, before any data is read.

    Raises:
        UserError: names both parts and what would fit.
    """
    settled = ("backbone", "objective", "optimizer", "scheduler", "average")
    for node in (source_node(config), *(config[part] for part in settled if part in config)):
        build_function(node)
    source, objective = (get_object(config[part]._target_) for part in ("data", "objective"))
    names = {part: short_name(config[part]) for part in ("data", "objective", "backbone")}
    accepted = _shape(config.backbone).modalities
    if source.modality not in accepted:
        raise UserError(
            f"backbone={names['backbone']} takes {' and '.join(sorted(accepted))}, "
            f"but data={names['data']} is {source.modality}: choose {_or(_backbones(source.modality))}"
        )
    if not objective.needs <= _abilities(config.backbone):
        raise UserError(
            f"objective={names['objective']} needs a backbone that {' and '.join(ABLE[n] for n in objective.needs)}, "
            f"which this backbone={names['backbone']} does not: choose {_or(_able(config, objective.needs))}"
        )
    if "strategy" in config and not hasattr(objective, "predict"):
        raise UserError(
            f"objective={names['objective']} is for pretraining, it predicts no target of a task: "
            f"choose {_or(_options('objective', _is_supervised))}"
        )
    predicts = objective.predicts or _shape(config.backbone).target_kind
    made_of = getattr(_shape(config.backbone), "target_kind", "value")
    rebuilds = objective.needs or (objective.target is None and predicts == "value" and objective.views == 1)
    if getattr(objective, "made_of", predicts) != made_of and rebuilds:
        words = {"value": "values", "category": "names"}
        raise UserError(
            f"objective={names['objective']} predicts {words[predicts]}, and data={names['data']}, which is "
            f"{source.modality}, is made of {words[made_of]}"
        )
    if objective.target is not None and objective.target not in source.offers:
        raise UserError(
            f"objective={names['objective']} needs targets of kind {objective.target}, "
            f"but data={names['data']} offers {' and '.join(sorted(source.offers)) or 'none'}"
        )
    changes = OmegaConf.to_container(config.data.augment, resolve=True)
    augment = Augment(lambda x: x, source.modality, **changes)
    if augment.mixing and not _mixes(config.objective):
        raise UserError(
            f"{augment.mixing} mixes targets, which objective={names['objective']} cannot: "
            f"set it to 0, or choose {_or(_options('objective', _mixes))}"
        )
    if objective.views > 1 and augment.changes_nothing:
        raise UserError(
            f"objective={names['objective']} compares changed copies, and data.augment changes nothing: "
            f"set one of data.augment.{', data.augment.'.join(name for name in changes if name not in Augment.MIXING)}"
        )
    if objective.views > 1 and config.data.batch_size < 2:
        raise UserError(f"objective={names['objective']} compares examples: data.batch_size must be 2 or more")
    loss = build_loss(config)
    kinds = getattr(loss.func if isinstance(loss, functools.partial) else loss, "takes", frozenset())
    if predicts not in kinds:
        raise UserError(
            f"loss={short_name(config.loss)} does not fit objective={names['objective']}: "
            f"choose {_or(_losses(predicts))}"
        )


def _or(names: list[str]) -> str:
    return " or ".join(names) if names else "another combination"


def _options(group: str, fits: Callable[[DictConfig], bool]) -> list[str]:
    """The options of a config group that fit, as they are typed."""
    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options(group, ObjectType.CONFIG)
    return [f"{group}={name}" for name in names if fits(compose(f"{group}/{name}")[group])]


def _backbones(modality: str, needs: frozenset[str] = frozenset()) -> list[str]:
    return _options("backbone", lambda node: modality in _shape(node).modalities and needs <= _abilities(node))


def _able(config: DictConfig, needs: frozenset[str]) -> list[str]:
    """Backbones that can do what an objective needs, or where the backbone is given, objectives that it can serve."""
    if "architecture" not in config.backbone:
        return _backbones(get_object(config.data._target_).modality, needs)
    able = _abilities(config.backbone)
    return _options("objective", lambda node: frozenset() < get_object(node._target_).needs <= able)


def _is_supervised(node: DictConfig) -> bool:
    return hasattr(get_object(node._target_), "predict")


def _mixes(node: DictConfig) -> bool:
    return getattr(get_object(node._target_), "mixes", False)


def _losses(kind: str) -> list[str]:
    return _options("loss", lambda node: kind in getattr(get_object(node._target_), "takes", ()))


def _shape(backbone: DictConfig) -> type:
    """The class that says what a backbone takes and rebuilds: that of its stem, where it has one."""
    return get_object((backbone.stem if "stem" in backbone else backbone)._target_)


def _abilities(backbone: DictConfig) -> frozenset[str]:
    """What an objective may ask of a backbone with these settings."""
    found = get_object(backbone._target_).abilities
    return found(**OmegaConf.to_container(backbone)) if callable(found) else found
