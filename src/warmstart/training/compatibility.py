"""Parts that do not fit each other are refused, in a line that names both and what would fit."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from warmstart.core.errors import UserError
from warmstart.core.protocols import Preprocessor
from warmstart.data.transforms.augment import Augment
from warmstart.training.components import build_function, build_loss, shape_of, short_name, source_node, source_type
from warmstart.training.trainer import build_trainer

ABLE = {
    "hide": "can hide positions",
    "skip": "can leave positions out",
    "causal": "sees earlier positions only (backbone.causal=true)",
}


def check_fit(config: DictConfig) -> None:
    """Refuse parts that do not fit each other, before any data is read.

    Raises:
        UserError: names both parts and what would fit.
    """
    settled = ("backbone", "objective", "loss", "optimizer", "scheduler", "strategy", "average")
    for node in (source_node(config), *(config[part] for part in settled if config.get(part) is not None)):
        build_function(node)
    check_built(config)
    source, objective = source_type(config.data), get_object(config.objective._target_)
    offers = get_object(config.data._target_).offers
    names = {part: short_name(config[part]) for part in ("data", "objective", "backbone")}
    accepted = shape_of(config.backbone).modalities
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
    if "strategy" in config and objective.monitor is None:
        raise UserError(
            f"objective={names['objective']} is for pretraining, it predicts no target of a task: "
            f"choose {_or(_options('objective', _is_supervised))}"
        )
    predicts = objective.predicts or shape_of(config.backbone).target_kind
    made_of = shape_of(config.backbone).target_kind
    rebuilds = objective.needs or (objective.target is None and predicts == "value" and objective.views == 1)
    if (objective.made_of or predicts) != made_of and rebuilds:
        words = {"value": "values", "category": "names"}
        raise UserError(
            f"objective={names['objective']} predicts {words[predicts]}, and data={names['data']}, which is "
            f"{source.modality}, is made of {words[made_of]}"
        )
    if objective.target is not None and objective.target not in offers:
        raise UserError(
            f"objective={names['objective']} needs targets of kind {objective.target}, "
            f"but data={names['data']} offers {' and '.join(sorted(offers)) or 'none'}"
        )
    changes = OmegaConf.to_container(config.data.augment, resolve=True)
    augment = Augment(Preprocessor(), source.modality, **changes)
    if augment.side and shape_of(config.backbone).one_size:
        raise UserError(
            f"data.augment.side={augment.side}: backbone={names['backbone']} has positions for one size only: "
            "set data.augment.side=0, or choose a backbone without positions, such as backbone=resnet"
        )
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


@contextlib.contextmanager
def naming(section: DictConfig, place: str) -> Iterator[None]:
    """Inside, an error that begins with a setting of this section of the config names where the section is.

    Args:
        section: of a transfer's config, which may have settings in common with others by interpolation.
        place: of the section, with a dot at its end.
    """
    try:
        yield
    except UserError as error:
        found = re.match(r"[a-z]\w*(\.\w+)*", str(error))
        node = OmegaConf.to_container(section)
        for name in found[0].split(".") if found else [""]:
            node = node.get(name) if isinstance(node, dict) else None
        if node is None or str(node).startswith("${"):
            raise
        raise UserError(f"{place}{error}") from error


def check_built(config: DictConfig) -> None:
    """Build the parts that need no data, since a constructor refuses settings that do not go together.

    Raises:
        UserError: one cannot be built, or this machine has not what it asks for.
    """
    if "strategy" in config:
        build_function(config.strategy)()
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(2, 2))], "hidden": False}]
    try:
        build_function(config.optimizer)(parameters)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"optimizer: {str(error).splitlines()[0]}") from error
    check_trainer(OmegaConf.to_yaml(config.trainer, resolve=True))


@functools.lru_cache(maxsize=64)
def check_trainer(settings: str) -> None:
    """Build a Trainer from the `trainer` group as YAML, which refuses what Lightning or this machine cannot do."""
    build_trainer(OmegaConf.create(settings), Path(), None, [])


def _or(names: list[str]) -> str:
    return " or ".join(names) if names else "another combination"


def _options(group: str, fits: Callable[[DictConfig], bool]) -> list[str]:
    """The options of a config group that fit, as they are typed."""
    loader = GlobalHydra.instance().config_loader()
    names = loader.get_group_options(group, ObjectType.CONFIG)
    return [f"{group}={name}" for name in names if fits(compose(f"{group}/{name}")[group])]


def _backbones(modality: str, needs: frozenset[str] = frozenset()) -> list[str]:
    return _options("backbone", lambda node: modality in shape_of(node).modalities and needs <= _abilities(node))


def _able(config: DictConfig, needs: frozenset[str]) -> list[str]:
    """Backbones that can do what an objective needs, or where the backbone is given, objectives that it can serve."""
    if "architecture" not in config.backbone:
        return _backbones(source_type(config.data).modality, needs)
    able = _abilities(config.backbone)
    return _options("objective", lambda node: frozenset() < get_object(node._target_).needs <= able)


def _is_supervised(node: DictConfig) -> bool:
    return get_object(node._target_).monitor is not None


def _mixes(node: DictConfig) -> bool:
    return get_object(node._target_).mixes


def _losses(kind: str) -> list[str]:
    return _options("loss", lambda node: kind in getattr(get_object(node._target_), "takes", ()))


def _abilities(backbone: DictConfig) -> frozenset[str]:
    """What an objective may ask of a backbone with these settings."""
    found = get_object(backbone._target_).abilities
    return found(**OmegaConf.to_container(backbone)) if callable(found) else found
