"""Checks that the chosen components are compatible; a message names both components and compatible options."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from warmstart.config.options import compose_file, option_names
from warmstart.core.errors import UserError
from warmstart.core.init import PATCHES, Init
from warmstart.core.protocols import Objective, accepted_predictions, generates
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
    "skip": "can skip positions",
    "causal": "has causal attention (backbone.causal=true)",
    "token_embedding": "embeds tokens of a vocabulary",
    "decode": "has a decoder",
}


class Components:
    """The classes of the chosen components, which declare requirements and abilities, and their overrides as text."""

    def __init__(self, config: DictConfig):
        self.config = config
        self.source, self.shape = source_type(config.data), shape_of(config.backbone)
        self.objective: type[Objective] = get_object(config.objective._target_)
        self.overrides = {name: f"{name}={short_name(config[name])}" for name in ("data", "objective", "backbone")}
        self.predicts = self.objective.predicts or self.shape.target_kind
        self.transforms, self.strong = build_transforms(config), build_transforms(config, "strong")


def supports_modality(components: Components) -> str | None:
    """Check that the backbone supports the modality of the data."""
    modality, accepted = components.source.modality, components.shape.modalities
    if modality in accepted:
        return None
    return (
        f"{components.overrides['backbone']} takes {' and '.join(sorted(accepted))}, "
        f"but {components.overrides['data']} is {modality}: choose {_or(_backbones(modality))}"
    )


def transforms_support_modality(components: Components) -> str | None:
    """Check that all transforms support the modality of the data."""
    modality = components.source.modality
    for name, transform in components.transforms.items():
        if modality not in transform.inputs:
            return (
                f"data/augment={name} is for {' and '.join(sorted(transform.inputs))}, "
                f"but {components.overrides['data']} is {modality}: choose {_or(_transforms(modality))}"
            )
    return None


def has_abilities(components: Components) -> str | None:
    """Check that the backbone has the abilities that the objective needs."""
    needs = components.objective.needs
    if needs <= abilities_of(components.config.backbone):
        return None
    return (
        f"{components.overrides['objective']} needs a backbone that {' and '.join(ABLE[n] for n in needs)}, "
        f"unlike this {components.overrides['backbone']}: choose {_or(_able(components.config, needs))}"
    )


def supports_static_start(components: Components) -> str | None:
    """Check that the backbone has the layer that a static `init` sets, and nothing needs training steps."""
    init = Init.parse(str(components.config.get("init", "scratch")))
    if init.kind != "static":
        return None
    if components.config.get("snapshots"):
        return f"snapshots={components.config.snapshots}: init={init} has no training steps: set snapshots=0"
    if (teacher := components.config.get("teacher")) is not None:
        return f"teacher={teacher}: init={init} has no training steps: remove it, or choose another init"
    need, what = (
        ("first_convolution", "the filters of a convolution")
        if init.path == PATCHES
        else ("token_embedding", "the embeddings of a vocabulary")
    )
    if need in abilities_of(components.config.backbone):
        return None
    return (
        f"init={init} sets {what}, but {components.overrides['backbone']} on {components.overrides['data']} has none: "
        "choose another init"
    )


def objective_is_supervised(components: Components) -> str | None:
    """Check that a finetuning has a supervised objective."""
    if "strategy" not in components.config or components.objective.monitor is not None:
        return None
    return (
        f"{components.overrides['objective']} is for pretraining and predicts no target: "
        f"choose {_or(_options('objective', lambda node: get_object(node._target_).monitor is not None))}"
    )


def reconstructs_kind_of_data(components: Components) -> str | None:
    """Check that an objective which reconstructs inputs predicts the kind of value of which they consist."""
    objective, input_kind = components.objective, components.shape.target_kind
    has_own_targets = objective.target is not None or objective.teacher_output is not None
    rebuilds = objective.needs or (not has_own_targets and components.predicts == "value" and objective.views == 1)
    if not rebuilds or (objective.input_kind or components.predicts) == input_kind:
        return None
    kinds = {"value": "continuous values", "category": "categories"}
    return (
        f"{components.overrides['objective']} predicts {kinds[components.predicts]}, "
        f"but {components.overrides['data']}, which is {components.source.modality}, consists of {kinds[input_kind]}"
    )


def has_targets(components: Components) -> str | None:
    """Check that the data has the kind of target that the objective needs."""
    target, kinds = components.objective.target, get_object(components.config.data._target_).target_kinds
    if target is None or target in kinds:
        return None
    return (
        f"{components.overrides['objective']} needs targets of kind {target}, "
        f"but {components.overrides['data']} offers {' and '.join(sorted(kinds)) or 'none'}"
    )


def uses_teacher(components: Components) -> str | None:
    """Check that a teacher is given to an objective that has one, and to no other."""
    teacher, name = components.config.get("teacher"), components.overrides["objective"]
    if components.objective.teacher_output is None and teacher is not None:
        having = _options("objective", lambda node: get_object(node._target_).teacher_output is not None)
        return f"teacher={teacher}: {name} has no teacher: remove it, or choose {_or(having)}"
    if components.objective.teacher_output is not None and teacher is None:
        return f"{name} needs a teacher: set teacher, in a transfer pretrain.teacher, to hf:NAME_OR_DIR or a run folder"
    return None


def encodes_rows(components: Components) -> str | None:
    """Check that rows are not packed into blocks if the objective encodes them one by one."""
    pack, has_teacher = components.config.data.get("pack"), components.objective.teacher_output is not None
    if pack is None or not (has_teacher or components.objective.encodes_rows):
        return None
    what = "one target" if has_teacher else "one vector"
    return f"data.pack={pack}: {components.overrides['objective']} has {what} per row: set data.pack=null"


def supports_image_size(components: Components) -> str | None:
    """Check that the backbone supports the size of resized images."""
    groups = {"data.augment": components.transforms, "data.strong": components.strong}
    sizes = {f"{group}.{name}.size": one.size for group, found in groups.items() for name, one in found.items()}
    key = next((key for key, size in sizes.items() if size), None)
    if key is None or not components.shape.has_fixed_size:
        return None
    return (
        f"{key}={sizes[key]}: {components.overrides['backbone']} has positions for one size only: "
        f"set {key}=null, or choose a backbone without positions, such as backbone=resnet"
    )


def supports_mixed_targets(components: Components) -> str | None:
    """Check that the objective supports mixed targets, if a transform mixes."""
    name = next((name for name, transform in components.transforms.items() if isinstance(transform, Mixing)), None)
    if name is None or components.objective.mixes:
        return None
    return (
        f"data/augment={name} mixes targets, which {components.overrides['objective']} does not support: "
        f"remove it, or choose {_or(_options('objective', lambda node: get_object(node._target_).mixes))}"
    )


def augments_views(components: Components) -> str | None:
    """Check that an objective that compares views has augmentations."""
    if components.objective.views == 1 or any(
        not isinstance(found, Mixing) for found in components.transforms.values()
    ):
        return None
    return (
        f"{components.overrides['objective']} compares augmented views, but data.augment has no augmentation: "
        f"choose {_or(_transforms(components.source.modality, mixes=False))}"
    )


def batch_has_other_examples(components: Components) -> str | None:
    """Check that an objective that compares views has at least two examples per batch."""
    if components.objective.views == 1 or components.config.data.batch_size >= 2:
        return None
    return f"{components.overrides['objective']} compares examples: data.batch_size must be 2 or more"


def loss_supports_predictions(components: Components) -> str | None:
    """Check that the loss supports the predictions of the objective."""
    loss = build_loss(components.config)
    if components.predicts in accepted_predictions(loss.func if isinstance(loss, functools.partial) else loss):
        return None
    fitting = _options("loss", lambda node: components.predicts in accepted_predictions(get_object(node._target_)))
    loss_name, objective = f"loss={short_name(components.config.loss)}", components.overrides["objective"]
    return f"{loss_name} is incompatible with {objective}: choose {_or(fitting)}"


def uses_unlabelled_rows(components: Components) -> str | None:
    """Check that data.unlabelled is set if, and only if, the strategy uses unlabelled rows, and targets are classes."""
    data, node = components.config.data, components.config.get("strategy")
    if node is None:
        return None
    is_used, is_given = get_object(node._target_).uses_unlabelled, bool(data.get("unlabelled"))
    name = f"strategy={short_name(node)}"
    if is_given and not is_used:
        able = _options("strategy", lambda node: get_object(node._target_).uses_unlabelled)
        return f"data.unlabelled=true: {name} uses labelled rows only: choose {_or(able)}, or remove it"
    if is_used and not is_given:
        return f"{name} needs unlabelled rows: add data.unlabelled=true, to use training rows without their labels"
    if is_used and not components.objective.is_single_label:
        return f"{name} needs one class per row, which {components.overrides['objective']} does not predict"
    return None


def generates_for_test_rows(components: Components) -> str | None:
    """Check that the objective can generate, if data.test_generations is set."""
    count = components.config.data.get("test_generations")
    if not count or generates(components.objective):
        return None
    able = _options("objective", lambda node: _is_generative(get_object(node._target_)))
    return f"data.test_generations={count}: {components.overrides['objective']} generates nothing: choose {_or(able)}"


def _is_generative(objective: type[Objective]) -> bool:
    """Return whether an objective generates after a finetuning."""
    return generates(objective) and objective.monitor is not None


def strong_transforms_support_modality(components: Components) -> str | None:
    """Check that the transforms of data.strong support the modality of the data, and do not mix examples."""
    modality = components.source.modality
    for name, transform in components.strong.items():
        if modality not in transform.inputs or isinstance(transform, Mixing):
            return (
                f"data/augment@data.strong={name} is not for {modality} without targets: "
                f"choose {_or(_transforms(modality, mixes=False))}"
            )
    return None


RULES: tuple[Callable[[Components], str | None], ...] = (  # each returns an error message or None
    supports_modality,
    transforms_support_modality,
    has_abilities,
    supports_static_start,
    objective_is_supervised,
    reconstructs_kind_of_data,
    has_targets,
    uses_teacher,
    encodes_rows,
    supports_image_size,
    supports_mixed_targets,
    augments_views,
    batch_has_other_examples,
    loss_supports_predictions,
    uses_unlabelled_rows,
    strong_transforms_support_modality,
    generates_for_test_rows,
)


def check_compatibility(config: DictConfig) -> None:
    """Raise an error if components are incompatible, before any data is read.

    Raises:
        UserError: with both components and compatible options.
    """
    names = ("backbone", "objective", "loss", "optimizer", "scheduler", "strategy", "average")
    for node in (source_node(config), *(config[name] for name in names if config.get(name) is not None)):
        build_function(node)
    for group in SEVERAL:
        bind_several(config[group], group)
    check_built(config)
    components = Components(config)
    for rule in RULES:
        message = rule(components)
        if message is not None:
            raise UserError(message)


@contextlib.contextmanager
def naming(section: DictConfig, place: str) -> Iterator[None]:
    """Prefix UserErrors that begin with a setting of this section with the key of the section.

    Args:
        section: section of a transfer's config, which may share settings with others by interpolation.
        place: key of the section, with a trailing dot.
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
    """Build the components that need no data, since constructors check combinations of settings.

    Raises:
        UserError: a component cannot be built, or the machine does not support its settings.
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
    """Build a Trainer from the `trainer` group as YAML; raise UserError for settings that are not supported."""
    build_trainer(OmegaConf.create(settings), Path(), None, [])


def _or(names: list[str]) -> str:
    return " or ".join(names) if names else "another combination"


def _options(group: str, fits: Callable[[DictConfig], bool]) -> list[str]:
    """Return overrides with the options of a config group that satisfy a condition."""
    nodes = {
        name: OmegaConf.select(compose_file(f"{group}/{name}"), group.replace("/", ".")) for name in option_names(group)
    }
    return [f"{group}={name}" for name, node in nodes.items() if fits(node)]


def _backbones(modality: str, needs: frozenset[str] = frozenset()) -> list[str]:
    return _options("backbone", lambda node: modality in shape_of(node).modalities and needs <= abilities_of(node))


def _transforms(modality: str, mixes: bool = True) -> list[str]:
    """Return the options of data/augment for a modality."""

    def fits(node: DictConfig) -> bool:
        kinds = [get_object(inner._target_) for inner in node.values()]
        return bool(kinds) and all(modality in kind.inputs and mixes >= issubclass(kind, Mixing) for kind in kinds)

    return _options("data/augment", fits)


def _able(config: DictConfig, needs: frozenset[str]) -> list[str]:
    """Return backbones that an objective can use or, with a Hugging Face backbone, objectives that can use it."""
    if "architecture" not in config.backbone:
        return _backbones(source_type(config.data).modality, needs)
    able = abilities_of(config.backbone)
    return _options("objective", lambda node: frozenset() < get_object(node._target_).needs <= able)


def abilities_of(backbone: DictConfig) -> frozenset[str]:
    """Return the abilities of a backbone with these settings."""
    found = get_object(backbone._target_).abilities
    own = found(**OmegaConf.to_container(backbone)) if callable(found) else found
    return own | get_object(backbone.stem._target_).abilities if "stem" in backbone else own
