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


def _print_error(message: str) -> None:
    screen.log.error(message)
    screen.console().print(f"error: {message}", style="bold red", markup=False)
