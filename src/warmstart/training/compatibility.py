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
from warmstart.core.protocols import Objective, taken
from warmstart.data.transforms.mixing import Mixing
from warmstart.training.components import (
    SEVERAL,
    bind_several,
    build_function,
    build_loss,
    build_transforms,
    shape_of,
    short_name,
    source_node,
    source_type,
)
from warmstart.training.trainer import build_trainer

ABLE = {
    "hide": "can hide positions",
    "skip": "can leave positions out",
    "causal": "sees earlier positions only (backbone.causal=true)",
}


class Parts:
    """The chosen parts: their classes, which declare what they need and can, and `said`, how each is typed."""

    def __init__(self, config: DictConfig):
        self.config = config
        self.source, self.shape = source_type(config.data), shape_of(config.backbone)
        self.objective: type[Objective] = get_object(config.objective._target_)
        self.said = {part: f"{part}={short_name(config[part])}" for part in ("data", "objective", "backbone")}
        self.predicts = self.objective.predicts or self.shape.target_kind
        self.transforms = build_transforms(config)


def takes_the_data(parts: Parts) -> str | None:
    """The backbone is for data of this modality."""
    modality, accepted = parts.source.modality, parts.shape.modalities
    if modality in accepted:
        return None
    return (
        f"{parts.said['backbone']} takes {' and '.join(sorted(accepted))}, "
        f"but {parts.said['data']} is {modality}: choose {_or(_backbones(modality))}"
    )


def transforms_take_the_data(parts: Parts) -> str | None:
    """Each transform is for data of this modality."""
    modality = parts.source.modality
    for name, transform in parts.transforms.items():
        if modality not in transform.inputs:
            return (
                f"data/augment={name} is for {' and '.join(sorted(transform.inputs))}, "
                f"but {parts.said['data']} is {modality}: choose {_or(_transforms(modality))}"
            )
    return None


def does_what_is_needed(parts: Parts) -> str | None:
    """The backbone can do what the objective asks of it."""
    needs = parts.objective.needs
    if needs <= _abilities(parts.config.backbone):
        return None
    return (
        f"{parts.said['objective']} needs a backbone that {' and '.join(ABLE[n] for n in needs)}, "
        f"which this {parts.said['backbone']} does not: choose {_or(_able(parts.config, needs))}"
    )


def is_for_tasks(parts: Parts) -> str | None:
    """What is finetuned predicts."""
    if "strategy" not in parts.config or parts.objective.monitor is not None:
        return None
    return (
        f"{parts.said['objective']} is for pretraining, it predicts no target of a task: "
        f"choose {_or(_options('objective', lambda node: get_object(node._target_).monitor is not None))}"
    )


def rebuilds_what_data_is_made_of(parts: Parts) -> str | None:
    """An objective that rebuilds inputs predicts values of values, and names of names."""
    objective, made_of = parts.objective, parts.shape.target_kind
    rebuilds = objective.needs or (objective.target is None and parts.predicts == "value" and objective.views == 1)
    if not rebuilds or (objective.made_of or parts.predicts) == made_of:
        return None
    words = {"value": "values", "category": "names"}
    return (
        f"{parts.said['objective']} predicts {words[parts.predicts]}, and {parts.said['data']}, which is "
        f"{parts.source.modality}, is made of {words[made_of]}"
    )


def has_targets(parts: Parts) -> str | None:
    """The data has targets of the objective's kind."""
    target, offers = parts.objective.target, get_object(parts.config.data._target_).offers
    if target is None or target in offers:
        return None
    return (
        f"{parts.said['objective']} needs targets of kind {target}, "
        f"but {parts.said['data']} offers {' and '.join(sorted(offers)) or 'none'}"
    )


def takes_other_sizes(parts: Parts) -> str | None:
    """Only a backbone that is not of one size gets images of another."""
    name, size = next(((name, found.size) for name, found in parts.transforms.items() if found.size), (None, None))
    if not (size and parts.shape.one_size):
        return None
    return (
        f"data.augment.{name}.size={size}: {parts.said['backbone']} has positions for one size only: "
        f"set data.augment.{name}.size=null, or choose a backbone without positions, such as backbone=resnet"
    )


def takes_mixed_targets(parts: Parts) -> str | None:
    """Only an objective that mixes gets mixed targets."""
    name = next((name for name, transform in parts.transforms.items() if isinstance(transform, Mixing)), None)
    if name is None or parts.objective.mixes:
        return None
    return (
        f"data/augment={name} mixes targets, which {parts.said['objective']} cannot: "
        f"leave it out, or choose {_or(_options('objective', lambda node: get_object(node._target_).mixes))}"
    )


def has_changed_copies(parts: Parts) -> str | None:
    """Views are changed."""
    if parts.objective.views == 1 or any(not isinstance(found, Mixing) for found in parts.transforms.values()):
        return None
    return (
        f"{parts.said['objective']} compares changed copies, and data.augment changes nothing: "
        f"choose {_or(_transforms(parts.source.modality, mixes=False))}"
    )


def has_others_to_compare(parts: Parts) -> str | None:
    """Views of an example have others beside them."""
    if parts.objective.views == 1 or parts.config.data.batch_size >= 2:
        return None
    return f"{parts.said['objective']} compares examples: data.batch_size must be 2 or more"


def loss_takes_what_is_predicted(parts: Parts) -> str | None:
    """The loss is for predictions of this kind."""
    loss = build_loss(parts.config)
    if parts.predicts in taken(loss.func if isinstance(loss, functools.partial) else loss):
        return None
    fitting = _options("loss", lambda node: parts.predicts in taken(get_object(node._target_)))
    return f"loss={short_name(parts.config.loss)} does not fit {parts.said['objective']}: choose {_or(fitting)}"


RULES: tuple[Callable[[Parts], str | None], ...] = (  # what does not fit, in words, is said by the first that is broken
    takes_the_data,
    transforms_take_the_data,
    does_what_is_needed,
    is_for_tasks,
    rebuilds_what_data_is_made_of,
    has_targets,
    takes_other_sizes,
    takes_mixed_targets,
    has_changed_copies,
    has_others_to_compare,
    loss_takes_what_is_predicted,
)


def check_fit(config: DictConfig) -> None:
    """Refuse parts that do not fit each other, before any data is read.

    Raises:
        UserError: names both parts and what would fit.
    """
    settled = ("backbone", "objective", "loss", "optimizer", "scheduler", "strategy", "average")
    for node in (source_node(config), *(config[part] for part in settled if config.get(part) is not None)):
        build_function(node)
    for group in SEVERAL:
        bind_several(config[group], group)
    check_built(config)
    parts = Parts(config)
    for rule in RULES:
        wrong = rule(parts)
        if wrong is not None:
            raise UserError(wrong)


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
    names, place = loader.get_group_options(group, ObjectType.CONFIG), group.replace("/", ".")
    return [f"{group}={name}" for name in names if fits(OmegaConf.select(compose(f"{group}/{name}"), place))]


def _backbones(modality: str, needs: frozenset[str] = frozenset()) -> list[str]:
    return _options("backbone", lambda node: modality in shape_of(node).modalities and needs <= _abilities(node))


def _transforms(modality: str, mixes: bool = True) -> list[str]:
    """Options of data/augment for data of this modality."""

    def fits(node: DictConfig) -> bool:
        kinds = [get_object(inner._target_) for inner in node.values()]
        return bool(kinds) and all(modality in kind.inputs and mixes >= issubclass(kind, Mixing) for kind in kinds)

    return _options("data/augment", fits)


def _able(config: DictConfig, needs: frozenset[str]) -> list[str]:
    """Backbones that can do what an objective needs, or where the backbone is given, objectives that it can serve."""
    if "architecture" not in config.backbone:
        return _backbones(source_type(config.data).modality, needs)
    able = _abilities(config.backbone)
    return _options("objective", lambda node: frozenset() < get_object(node._target_).needs <= able)


def _abilities(backbone: DictConfig) -> frozenset[str]:
    """What an objective may ask of a backbone with these settings."""
    found = get_object(backbone._target_).abilities
    return found(**OmegaConf.to_container(backbone)) if callable(found) else found
