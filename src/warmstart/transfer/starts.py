"""transfer.starts: an arm per possible start."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from warmstart.config.options import is_given
from warmstart.config.resolve import saved_backbone
from warmstart.config.rewrite import changed, merged
from warmstart.core.errors import UserError
from warmstart.core.init import HUB, Init
from warmstart.run.folder import RunFolder
from warmstart.run.identity import resolved_for_arms
from warmstart.transfer.arms import (
    PRETRAINED,
    without_stale_budgets,
)

CONTROL, OWN = "scratch", "own"  # entries of transfer.starts, and the names of their arms
UNSPECIFIC = re.compile(r"model|weights|checkpoint|main|[0-9a-f]{16,}")  # names of folders that identify no model
NAME_LENGTH = 40


def with_starts(config: DictConfig) -> DictConfig:
    """Replace the arms of a transfer by one for each of transfer.starts; controls are kept.

    An arm is named after its start. It is compared with the starts before it, `scratch` being the first. Settings under
    `arm.NAME` override it. A list of transfer.budgets with an arm that does not exist is emptied. A single start is
    `transfer.start`, whose arms are those of transfer.arms.

    Raises:
        UserError: an entry is no start or occurs twice, or other settings contradict it.
    """
    if config.transfer.get("starts") is None:
        return config
    given = [str(entry) for entry in config.transfer.starts]
    if config.transfer.start != PRETRAINED:
        raise UserError(f"transfer.start={config.transfer.start} contradicts transfer.starts: remove one of them")
    if config.pretrain.snapshots:
        raise UserError(f"pretrain.snapshots={config.pretrain.snapshots}: transfer.starts uses no snapshots: remove it")
    inits = [parse(entry) for entry in given]
    if len(inits) == 1 and inits[0].path not in ("", PRETRAINED):
        return changed(config, {"transfer.starts": None, "transfer.start": str(inits[0])})
    if len({replace(init, path=os.path.realpath(init.path)) for init in inits}) < max(2, len(inits)):
        raise UserError(f"transfer.starts=[{','.join(given)}]: give two or more different starts")
    is_complete = {arm for arm, node in config.arm.items() if "init" in node or "baseline" in node}
    starts = dict(zip(names_of(inits, is_complete), inits))
    ordered = sorted(starts, key=lambda name: name != CONTROL)
    nodes = dict(config.arm)
    for number, name in enumerate(ordered):
        nodes[name] = start_arm(config, name, starts[name], ordered[:number], has_pretraining=OWN in starts)
    kept = controls(config, nodes, ordered)
    arms = {"arm": {**nodes, **kept}, "transfer.arms": [*ordered, *kept]}
    return without_stale_budgets(
        changed(config, {**arms, "transfer.starts": [word_of(starts[name]) for name in ordered]})
    )


def controls(config: DictConfig, nodes: Mapping[str, Any], starts: Sequence[str]) -> dict[str, Any]:
    """Return the arms of transfer.arms to keep: baselines, and arms with random weights and their own length.

    A baseline that uses initial weights becomes one arm per start, such as `knn_own`.

    Args:
        nodes: all arms, with those of the starts.
        starts: names of the starts.

    Raises:
        UserError: transfer.arms on the command line has another arm.
    """
    requested = config.transfer.arms
    listed = [requested] if isinstance(requested, str) else [str(arm) for arm in requested]
    found: dict[str, Any] = {}
    for arm in (arm for arm in listed if arm not in starts):
        node = config.arm.get(arm) or {}
        if "baseline" in node and node.get("init") == PRETRAINED:
            for name in (name for name in starts if name != CONTROL):
                own = {key: nodes[name][key] for key in ("init", "backbone", "preprocessor") if key in nodes[name]}
                found[f"{arm}_{name}"] = merged(resolved_for_arms(node), own)
        elif "baseline" in node:
            found[arm] = node
        elif node.get("init") == CONTROL and "length" in node:
            found[arm] = node if OWN in starts else merged(OmegaConf.to_container(node), {"preprocessor": None})
        elif is_given("transfer.arms"):
            raise UserError(f"transfer.arms: {arm} contradicts transfer.starts, which sets all arms but the controls")
    return found


def parse(entry: str) -> Init:
    """Return the initial weights of an entry of transfer.starts, with absolute paths.

    Raises:
        UserError: it is no start.
    """
    if entry == OWN:
        return Init("folder", PRETRAINED)
    init = Init.parse(entry)
    if init.kind == "hub":
        folder = Path(init.path).expanduser()
        return replace(init, path=os.path.abspath(folder)) if folder.is_dir() else init
    if init.kind == CONTROL and init == init.source:
        return init
    if not init.is_folder:
        raise UserError(
            f"transfer.starts: {entry} is no start: give {CONTROL}, {OWN} (the pretraining of this transfer), "
            f"{HUB}NAME_OR_DIR or a run folder"
        )
    return replace(init, path=os.path.abspath(init.path))


def word_of(init: Init) -> str:
    """Return the entry of transfer.starts for these initial weights."""
    return OWN if init.path == PRETRAINED else str(init)


def names_of(inits: Sequence[Init], taken: Collection[str]) -> list[str]:
    """Return a short name for each start, none of which is in `taken` or occurs twice."""
    names: list[str] = []
    for init in inits:
        if (word := word_of(init)) in (CONTROL, OWN):
            names.append(word)
            continue
        name, number = short_name(init), 2
        unique = name
        while unique in taken or unique in names or unique in (CONTROL, OWN):
            unique, number = f"{name}_{number}", number + 1
        names.append(unique)
    return names


def short_name(init: Init) -> str:
    """Return a name of letters, digits and underscores: that of the model's folder, or the experiment of a run."""
    path = Path(init.path)
    record = path / "run.json"
    parts = [RunFolder.open(path).record["experiment"]] if record.exists() else [*path.parts]
    specific = [part for part in parts if not UNSPECIFIC.fullmatch(part)] or parts
    name = re.sub(r"[^a-z0-9]+", "_", specific[-1].lower()).strip("_")[:NAME_LENGTH] or "start"
    suffix = ("_random" if init.random else "") + ("_shuffled" if init.shuffled else "")
    return ("start_" if name[0].isdigit() else "") + name + suffix


def start_arm(config: DictConfig, name: str, init: Init, against: list[str], has_pretraining: bool) -> DictConfig:
    """Return the arm of a start, with its own stem and preprocessor, and the overrides under `arm.NAME`.

    Args:
        config: a composed transfer config.
        name: of the arm.
        init: its initial weights.
        against: the arms that it is compared with.
        has_pretraining: whether the pretraining of this transfer is among the starts.

    Raises:
        UserError: `arm.NAME` has other initial weights.
    """
    overrides = resolved_for_arms(config.arm[name]) if name in config.arm else {}
    base: dict[str, Any] = {"init": str(init)}
    if name == OWN:
        base = {**resolved_for_arms(config.arm[PRETRAINED]), "init": PRETRAINED}
    elif init.kind == "folder" and (node := saved_backbone(Path(init.path), tuple(config.trust))) is not None:
        base["backbone"] = node
    if "baseline" in overrides or overrides.get("init", base["init"]) != base["init"]:
        raise UserError(f"arm.{name} contradicts transfer.starts, which makes an arm of this name: rename arm.{name}")
    if overrides.get("preprocessor") == PRETRAINED and not has_pretraining:
        overrides["preprocessor"] = None
    return merged({**base, "against": against}, {**overrides, "against": against})


@contextlib.contextmanager
def naming_start(config: DictConfig, arm: str) -> Iterator[None]:
    """Name the start of an arm in the message of a UserError that is raised in the context."""
    try:
        yield
    except UserError as error:
        if config.transfer.get("starts") is None or arm not in start_names(config):
            raise
        entry = config.transfer.starts[start_names(config).index(arm)]
        raise UserError(f"transfer.starts: {entry}: {error}") from error


def start_names(config: DictConfig) -> list[str]:
    """Return the names of the arms of transfer.starts, in order; they are the first of transfer.arms."""
    return list(config.transfer.arms)[: len(config.transfer.starts)]
