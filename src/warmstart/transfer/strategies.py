"""Adds strategies as arms of a transfer, and excludes those that are incompatible with the backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from warmstart.config.options import compose_file, option_names
from warmstart.config.rewrite import changed, merged
from warmstart.core import screen
from warmstart.core.errors import UserError
from warmstart.core.protocols import Backbone
from warmstart.run.identity import resolved_for_arms
from warmstart.training import components
from warmstart.training.compatibility import check_compatibility
from warmstart.training.start import find_start, given_preprocessor
from warmstart.transfer.arms import arm_config, without_stale_budgets

ALL = "strategies"  # entry of transfer.arms for the reference, the control and every other one for labelled rows
REFERENCE, CONTROL = "full", "scratch"


def with_strategies(config: DictConfig) -> DictConfig:
    """Add an arm to `config.arm` for each strategy in transfer.arms, and expand ALL.

    The arm is `arm.pretrained` with the config of `conf/strategy`, or that of `strategy` if it selects the same one. It
    is compared with full finetuning, and full finetuning with `scratch`. Settings under `arm.NAME` override it; an
    `arm.NAME` with its own `init` or `baseline` is no strategy. Incompatible strategies of ALL are excluded. A list of
    transfer.budgets with an arm that does not exist is emptied.

    Raises:
        UserError: a strategy that transfer.arms names is incompatible.
    """
    requested = config.transfer.arms
    requested = [requested] if requested == ALL else requested
    if not isinstance(requested, ListConfig | list) or all(is_complete_arm(config, entry) for entry in requested):
        return config
    known = strategy_names()
    others = [name for name in known if name not in (REFERENCE, CONTROL, *with_unlabelled_rows(known))]
    entries = [name for entry in requested for name in ([REFERENCE, CONTROL, *others] if entry == ALL else [entry])]
    named = [entry for entry in dict.fromkeys(entries) if entry in known and not is_complete_arm(config, entry)]
    if not named and ALL not in requested:
        return config
    nodes = dict(config.arm)
    against = {REFERENCE: CONTROL}
    for name in named:
        comparator = against.get(name, REFERENCE if REFERENCE in entries else CONTROL)
        nodes[name] = strategy_arm(config, name, comparator if comparator in entries else None)
    expanded = changed(config, {"arm": nodes})
    excluded = dict(incompatible(expanded, named)) if named else {}
    for name, reason in excluded.items():
        if name in requested:
            raise UserError(f"transfer.arms: {reason}")
        screen.say(f"excluded strategy {name}: {reason}", style="yellow")
    kept = [entry for entry in entries if entry not in excluded]
    return without_stale_budgets(changed(expanded, {"transfer.arms": kept}))


def strategy_names() -> list[str]:
    """Return the names of all strategies, the options of the Hydra group."""
    return sorted(option_names("strategy"))


def with_unlabelled_rows(names: list[str]) -> list[str]:
    """Return the strategies among `names` that use unlabelled rows, which ALL does not include."""
    return [name for name in names if get_object(compose_file(f"strategy/{name}").strategy._target_).uses_unlabelled]


def is_complete_arm(config: DictConfig, name: str) -> bool:
    """Return whether `config.arm` has an arm of this name that is no override of a strategy."""
    node = config.arm.get(str(name)) or {}
    return "init" in node or "baseline" in node


def strategy_arm(config: DictConfig, name: str, against: str | None) -> DictConfig:
    """Return the config node of a strategy's arm, compared with the arm `against`."""
    shared = resolved_for_arms(config.arm.pretrained)
    is_selected = "strategy" in config and components.short_name(config.strategy) == name
    node = copy.deepcopy(config.strategy) if is_selected else compose_file(f"strategy/{name}").strategy
    overrides = {"strategy": OmegaConf.to_container(node, resolve=True), "against": against}
    return merged({**shared, **overrides}, config.arm.get(name) or {})


def incompatible(config: DictConfig, names: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the strategies that are incompatible with the backbone of their arm, each with the reason."""
    backbone = backbone_of(config, names[0])
    for name in names:
        strategy, candidate = components.build(config.arm[name].strategy), copy.deepcopy(backbone)
        try:
            strategy.prepare(candidate)
            if not strategy.selects_strategy:
                strategy.learning_rate_scales(candidate)
        except UserError as error:
            yield name, str(error)


def backbone_of(config: DictConfig, arm: str) -> Backbone:
    """Build the backbone of an arm, with random weights."""
    finetuning = arm_config(config, arm, CONTROL, "all", 0)
    check_compatibility(finetuning)
    start, _ = find_start(finetuning)
    if finetuning.init == CONTROL:
        check_compatibility(config.pretrain)
        start, _ = find_start(config.pretrain)
        data = components.generic_data(config.pretrain, given_preprocessor(config.pretrain, start))
    else:
        data = components.task_data(finetuning, given_preprocessor(finetuning, start))
    return components.build_seeded(finetuning.backbone, finetuning.seed, "backbone", spec=data.prepare().spec)
