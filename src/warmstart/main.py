"""Compose the config, check it, and call the stage. Nothing here imports torch."""

from __future__ import annotations

import difflib
import importlib
import logging
import math
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from warmstart import screen
from warmstart.contracts import UserError
from warmstart.run.identity import new_id

PACKAGE = Path(__file__).parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parents[1] / "conf"

USER_MISTAKE, FAILED, SOME_FAILED, INTERRUPTED = 2, 1, 3, 130

Rule = tuple[type | tuple[type, ...], Callable[[Any], bool], str]
NUMBER = (int, float)
COUNT: Rule = (int, lambda value: value > 0, "a whole number above 0")
AMOUNT: Rule = (NUMBER, lambda value: 0 <= value < math.inf, "a number, 0 or more")
SHARE: Rule = (NUMBER, lambda value: 0 < value <= 1, "a number above 0 and at most 1")
LIMIT: Rule = (int, lambda value: value > 0 or value == -1, "a whole number above 0, or -1 for no limit")
# Settings that every part of a stage shares; those of a single part are checked by its signature and constructor.
RULES: dict[str, Rule] = {
    "output_dir": (str, bool, "a folder"),
    "seed": (int, lambda value: value >= 0, "a whole number, 0 or more"),
    "data.batch_size": COUNT,
    "data.labels_per_class": COUNT,
    "data.label_fraction": SHARE,
    "data.augment": (DictConfig, bool, "settings, such as data.augment.shift=1"),
    "data.augment.shift": (int, lambda value: value >= 0, "a whole number, 0 or more"),
    "data.augment.crop": SHARE,
    "data.augment.colour": AMOUNT,
    "data.augment.noise": AMOUNT,
    "optimizer.lr": (NUMBER, lambda value: 0 < value < math.inf, "a number above 0"),
    "optimizer.weight_decay": AMOUNT,
    "trainer.max_epochs": LIMIT,
    "trainer.max_steps": LIMIT,
    "trainer.accumulate_grad_batches": COUNT,
    "trainer.check_val_every_n_epoch": COUNT,
    "trainer.log_every_n_steps": COUNT,
    "trainer.limit_val_batches": (NUMBER, lambda value: value > 0, "above 0: the best checkpoint is chosen by it"),
    "trainer.limit_train_batches": (NUMBER, lambda value: value > 0, "above 0"),
    "trainer.devices": (int, lambda value: value == 1, "1: a run uses one device"),
    "transfer.seeds": COUNT,
}
MAY_BE_NULL = frozenset(
    {
        "data.labels_per_class",
        "data.label_fraction",
        "trainer.check_val_every_n_epoch",
        "trainer.limit_val_batches",
        "trainer.limit_train_batches",
    }
)

OmegaConf.register_new_resolver("new_id", new_id, use_cache=True, replace=True)

_statuses: list[int] = []


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def _job(config: DictConfig) -> None:
    if HydraConfig.get().mode == hydra.types.RunMode.MULTIRUN:
        job = HydraConfig.get().job
        screen.say(f"job {job.num}: {' '.join(HydraConfig.get().overrides.task)}", style="bold")
    status = run(config)
    _statuses.append(status)
    if status == INTERRUPTED:
        raise KeyboardInterrupt


def main() -> None:
    """Run the command line; end with 0, 1 (a bug), 2 (a user's mistake), 3 (some jobs failed) or 130 (Ctrl-C)."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then hands its errors to us instead of printing and leaving with 1
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger().addHandler(logging.NullHandler())  # records go to a run's log, not to the screen
    for word in sys.argv[1:]:
        if re.fullmatch(r"[a-z_/]+=(null|)", word) and (CONF / word.partition("=")[0]).is_dir():
            _print_error(f"{word}: give a name, or leave the word out for what the experiment chooses")
            sys.exit(USER_MISTAKE)
    try:
        _job()
    except (HydraException, OmegaConfBaseException) as error:
        _print_error(explain(error))
        sys.exit(USER_MISTAKE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    if len(_statuses) > 1 and any(_statuses):
        _print_error(f"{sum(map(bool, _statuses))} of {len(_statuses)} jobs failed")
        sys.exit(SOME_FAILED)
    sys.exit(max(_statuses, default=0))


def run(config: DictConfig) -> int:
    """Check a composed config and run its stage; return the exit status."""
    try:
        check(config)
        importlib.import_module(f"warmstart.stage.{config.stage}").run(config)
    except (UserError, HydraException, OmegaConfBaseException) as error:
        _print_error(explain(error))
        return USER_MISTAKE
    except KeyboardInterrupt:
        _print_error("interrupted")
        return INTERRUPTED
    except Exception:
        traceback.print_exc()
        return FAILED
    return 0


def check(config: DictConfig) -> None:
    """Refuse missing values and numbers that no run can use, before anything heavy is imported."""
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        needed = " ".join(f"{key}=..." for key in missing)
        raise UserError(f"experiment={config.experiment} stage={config.stage} needs a value: add {needed}")
    for prefix in ("", "pretrain."):
        for key, (kinds, holds, rule) in RULES.items():
            path = (prefix + key).rpartition(".")[0]
            parent = OmegaConf.select(config, path) if path else config
            if not isinstance(parent, DictConfig) or key.rpartition(".")[2] not in parent:
                continue
            value = OmegaConf.select(config, prefix + key)
            if value is None and key in MAY_BE_NULL:
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or not holds(value):
                raise UserError(f"{prefix}{key}={'null' if value is None else value}: must be {rule}")
        limits = OmegaConf.select(config, f"{prefix}trainer")
        if limits is not None and limits.max_epochs == -1 and limits.max_steps == -1:
            raise UserError(f"{prefix}trainer has no end: give trainer.max_epochs or trainer.max_steps")
    for part in ("data", "backbone", "objective"):
        node = config.get(part)
        if node is not None and (not isinstance(node, DictConfig) or "_target_" not in node):
            raise UserError(
                f"experiment={config.experiment} chooses no {part} for stage={config.stage}: "
                f"does it have a file conf/experiment/{config.experiment}/{config.stage}.yaml?"
            )


def explain(error: Exception) -> str:
    """An error of Hydra or OmegaConf in one or two lines, with the nearest names that do exist."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    message = lines[0] if lines else type(error).__name__
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return f"{group}={name} does not exist. {_nearest(name, error.options or [])}"
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else error
    if isinstance(cause, OmegaConfBaseException) and "not in struct" in str(cause):
        siblings = list(cause.parent_node.keys()) if isinstance(cause.parent_node, DictConfig) else []
        place = str(cause.full_key).rpartition(".")[0] or "the config"
        return f"{cause.full_key}: there is no such key. {_nearest(str(cause.key), siblings, f'In {place}')}"
    if "No match in the defaults list" in message:
        return f"{message.split(' No match')[0]} This stage and experiment have no such part."
    return message


def _nearest(name: str, options: list[str], where: str = "There is") -> str:
    near = difflib.get_close_matches(name, [str(option) for option in options], n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"{where}: {', '.join(sorted(map(str, options)))}." if options else ""


def _print_error(message: str) -> None:
    screen.log.error(message)
    screen.console().print(f"error: {message}", style="bold red", markup=False)
