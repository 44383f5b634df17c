"""Strategies as the arms of a transfer: written out before it starts, those that do not fit the backbone left out."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from omegaconf import DictConfig, ListConfig, OmegaConf

from warmstart.config.rewrite import changed, merged
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.training import components
from warmstart.training.compatibility import check_fit
from warmstart.training.start import find_start, given_preprocessor
from warmstart.transfer.arms import arm_config

ALL = "strategies"  # the entry of transfer.arms that stands for the two below and every other strategy
REFERENCE, CONTROL = "full", "scratch"


def with_strategies(config: DictConfig) -> DictConfig:
    """The config with each strategy that transfer.arms names as an arm of `config.arm`, and ALL as the list it is.

    Such an arm is `arm.pretrained` with the strategy as `conf/strategy` has it, or as `strategy` has it where that is
    the one; it is compared with full finetuning, and that with `scratch`. Settings under `arm.NAME` are added to it; an
    `arm.NAME` that says itself where it starts is that and no strategy. Of ALL, what does not fit the backbone is left
    out. A list of a budget that names an arm that is not there is emptied.

    Raises:
        UserError: a strategy that was asked for by its name does not fit.
    """
    asked = config.transfer.arms
    asked = [asked] if asked == ALL else asked
    if not isinstance(asked, ListConfig | list) or all(is_whole(config, word) for word in asked):
        return config
    known = options()
    others = [name for name in known if name not in (REFERENCE, CONTROL)]
    words = [own for word in asked for own in ([REFERENCE, CONTROL, *others] if word == ALL else [word])]
    named = [word for word in dict.fromkeys(words) if word in known and not is_whole(config, word)]
    if not named and ALL not in asked:
        return config
    nodes = dict(config.arm)
    against = {REFERENCE: CONTROL}
    for name in named:
        beside = against.get(name, REFERENCE if REFERENCE in words else CONTROL)
        nodes[name] = arm_of(config, name, beside if beside in words else None)
    expanded = changed(config, {"arm": nodes})
    refused = dict(misfits(expanded, named)) if named else {}
    for name, reason in refused.items():
        if name in asked:
            raise UserError(f"transfer.arms: {reason}")
        screen.say(f"left out {name}: {reason}", style="yellow")
    kept = [word for word in words if word not in refused]
    expanded = changed(expanded, {"transfer.arms": kept})
    budgets = expanded.transfer.budgets.items()
    stale = [name for name, arms in budgets if isinstance(arms, ListConfig) and not set(arms) <= set(kept)]
    return changed(expanded, {f"transfer.budgets.{name}": [] for name in stale})


def options() -> list[str]:
    """The names of all strategies, as they are typed."""
    return sorted(GlobalHydra.instance().config_loader().get_group_options("strategy", ObjectType.CONFIG))


def is_whole(config: DictConfig, name: str) -> bool:
    """Whether `config.arm` has an arm of this name that stands by itself."""
    own = config.arm.get(str(name)) or {}
    return "init" in own or "baseline" in own


def arm_of(config: DictConfig, name: str, against: str | None) -> DictConfig:
    """The node of a strategy's arm."""
    shared = OmegaConf.to_container(config.arm.pretrained, resolve=True)
    is_chosen = "strategy" in config and components.short_name(config.strategy) == name
    node = copy.deepcopy(config.strategy) if is_chosen else compose(f"strategy/{name}").strategy
    own = {"strategy": OmegaConf.to_container(node, resolve=True), "against": against}
    return merged({**shared, **own}, config.arm.get(name) or {})


def misfits(config: DictConfig, names: list[str]) -> Iterator[tuple[str, str]]:
    """The strategies among arms that do not fit the backbone they start from, each with the reason."""
    backbone = backbone_of(config, names[0])
    for name in names:
        strategy, tried = components.build(config.arm[name].strategy), copy.deepcopy(backbone)
        try:
            strategy.prepare(tried)
            if not strategy.selects_strategy:
                strategy.claims(tried)
        except UserError as error:
            yield name, str(error)


def backbone_of(config: DictConfig, arm: str) -> Backbone:
    """A backbone as an arm builds it, with random weights."""
    own = arm_config(config, arm, CONTROL, "all", 0)
    check_fit(own)
    start, _ = find_start(own)
    if own.init == CONTROL:
        check_fit(config.pretrain)
        start, _ = find_start(config.pretrain)
        data = components.generic_data(config.pretrain, given_preprocessor(config.pretrain, start))
    else:
        data = components.task_data(own, given_preprocessor(own, start))
    return components.build_seeded(own.backbone, own.seed, "backbone", spec=data.prepare().spec)
