"""Checks of the composed config before large libraries are imported, and messages for Hydra's errors."""

from __future__ import annotations

import difflib
import math
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from warmstart.config.expand import CONF
from warmstart.config.schema import ARM, ROOT, SEVERAL, STAGES, Section
from warmstart.core.errors import UserError
from warmstart.core.ranges import describe, is_valid, shown

COMPONENTS = ("data", "backbone", "objective", "loss", "optimizer", "scheduler", "strategy", "average")
LIMITS = ("max_epochs", "max_steps", "max_time", "max_tokens")
PARTIAL = ("tokenizer", "frames", "stem")  # nested components, which the outer component builds
SAVED = "architecture"  # of a transformers model, which may contain infinite numbers


def check(config: DictConfig) -> dict[str, Any]:
    """Raise an error for missing values and invalid settings.

    Returns:
        The config, resolved, as plain containers.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        needed = " ".join(f"{key}=..." for key in sorted(OmegaConf.missing_keys(config)))
        raise UserError(f"experiment={config.experiment} stage={config.stage} needs a value: add {needed}") from error
    stage = plain.get("stage")
    if stage in STAGES:
        sections = {"": plain, **({"pretrain.": plain.get("pretrain")} if stage == "transfer" else {})}
        for prefix, section in sections.items():
            _check_components(config, prefix, section)
        _check_section(plain, STAGES[stage])
        for name, arm in plain.get("arm", {}).items():
            _check_arm(name, arm, plain)
        for prefix, section in sections.items():
            _check_several(section, prefix)
            _check_limits(section, prefix)
    _check_values(plain, "")
    return plain


def check_root(config: DictConfig) -> None:
    """Check the settings of a sweep and of `resume`.

    Raises:
        UserError: with the invalid setting.
    """
    own = OmegaConf.masked_copy(config, [key for key in ROOT.keys if key in config])
    _check_section(OmegaConf.to_container(own, resolve=True), ROOT)


def target_of(node: DictConfig, place: str) -> Any:
    """Return the class or function in the `_target_` of a component.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        return get_object(node["_target_"])
    except Exception as error:
        reason = (
            " ".join(str(error).splitlines()[:2]) or type(error).__name__
        )  # Hydra gives the cause in the second line
        raise UserError(f"{place}._target_={shown(node['_target_'])} cannot be imported: {reason}") from error


def _check_section(node: Any, section: Section, place: str = "", partial: bool = False) -> None:
    """Raise an error for unknown names, invalid values and missing names of a section.

    Args:
        node: the settings.
        section: the schema.
        place: key of the section in the config, with a trailing dot.
        partial: whether names may be missing.
    """
    if not isinstance(node, dict):
        raise UserError(f"{place[:-1]}={shown(node)}: set its keys one by one, such as {place}NAME=VALUE")
    unknown = [] if section.is_open else [key for key in node if key not in section.keys]
    if unknown:
        near = nearest(str(unknown[0]), list(section.keys), f"In {place[:-1] or 'the config'}")
        raise UserError(f"{place}{unknown[0]}: no such setting here. {near}")
    for key, hint in section.keys.items():
        if key not in node or (node[key] is None and key in section.optional and isinstance(hint, Section)):
            if key not in section.optional and key not in node and not partial:
                raise UserError(f"{place}{key} is missing: remove ~{place}{key}, or set a value")
            continue
        if isinstance(hint, Section):
            _check_section(node[key], hint, f"{place}{key}.", partial)
        elif not is_valid(node[key], hint):
            raise UserError(f"{place}{key}={shown(node[key])}: must be {describe(hint)}")


def _check_arm(name: str, arm: Any, shared: dict[str, Any]) -> None:
    """Raise an error for invalid settings of an arm, and for settings of a component that is not chosen."""
    place = f"arm.{name}."
    for group in (*COMPONENTS, "baseline") if isinstance(arm, dict) else ():
        if isinstance(arm.get(group), str):
            raise UserError(f"{place}{group}={arm[group]}: choose a component with {group}@{place}{group}={arm[group]}")
        if isinstance(arm.get(group), dict) and "_target_" not in {
            **(shared.get(group) or {}),
            **arm[group],
        }:
            raise UserError(f"{place}{group}: no {group} is chosen here: add +{group}@{place}{group}=NAME")
    _check_section(arm, ARM, place, partial=True)


def _check_limits(section: dict[str, Any], prefix: str) -> None:
    """Raise an error for a training without a limit, and for snapshots if the number of steps is unknown."""
    limits = section.get("trainer")
    if limits is not None and all(limits.get(name) in (-1, None) for name in LIMITS):
        raise UserError(f"{prefix}trainer has no limit: set trainer.{' or trainer.'.join(LIMITS)}")
    if section.get("snapshots") and limits.get("max_time") is not None:
        raise UserError(f"{prefix}snapshots require a known number of steps: remove trainer.max_time")


def _check_values(node: Any, place: str) -> None:
    """Raise an error for NaN, infinity, and nested components without _partial_."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        if key in PARTIAL and isinstance(value, dict) and "_target_" in value and "_partial_" not in value:
            raise UserError(f"{place}.{key}._partial_ is missing: remove ~{place}.{key}._partial_")
        if key == "_partial_" and value is not True:
            raise UserError(f"{place}.{key}={shown(value)}: this key is reserved for Hydra, remove it")
        if key != SAVED:
            _check_values(value, f"{place}.{key}" if place else str(key))
    if isinstance(node, float) and not math.isfinite(node):
        raise UserError(f"{place}={node}: must be a finite number")


def _check_components(config: DictConfig, prefix: str, section: Any) -> None:
    """Raise an error if a section of the config at `prefix` lacks a component."""
    if not isinstance(section, dict):
        raise UserError(f"{prefix[:-1]}={section}: set its keys one by one, such as {prefix}seed=1")
    for group in COMPONENTS:
        node = section.get(group)
        if node is None or (isinstance(node, dict) and "_target_" in node):
            continue
        if group == "data" and config.stage == "predict":  # the data is that of the run
            continue
        if not isinstance(node, dict):
            raise UserError(f"{prefix}{group}={node}: choose a component with {group}@{prefix}{group}={node}")
        raise UserError(
            f"experiment={config.experiment} chooses no {prefix}{group} for stage={config.stage}: "
            f"does it have a file conf/experiment/{config.experiment}/{config.stage}.yaml?"
        )


def _check_several(section: dict[str, Any], prefix: str) -> None:
    """Raise an error if an entry of a multi-option group is not a component."""
    for group in SEVERAL:
        for name, node in section.get(group, {}).items():
            if not isinstance(node, dict) or "_target_" not in node:
                raise UserError(f"{prefix}{group}.{name}={shown(node)}: choose it with {group}=[{name}]")


def explain(error: Exception) -> str:
    """Return the message for an error of Hydra or OmegaConf, with similar names that exist."""
    if isinstance(error, OmegaConfBaseException) and isinstance(error.__cause__, UserError):  # of a resolver
        return str(error.__cause__)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else type(error).__name__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        options = error.options or [path.stem for path in (CONF / group).glob("*.yaml")]  # none for a list
        return f"{group}={name} does not exist. {nearest(name, options)}"
    if isinstance(error, OverrideParseException) or message.startswith("Ambiguous value"):
        word = message.partition("'")[2] if message.startswith("Ambiguous") else error.override
        key = word.partition("=")[0]
        return f"{key}: a value with commas, quotes or other special characters must be quoted twice: {key}=\"'...'\""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and "not in struct" in str(cause):
        return _explain_key(cause)
    place, _, value = message.removeprefix("Error merging override ").partition("=")
    group, options = group_of(place)
    if options and value.startswith("["):
        return f"{place}={value}: choose with {group}={value}"
    if "No match in the defaults list" in message:
        return f"{message.split(' No match')[0]} This stage and experiment have no such component."
    return message


def _explain_key(cause: OmegaConfBaseException) -> str:
    """Return the message for a key that does not exist, with similar names."""
    siblings = list(cause.parent_node.keys()) if isinstance(cause.parent_node, DictConfig) else []
    place = str(cause.full_key).rpartition(".")[0] or "the config"
    group, options = group_of(place)
    if options and "_target_" not in siblings:
        if cause.key in options:
            return f"{cause.full_key}: {cause.key} is not chosen. Add {group}=[{cause.key},...]"
        return f"{cause.full_key}: no such key. Choose with {group}=[...]. {nearest(str(cause.key), options)}"
    if place.startswith("pretrain.") and not siblings:
        return f"{place} is shared by both stages here: set {str(cause.full_key).removeprefix('pretrain.')}"
    if cause.full_key in ("backbone.dtype", "backbone.quantize"):
        return (
            f"{cause.full_key} is for text models of Hugging Face: add backbone=huggingface and init=hf:NAME_OR_DIR or "
            "a run that started from one, or remove it"
        )
    stages = [name for name, section in STAGES.items() if cause.key in section.keys and place == "the config"]
    if "stage" in siblings and stages:
        return f"{cause.full_key}: this stage has no such setting: it is for stage={' and stage='.join(stages)}"
    return f"{cause.full_key}: no such key. {nearest(str(cause.key), siblings, f'In {place}')}"


def group_of(place: str) -> tuple[str, list[str]]:
    """Return the config group of a key, as in an override, and its options if several can be chosen."""
    own = place.removeprefix("pretrain.")
    group = own.replace(".", "/")
    paths = (CONF / group).glob("*.yaml")
    options = [path.stem for path in paths if not path.read_text().startswith("_target_")]
    return group if place == own else f"{group}@{place}", options


def nearest(name: str, options: list[str], where: str = "There is") -> str:
    """Return a hint with the options similar to a misspelled name, or with all options."""
    near = difflib.get_close_matches(name, [str(option) for option in options], n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"{where}: {', '.join(sorted(map(str, options)))}." if options else ""
