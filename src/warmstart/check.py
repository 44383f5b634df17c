"""What no run can use is refused before anything heavy is imported, and errors are said in a line or two."""

from __future__ import annotations

import difflib
import functools
import math
import re
from collections.abc import Callable
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue, OmegaConfBaseException

from warmstart.contracts import UserError

Rule = tuple[type | tuple[type, ...], Callable[[Any], bool], str]
NUMBER = (int, float)
COUNT: Rule = (int, lambda value: value > 0, "a whole number above 0")
AMOUNT: Rule = (NUMBER, lambda value: 0 <= value < math.inf, "a number, 0 or more")
SHARE: Rule = (NUMBER, lambda value: 0 < value <= 1, "a number above 0 and at most 1")
POSITIVE: Rule = (NUMBER, lambda value: 0 < value < math.inf, "a number above 0")
PART: Rule = (NUMBER, lambda value: 0 <= value <= 1, "a number from 0 to 1")
LIMIT: Rule = (int, lambda value: value > 0 or value == -1, "a whole number above 0, or -1 for no limit")
TIME = re.compile(r"(?!0*:00:00$)\d+:[0-5]\d:[0-5]\d")
DURATION: Rule = (
    (*NUMBER, str),
    lambda value: bool(TIME.fullmatch(value)) if isinstance(value, str) else 0 < value < math.inf,
    "a time above 0, in seconds or as hours:minutes:seconds, such as 00:10:00",
)
PARTS = ("data", "backbone", "objective", "loss", "optimizer", "scheduler", "strategy", "average")
LIMITS = ("max_epochs", "max_steps", "max_time", "max_tokens")
# Settings that every part of a stage shares; those of a single part are checked by its signature and constructor.
RULES: dict[str, Rule] = {
    "output_dir": (str, bool, "a folder"),
    "seed": (int, lambda value: value >= 0, "a whole number, 0 or more"),
    "data.batch_size": COUNT,
    "data.labels_per_class": COUNT,
    "data.label_fraction": SHARE,
    "data.folds": (int, lambda value: value >= 2, "a whole number, 2 or more"),
    "data.fold": (int, lambda value: value >= 0, "a whole number, 0 or more"),
    "data.augment": (dict, bool, "settings, such as data.augment.shift=1"),
    "data.augment.shift": (int, lambda value: value >= 0, "a whole number, 0 or more"),
    "data.augment.side": (int, lambda value: value >= 0, "a whole number of pixels, or 0 for the images' own"),
    "data.augment.crop": SHARE,
    **{f"data.augment.{name}": AMOUNT for name in ("colour", "noise", "mixup", "cutmix")},
    **{f"data.augment.{name}": PART for name in ("grey", "blur", "solarise", "erase")},
    "data.pack": (int, lambda value: value >= 8, "a whole number, 8 or more"),
    "data.on_error": (str, lambda value: value in ("raise", "skip"), "raise or skip"),
    "data.separator": (str, bool, "one character, such as ';', or tab"),
    "data.missing_values": (list, lambda value: True, "a list of texts, such as [NA,-999]"),
    "data.missing_columns": (str, lambda value: value in ("error", "fill"), "error or fill"),
    "data.separate": (bool, lambda value: True, "true or false"),
    "data.sources": (dict, lambda value: len(value) > 1, "two or more data sets, such as data=[a,b]"),
    "data.tokenizer": (dict, bool, "a tokenizer: choose it by data/tokenizer=NAME"),
    "optimizer.lr": POSITIVE,
    "optimizer.weight_decay": AMOUNT,
    "optimizer.momentum": (NUMBER, lambda value: 0 <= value < 1, "a number, 0 or more and below 1"),
    "optimizer.adam_scale": POSITIVE,
    "optimizer.betas": (
        list,
        lambda value: len(value) == 2 and all(isinstance(beta, NUMBER) and 0 <= beta < 1 for beta in value),
        "two numbers, 0 or more and below 1, such as [0.9,0.95]",
    ),
    **{f"scheduler.{name}": PART for name in ("warmup", "decay", "peak", "start", "final")},
    "strategy.rate": POSITIVE,
    "average.decay": (NUMBER, lambda value: 0 < value < 1, "a number above 0 and below 1"),
    "average.start": (NUMBER, lambda value: 0 <= value < 1, "a share of the steps, 0 or more and below 1"),
    "average.every": COUNT,
    "trainer.max_epochs": LIMIT,
    "trainer.max_steps": LIMIT,
    "trainer.max_time": DURATION,
    "trainer.max_tokens": POSITIVE,
    "trainer.min_steps": COUNT,
    "trainer.gradient_clip_val": AMOUNT,
    "patience": COUNT,
    "forgetting": (bool, lambda value: True, "true or false"),
    "snapshots": (int, lambda value: value >= 0, "a whole number, 0 or more"),
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.val_check_interval": (
        (*NUMBER, str),
        lambda value: isinstance(value, str) or 0 < value <= (1 if isinstance(value, float) else math.inf),
        "a number of batches above 0, or a share of an epoch",
    ),
    "trainer.log_every_n_steps": COUNT,
    "trainer.limit_val_batches": (NUMBER, lambda value: value > 0, "above 0: the best checkpoint is chosen by it"),
    "trainer.limit_train_batches": (NUMBER, lambda value: value > 0, "above 0"),
    "trainer.threads": (
        (int, str),
        lambda value: value == "auto" if isinstance(value, str) else value > 0,
        "auto, or a whole number above 0",
    ),
    "trainer.devices": (int, lambda value: value == 1, "1: a run uses one device"),
    "transfer.start": (str, bool, "pretrained, hf:NAME_OR_DIR or a run folder"),
    "transfer.seeds": COUNT,
    "transfer.pretrain_seeds": COUNT,
    "transfer.tune": (int, lambda value: value >= 0, "a whole number, 0 or more"),
    "transfer.margin": AMOUNT,
    "transfer.converged.patience": COUNT,
    "transfer.converged.most": COUNT,
    "transfer.converged.scratch": COUNT,
}
MAY_BE_NULL = frozenset(
    {
        "data.labels_per_class",
        "data.label_fraction",
        "data.folds",
        "data.pack",
        "data.separator",
        "data.missing_values",
        "patience",
        "trainer.max_time",
        "trainer.max_tokens",
        "trainer.min_steps",
        "trainer.gradient_clip_val",
        "trainer.check_val_every_n_epoch",
        "trainer.val_check_interval",
        "trainer.limit_val_batches",
        "trainer.limit_train_batches",
    }
)


def check(config: DictConfig) -> dict[str, Any]:
    """Refuse missing values and numbers that no run can use, before anything heavy is imported.

    Returns:
        The config, resolved, as plain containers.
    """
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        needed = " ".join(f"{key}=..." for key in sorted(OmegaConf.missing_keys(config)))
        raise UserError(f"experiment={config.experiment} stage={config.stage} needs a value: add {needed}") from error
    sections = {"": plain, "pretrain.": plain.get("pretrain", {})}
    for prefix, part in sections.items():
        _check_parts(config, prefix, part)
        for path, (kinds, holds, rule) in RULES.items():
            *parents, key = path.split(".")
            node = functools.reduce(
                lambda node, name: node.get(name) if isinstance(node, dict) else None, parents, part
            )
            if not isinstance(node, dict) or key not in node:
                continue
            value = node[key]
            if value is None and path in MAY_BE_NULL:
                continue
            if isinstance(value, bool) != (kinds is bool) or not isinstance(value, kinds) or not holds(value):
                raise UserError(f"{prefix}{path}={'null' if value is None else value}: must be {rule}")
        limits = part.get("trainer")
        if limits is not None and all(limits.get(name) in (-1, None) for name in LIMITS):
            raise UserError(f"{prefix}trainer has no end: give trainer.{' or trainer.'.join(LIMITS)}")
        if part.get("snapshots") and limits.get("max_time") is not None:
            raise UserError(
                f"{prefix}snapshots are taken at steps that must be known before: leave out trainer.max_time"
            )
    return plain


def _check_parts(config: DictConfig, prefix: str, section: Any) -> None:
    """Refuse a section of the config, found at `prefix`, in which a part is not one."""
    if not isinstance(section, dict):
        raise UserError(f"{prefix[:-1]}={section}: give its settings one by one, such as {prefix}seed=1")
    for part in PARTS:
        node = section.get(part)
        if node is None or (isinstance(node, dict) and "_target_" in node):
            continue
        if part == "data" and config.stage == "predict":  # which data is the run's
            continue
        if not isinstance(node, dict):
            raise UserError(f"{prefix}{part}={node}: a part is chosen by {part}@{prefix}{part}={node}")
        raise UserError(
            f"experiment={config.experiment} chooses no {prefix}{part} for stage={config.stage}: "
            f"does it have a file conf/experiment/{config.experiment}/{config.stage}.yaml?"
        )


def explain(error: Exception) -> str:
    """An error of Hydra or OmegaConf in one or two lines, with the nearest names that do exist."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else type(error).__name__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name} does not exist. {_nearest(name, error.options or [])}"
    if isinstance(error, OverrideParseException) or message.startswith("Ambiguous value"):
        word = message.partition("'")[2] if message.startswith("Ambiguous") else error.override
        key = word.partition("=")[0]
        return f"{key}: a value with commas, quotes or other signs must be quoted twice: {key}=\"'...'\""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and "not in struct" in str(cause):
        siblings = list(cause.parent_node.keys()) if isinstance(cause.parent_node, DictConfig) else []
        place = str(cause.full_key).rpartition(".")[0] or "the config"
        if place.startswith("pretrain.") and not siblings:
            return f"{place} is the same for both stages here: set {str(cause.full_key).removeprefix('pretrain.')}"
        return f"{cause.full_key}: there is no such key. {_nearest(str(cause.key), siblings, f'In {place}')}"
    if "No match in the defaults list" in message:
        return f"{message.split(' No match')[0]} This stage and experiment have no such part."
    return message


def _nearest(name: str, options: list[str], where: str = "There is") -> str:
    near = difflib.get_close_matches(name, [str(option) for option in options], n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"{where}: {', '.join(sorted(map(str, options)))}." if options else ""
